//! A cluster of etcd members in front of one model of etcd: who leads, who is out, whose tokens are known. The members are front
//! ends: what they have agreed on is the model, which no fault of theirs can damage, as none can damage etcd's.
//!
//! The model lives on the script's host and on its clock alone: each host of turmoil has a clock of its own, and the model's
//! leases may only be looked at with one. A request crosses over as a task; should its member crash meanwhile, it is done all the
//! same, and nobody hears of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::StoreError;
use enlist::store::memory::MemoryEtcd;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::ledger::Ledger;
use super::log::Log;
use super::network::Network;

/// How long a member believes in a leader that is gone.
const LEADER_FORGOTTEN: Duration = Duration::from_millis(1_200);
/// How long streams that require a leader go on without one (three election time-outs, as in etcd).
const STREAMS_END: Duration = Duration::from_millis(4_200);
/// How long an election takes, from the loss of the old leader.
const ELECTION: Duration = Duration::from_millis(1_800);
/// How often a request that waits looks again.
const LOOK: Duration = Duration::from_millis(50);
/// Who may use a cluster with users, and what a client's settings say of it.
pub(super) const USER: (&str, &str) = ("enlist", "secret");

/// Clones are the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    name: &'static str,
    /// The number of the first member's host: that of a wiped member, which is a cluster of its own.
    first: usize,
    model: OnceLock<(Handle, MemoryEtcd)>,
    network: Network,
    ledger: Ledger,
    log: Log,
    state: Mutex<State>,
}

struct State {
    members: Vec<Member>,
    leader: Option<usize>,
    leaderless_since: Duration,
    /// Whether there are users.
    auth: bool,
    auth_revision: u64,
    tokens_made: u64,
    /// What the server says of a watch with a bad token: 3.4 and 3.5 differ.
    watch_refusal: &'static str,
    random: fastrand::Rng,
    /// Members that were wiped: the cluster that each is when it starts again.
    alone: BTreeMap<usize, Cluster>,
}

#[derive(Default)]
struct Member {
    down: bool,
    paused: bool,
    /// Cut off from the others since.
    isolated: Option<Duration>,
    /// Known tokens, and the users' revision of each.
    tokens: BTreeMap<String, u64>,
}

/// What a member can do for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serves,
    /// It believes in a leader that does not answer.
    Waits,
    /// It knows that there is none, since.
    NoLeader(Duration),
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

fn unavailable(words: &str) -> Status {
    Status::new(Code::Unavailable, words)
}

impl Cluster {
    pub(super) fn new(name: &'static str, members: usize, auth: bool, seed: u64, books: (Network, Ledger, Log)) -> Cluster {
        let refusals = [
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ];
        let state = State {
            members: (0..members).map(|_| Member::default()).collect(),
            leader: Some(0),
            leaderless_since: Duration::ZERO,
            auth,
            auth_revision: 1,
            tokens_made: 0,
            watch_refusal: refusals[usize::from(seed.is_multiple_of(3))],
            random: fastrand::Rng::with_seed(seed ^ 0xc1),
            alone: BTreeMap::new(),
        };
        let (network, ledger, log) = books;
        Cluster(Arc::new(Inner { name, first: 0, model: OnceLock::new(), network, ledger, log, state: Mutex::new(state) }))
    }

    /// A member loses its data, and is a cluster of its own when it starts again. On the script's host.
    pub(super) fn wipe(&self, member: usize) {
        let etcd = MemoryEtcd::new();
        etcd.empty();
        let books = (self.network().clone(), self.ledger().clone(), self.log().clone());
        let alone = Cluster::new(self.0.name, 1, false, 0, books);
        let Some(mut inner) = Arc::into_inner(alone.0) else { return };
        inner.first = member;
        let alone = Cluster(Arc::new(inner));
        alone.set_model(Handle::current(), etcd);
        self.state().alone.insert(member, alone);
    }

    /// The cluster that a wiped member is.
    pub(super) fn alone(&self, member: usize) -> Option<Cluster> {
        self.state().alone.get(&member).cloned()
    }

    /// How often its store was written.
    pub(super) fn revision(&self) -> Revision {
        self.model().1.revision()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The model, once the script's host has made it.
    pub(super) fn set_model(&self, host: Handle, etcd: MemoryEtcd) {
        assert!(self.0.model.set((host, etcd)).is_ok(), "a cluster has one model");
    }

    fn model(&self) -> &(Handle, MemoryEtcd) {
        self.0.model.get().unwrap()
    }

    pub(super) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    pub(super) fn log(&self) -> &Log {
        &self.0.log
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.state().members.len()
    }

    /// The name of a member's host.
    pub(super) fn host(&self, member: usize) -> String {
        format!("{}-{}", self.0.name, self.0.first + member)
    }

    pub(super) fn hosts(&self) -> Vec<String> {
        (0..self.members()).map(|member| self.host(member)).collect()
    }

    pub(super) fn has_users(&self) -> bool {
        self.state().auth
    }

    /// A member listens again, after a start: tokens are in memory only.
    pub(super) fn started(&self, member: usize) {
        let mut state = self.state();
        state.members[member].down = false;
        state.members[member].tokens.clear();
    }

    pub(super) fn crashed(&self, member: usize) {
        self.state().members[member].down = true;
    }

    pub(super) fn set_paused(&self, member: usize, paused: bool) {
        self.state().members[member].paused = paused;
    }

    pub(super) fn set_isolated(&self, member: usize, isolated: bool) {
        self.state().members[member].isolated = isolated.then(now);
    }

    /// Whether something is wrong with a member already.
    pub(super) fn is_out(&self, member: usize) -> bool {
        !self.state().members[member].is_fine()
    }

    pub(super) fn leader(&self) -> Option<usize> {
        self.state().leader
    }

    /// The users change: every token so far is too old.
    pub(super) fn change_users(&self) {
        self.state().auth_revision += 1;
    }

    /// Members forget all tokens: they ran out.
    pub(super) fn forget_tokens(&self) {
        self.state().members.iter_mut().for_each(|member| member.tokens.clear());
    }

    /// Elects a leader where there is none and a majority is there. Called over and over on the script's host.
    pub(super) fn look_after(&self) {
        let mut state = self.state();
        let fine: Vec<usize> = (0..state.members.len()).filter(|member| state.members[*member].is_fine()).collect();
        let quorum = fine.len() * 2 > state.members.len();
        match state.leader {
            Some(leader) if quorum && fine.contains(&leader) => {}
            Some(leader) => {
                state.leader = None;
                state.leaderless_since = now();
                self.0.log.line(format_args!("{} lost its leader {leader}", self.0.name));
                self.model().1.set_leaderless(true);
            }
            None if quorum && now() >= state.leaderless_since + ELECTION => {
                state.leader = fine.first().copied();
                self.0.log.line(format_args!("{} elected {:?}", self.0.name, state.leader));
                self.0.network.count(|effects| effects.elections += 1);
                self.model().1.set_leaderless(false);
            }
            None => {}
        }
    }

    fn standing(&self, member: usize) -> Standing {
        let state = self.state();
        let lost = state.members[member].isolated.or_else(|| state.leader.is_none().then_some(state.leaderless_since));
        match lost {
            None => Standing::Serves,
            Some(since) if now() < since + LEADER_FORGOTTEN => Standing::Waits,
            Some(since) => Standing::NoLeader(since),
        }
    }

    pub(super) fn serves(&self, member: usize) -> bool {
        self.standing(member) == Standing::Serves
    }

    /// Whether streams that require a leader have been without one for too long.
    pub(super) fn ends_streams(&self, member: usize) -> Result<(), Status> {
        match self.standing(member) {
            Standing::NoLeader(since) if now() >= since + STREAMS_END => {
                self.0.network.count(|effects| effects.streams_ended += 1);
                Err(unavailable("etcdserver: no leader"))
            }
            _ => Ok(()),
        }
    }

    /// Has the model do `work`, when the member may.
    pub(super) async fn ask<T, F>(&self, member: usize, writes: bool, work: impl FnOnce(Store) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (host, etcd) = self.model();
        let mut work: Option<BoxFuture<'static, Result<T, StoreError>>> = Some(Box::pin(work(etcd.store())));
        let mut waited = false;
        loop {
            match self.standing(member) {
                Standing::Serves => break,
                Standing::NoLeader(_) if !waited => {
                    self.0.network.count(|effects| effects.no_leader += 1);
                    return Err(unavailable("etcdserver: no leader"));
                }
                Standing::NoLeader(_) if writes => {
                    return Err(unavailable("etcdserver: request timed out, possibly due to connection lost"));
                }
                Standing::NoLeader(_) | Standing::Waits => {}
            }
            if !waited {
                waited = true;
                self.0.network.count(|effects| effects.waited += 1);
                if writes && self.old_leader_did_it(member) {
                    self.0.network.count(|effects| effects.done_unknown += 1);
                    work.take().map(|work| host.spawn(work));
                }
            }
            sleep(LOOK).await;
        }
        match work {
            Some(work) if !(waited && writes) => match host.spawn(work).await {
                Ok(answer) => answer.map_err(|error| self.refused(error)),
                Err(error) => Err(unavailable(&error.to_string())),
            },
            // A write that was sent to a leader that is gone is not sent again.
            _ => Err(unavailable("etcdserver: request timed out, possibly due to previous leader failure")),
        }
    }

    fn refused(&self, error: StoreError) -> Status {
        if matches!(error, StoreError::Compacted(_)) {
            self.0.network.count(|effects| effects.compacted += 1);
        }
        super::convert::status(error)
    }

    /// A write that waits for a leader that is gone may have reached it just before, and be agreed on by the others.
    fn old_leader_did_it(&self, member: usize) -> bool {
        let mut state = self.state();
        let reached = state.members[member].isolated.is_none() && state.random.bool();
        let fine = state.members.iter().filter(|member| member.is_fine()).count();
        reached && fine * 2 > state.members.len()
    }

    /// Somebody proves who he is: a token that all members know which are there.
    pub(super) fn authenticate(&self, name: &str, password: &str) -> Result<String, Status> {
        let mut state = self.state();
        if !state.auth {
            return Err(Status::failed_precondition("etcdserver: authentication is not enabled"));
        }
        if (name, password) != USER {
            return Err(Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password"));
        }
        state.tokens_made += 1;
        let (token, revision) = (format!("token.{}", state.tokens_made), state.auth_revision);
        for member in state.members.iter_mut().filter(|member| !member.down) {
            member.tokens.insert(token.clone(), revision);
        }
        self.0.network.count(|effects| effects.authenticated += 1);
        Ok(token)
    }

    /// Whether a call with this token may go on.
    pub(super) fn admit(&self, member: usize, token: Option<&str>) -> Result<(), Status> {
        let state = self.state();
        if !state.auth {
            return Ok(());
        }
        let Some(token) = token else { return Err(Status::invalid_argument("etcdserver: user name is empty")) };
        match state.members[member].tokens.get(token) {
            None => {
                self.0.network.count(|effects| effects.tokens_unknown += 1);
                Err(Status::unauthenticated("etcdserver: invalid auth token"))
            }
            Some(revision) if *revision < state.auth_revision => {
                self.0.network.count(|effects| effects.tokens_old += 1);
                Err(Status::invalid_argument("etcdserver: revision of auth store is old"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The same for a watch, which learns of it only as a reason.
    pub(super) fn admit_watch(&self, member: usize, token: Option<&str>) -> Result<(), String> {
        self.admit(member, token).map_err(|_| {
            self.0.network.count(|effects| effects.watches_refused += 1);
            self.state().watch_refusal.to_owned()
        })
    }

    /// Runs something that lasts on the model's host.
    pub(super) fn spawn_beside_model(&self, work: impl FnOnce(Store) -> BoxFuture<'static, ()>) {
        let (host, etcd) = self.model();
        host.spawn(work(etcd.store()));
    }
}

impl Member {
    fn is_fine(&self) -> bool {
        !self.down && !self.paused && self.isolated.is_none()
    }
}
