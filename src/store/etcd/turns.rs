//! One call's way over the endpoints: which is tried, for how long, and when to give up.
//!
//! Reads are tried again on any fault of an endpoint; writes only when the request certainly had no effect: otherwise the caller
//! is told that the outcome is unknown. Each endpoint is tried once; of a single one a read is tried twice, because the first
//! try may only have found out that a connection is dead. While a member says that there is no leader an election is under
//! way: then the round begins again until the call's time is over.

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::error::Failure;
use super::ring::Ring;
use crate::store::api::StoreError;

/// A connection that broke before a request was sent is made again. More than once, because others of the process may find it
/// broken together, and one that breaks at once is for the endpoint's health to judge.
const GONE_MAX: u32 = 3;
/// A request under way while users change is refused, and the next may be as well: users are added one after another. Each second
/// attempt is with a new token. (Seen at 20 changes a second: two refusals in a row.)
const OLD_MAX: u32 = 8;
/// One new token: a permission that is truly missing looks the same as an old token.
const TOKENS_MAX: u32 = 1;

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Doing it twice is as good as once.
    Read,
    /// Only once.
    Write,
}

/// How often the same endpoint was tried again, and why.
#[derive(Debug, Default)]
struct Renewals {
    gone: u32,
    old: u32,
    token: u32,
}

/// The turns of one call.
pub(super) struct Turns<'a> {
    ring: &'a Ring,
    kind: Kind,
    deadline: Instant,
    tried: Vec<bool>,
    attempts: usize,
    /// A member answered that it cannot serve just now.
    soon: bool,
    renewals: Renewals,
    stale: Option<u64>,
    last: Option<StoreError>,
}

/// One attempt.
pub(super) struct Turn {
    /// The endpoint.
    pub(super) index: usize,
    /// Not with the client of this number: its connection broke, or its token is no longer taken.
    pub(super) stale: Option<u64>,
    /// When it must be over.
    pub(super) until: Instant,
    began: Instant,
}

impl<'a> Turns<'a> {
    /// A call that begins now.
    pub(super) fn new(ring: &'a Ring, kind: Kind) -> Self {
        let deadline = Instant::now() + ring.settings.command_timeout;
        let tried = vec![false; ring.len()];
        Turns { ring, kind, deadline, tried, attempts: 0, soon: false, renewals: Renewals::default(), stale: None, last: None }
    }

    /// The next attempt, after a wait if all endpoints are left alone; the last error if time is over before it.
    pub(super) async fn next(&mut self) -> Result<Turn, StoreError> {
        let index = self.ring.choose(&self.tried, self.deadline).await;
        let began = Instant::now();
        if began >= self.deadline
            && let Some(error) = self.last.take()
        {
            return Err(error);
        }
        // A read leaves half of the time for another endpoint: one that was not tried yet, or that waits for an election.
        let untried = self.tried.iter().enumerate().any(|(other, tried)| other != index && !tried);
        let others = untried || (self.soon && self.tried.len() > 1);
        let until = match self.kind {
            Kind::Read if others => began + self.deadline.saturating_duration_since(began) / 2,
            _ => self.deadline,
        };
        Ok(Turn { index, stale: self.stale, began, until })
    }

    /// What an attempt came to: an answer, another turn (`None`), or the end. `client`: the number of the one it used.
    pub(super) fn settle<T>(
        &mut self,
        turn: &Turn,
        client: u64,
        outcome: Result<Result<T, Failure>, Elapsed>,
    ) -> Result<Option<T>, StoreError> {
        let failure = match outcome {
            Ok(Ok(answer)) => {
                self.ring.good(turn.index);
                return Ok(Some(answer));
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::timeout(u64::try_from(turn.began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        tracing::debug!(endpoint = self.ring.endpoint(turn.index), error = %failure.error, "a call failed");
        if self.is_renewable(&failure, client) {
            return Ok(None);
        }
        if !failure.endpoint {
            return Err(failure.error);
        }
        match failure.error {
            // It answers.
            StoreError::OtherCluster(_) => self.ring.leave_alone(turn.index),
            _ => self.ring.bad(turn.index),
        }
        self.attempts += 1;
        self.soon |= failure.soon;
        if let Some(tried) = self.tried.get_mut(turn.index) {
            *tried = true;
        }
        let round_over = self.tried.iter().all(|tried| *tried);
        let second_try = self.kind == Kind::Read && self.attempts == 1;
        if round_over && (self.soon || second_try) {
            self.tried.fill(false);
        }
        let again = failure.no_effect || self.kind == Kind::Read;
        let mut error = self.ring.name_all(failure.error);
        // That other endpoints are dead says less.
        if let (StoreError::Unreachable { .. }, Some(before @ StoreError::OtherCluster(_))) = (&error, &self.last) {
            error = before.clone();
        }
        if !again || self.tried.iter().all(|tried| *tried) || Instant::now() >= self.deadline {
            return Err(error);
        }
        self.last = Some(error);
        Ok(None)
    }

    /// Whether the same endpoint may take the request again: with another connection or token, or with the same token once more.
    fn is_renewable(&mut self, failure: &Failure, client: u64) -> bool {
        if failure.old {
            self.renewals.old += 1;
            // A simple token has no revision of its own, so that it is good again at once. Others need a new login.
            if self.renewals.old.is_multiple_of(2) {
                self.stale = Some(client);
            }
            return self.renewals.old <= OLD_MAX;
        }
        let (count, allowed) = match (failure.gone, failure.token) {
            (true, _) => (&mut self.renewals.gone, GONE_MAX),
            (false, true) => (&mut self.renewals.token, TOKENS_MAX),
            (false, false) => return false,
        };
        *count += 1;
        self.stale = Some(client);
        *count <= allowed
    }
}
