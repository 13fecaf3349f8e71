//! Passes of the leading allocator: wake → look at the view → plan → commit with compares → report.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, debug, info, info_span, warn};

use super::AllocatorSettings;
use super::encode::{LEASE_KEYS_MAX, Leases, leases_needed, unit};
use super::lineage::{Begun, Lineage, Shown};
use super::listing::Listing;
use super::tally::Tally;
use super::view::{Noticed, View};
use crate::model::names::Revision;
use crate::model::pool::OnIsolation;
use crate::plan::Pass;
use crate::plan::brake::RELEASE_PERCENT_PER_MINUTE;
use crate::plan::change::{Action, Change, Note, Plan};
use crate::plan::snapshot::Snapshot;
use crate::reconcile::election::Leadership;
use crate::reconcile::pace::Pace;
use crate::reconcile::report::sleep_until;
use crate::reconcile::trouble::{Asked, Troubles};
use crate::reconcile::{Context, Site};
use crate::store::api::StoreError;
use crate::store::backoff::Backoff;
use crate::store::committer::{Committer, Outcome, Unit};
use crate::store::feed::{Feed, Update};

/// A pass runs this often even if nothing happens: it meters the brake's releases and finds what no event told.
const TICK: Duration = Duration::from_secs(10);
/// Changes of one pass. More wait for the next, so that what an operator changes takes effect within seconds.
const PASS_CHANGES_MAX: usize = 4_096;
/// Passes that write begin at least so far apart: a few nodes each, when hundreds come in a second.
const PACE: Duration = Duration::from_millis(5);
/// How long a pass waits for its own writes to come back in the view before it plans all the same.
const ECHO_MAX: Duration = Duration::from_secs(5);

/// What an instance carries from one term of leadership into the next. It is kept up while standing by too, so that a
/// change of leaders neither ends a quiet time early nor gives a new budget.
#[derive(Debug)]
pub(super) struct Carried {
    quiet: Quiet,
    budget: Budget,
    pub(super) lineage: Lineage,
}

impl Carried {
    pub(super) fn new(site: &Site, settings: &AllocatorSettings, context: &Context) -> Self {
        let rng = context.rng(&format!("lineage/{}", context.identity));
        let lineage = Lineage::new(site.prefix.lineage(), rng);
        Carried { quiet: Quiet::new(settings), budget: Budget::default(), lineage }
    }

    /// Takes an update into the view, and notes what is carried on of it.
    pub(super) fn apply(&mut self, view: &mut View, update: Update<Listing>) -> Noticed {
        let before = view.silent_releases();
        let is_listing = matches!(update, Update::Reset { .. });
        let mut noticed = view.apply(update);
        let shown = match noticed {
            Noticed::SteppedBack => Shown::SteppedBack,
            _ if is_listing => Shown::Listed,
            _ => Shown::Told,
        };
        if self.lineage.see(view.snapshot(), shown) {
            noticed = Noticed::SteppedBack;
        }
        self.quiet.noticed(noticed);
        self.budget.spend(view.silent_releases() - before);
        noticed
    }
}

/// After a restore only what nodes use and ask back is given, for a while.
#[derive(Debug)]
struct Quiet {
    at_least: Duration,
    since: Option<Instant>,
}

impl Quiet {
    fn new(settings: &AllocatorSettings) -> Self {
        Quiet { at_least: settings.restore_quiet, since: settings.after_restore.then(Instant::now) }
    }

    fn noticed(&mut self, noticed: Noticed) {
        if noticed == Noticed::SteppedBack {
            self.since = Some(Instant::now());
        }
    }

    /// When it ends, given the pools there are.
    fn until(&self, snapshot: &Snapshot) -> Option<Instant> {
        let longest = snapshot.pools.values().filter_map(|pool| pool.ok());
        let longest = longest.filter(|pool| pool.on_isolation == OnIsolation::Withdraw);
        let longest = longest.map(|pool| pool.hold + pool.cooldown).max().unwrap_or_default();
        self.since.map(|since| since + self.at_least.max(longest))
    }
}

/// The leading allocator.
pub(super) struct Leader<'a> {
    site: &'a Site,
    context: &'a Context,
    committer: Committer,
    tally: Tally,
    findings: Vec<crate::model::finding::Finding>,
    waiting_notes: BTreeMap<crate::model::names::NodeId, String>,
    next_tick: Instant,
    pace: Pace,
    troubles: Troubles,
    forget: Duration,
}

impl<'a> Leader<'a> {
    pub(super) fn new(site: &'a Site, context: &'a Context, leadership: &Leadership, forget: Duration) -> Self {
        Leader {
            forget,
            site,
            context,
            committer: Committer::new(site.store.clone(), leadership.fence.clone()),
            tally: Tally::new(site, context, leadership),
            findings: Vec::new(),
            waiting_notes: BTreeMap::new(),
            next_tick: Instant::now() + TICK,
            pace: Pace::new(PACE),
            troubles: leadership.troubles.clone(),
        }
    }

    /// Until deposed.
    pub(super) async fn run(mut self, feed: &mut Feed<Listing>, view: &mut View, carried: &mut Carried) {
        let mut backoff = Backoff::new(self.context.rng("pass"), Duration::from_millis(20), Duration::from_secs(2));
        let mut dirty = view.is_complete();
        loop {
            if !dirty {
                self.end_pass(carried).await;
            }
            // A view that is not complete yet is waited for, whatever was noticed: never a loop without a wait.
            if !dirty || !view.is_complete() {
                dirty |= self.wake(feed, view, carried).await;
            }
            if let Some(at) = self.pace.wait().filter(|_| dirty) {
                tokio::time::sleep_until(at).await;
            }
            while let Some(update) = feed.try_next() {
                dirty |= carried.apply(view, update) != Noticed::Nothing;
            }
            if !view.is_complete() || !dirty {
                continue;
            }
            // Here too: when there is something to do in every round, `wake` is never come to.
            if self.tally.due <= Instant::now() {
                self.tally.write(view.snapshot().revision).await;
            }
            let result = self.pass(view, carried).instrument(info_span!("pass")).await;
            dirty = result.more;
            if result.deposed {
                return;
            }
            if result.retry {
                // Somebody was faster, or etcd is in trouble: the view will tell; never in a tight loop.
                tokio::time::sleep(backoff.next_delay()).await;
                dirty = true;
            } else {
                backoff.reset();
            }
            self.echo(feed, view, carried, result.committed, &mut dirty).await;
        }
    }

    /// Waits for something to do. Answers whether a pass is due.
    async fn wake(&mut self, feed: &mut Feed<Listing>, view: &mut View, carried: &mut Carried) -> bool {
        let quiet_ends = carried.quiet.until(view.snapshot()).filter(|until| *until > Instant::now());
        tokio::select! {
            biased;
            update = feed.next() => {
                carried.apply(view, update) != Noticed::Nothing
            }
            () = tokio::time::sleep_until(self.tally.due) => {
                self.tally.write(view.snapshot().revision).await;
                false
            }
            () = tokio::time::sleep_until(self.next_tick) => {
                self.next_tick = Instant::now() + TICK;
                true
            }
            () = sleep_until(quiet_ends) => true,
        }
    }

    /// Own writes come back through the view before the next plan: otherwise it would plan from the past and lose.
    async fn echo(&self, feed: &mut Feed<Listing>, view: &mut View, carried: &mut Carried, upto: Revision, dirty: &mut bool) {
        let deadline = Instant::now() + ECHO_MAX;
        while view.snapshot().revision < upto {
            match tokio::time::timeout_at(deadline, feed.next()).await {
                Ok(update) => {
                    *dirty |= carried.apply(view, update) != Noticed::Nothing;
                }
                Err(_) => {
                    debug!(rev = %upto, "own writes have not come back in the view yet");
                    return;
                }
            }
        }
    }

    async fn pass(&mut self, view: &mut View, carried: &mut Carried) -> Passed {
        let started = Instant::now();
        let revision = view.snapshot().revision;
        let pass = Pass {
            release_budget: carried.budget.available(view.brake().bound),
            held_only: carried.quiet.until(view.snapshot()).is_some_and(|until| Instant::now() < until),
            now_text: self.context.wall.now(),
            forget_s: self.forget.as_secs(),
        };
        let mut plan = view.plan(&pass);
        if carried.lineage.must_be_quiet(&plan.lost, pass.held_only) {
            warn!(rev = %revision, "a node uses what a pass gave that this store lacks: store was restored; granting only what nodes reclaim for a while");
            carried.quiet.noticed(Noticed::SteppedBack);
            plan = view.plan(&Pass { held_only: true, ..pass });
        }
        let more = plan.changes.len() > PASS_CHANGES_MAX;
        plan.changes.truncate(PASS_CHANGES_MAX);
        self.say_findings(&plan);
        self.tally.brake(&plan);
        if plan.changes.is_empty() {
            // Nothing is left to be refused: what was, is no trouble any more.
            self.troubles.worked(Asked::Work);
            return Passed { more, ..Passed::default() };
        }
        self.pace.begin();
        let outcomes = self.commit(&plan.changes, view.snapshot(), carried).await;
        let mut passed = Passed { more, ..Passed::default() };
        for (change, outcome) in plan.changes.iter().zip(outcomes) {
            self.settle(change, outcome, &mut passed);
        }
        self.troubles.pass(Asked::Work, passed.answered, passed.failure.as_ref().map(|(error, count)| (error, *count)));
        let elapsed = started.elapsed();
        debug!(changes = plan.changes.len(), elapsed_ms = elapsed.as_millis() as u64, rev = %revision, "pass done");
        self.tally
            .passed(&format!("{} changes planned at revision {}, {} lost", plan.changes.len(), revision, passed.lost), elapsed);
        passed
    }

    async fn commit(&self, changes: &[Change], snapshot: &Snapshot, carried: &mut Carried) -> Vec<Outcome> {
        let begun = carried.lineage.begin(snapshot);
        let mark = begun.as_ref().map(|begun| begun.mark);
        let mut leases = Leases::default();
        let mut no_lease = StoreError::NoLease;
        for (seconds, keys) in leases_needed(changes.iter()) {
            for _ in 0..keys.div_ceil(LEASE_KEYS_MAX) {
                match self.site.store.grant(seconds).await {
                    Ok((lease, _)) => leases.add(seconds, lease),
                    Err(error) => no_lease = error,
                }
            }
        }
        let mut places = Vec::new();
        let mut units = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            if let Some(unit) = unit(&self.site.prefix, change, &mut leases, mark) {
                places.push(place);
                units.push(unit);
            }
        }
        // A change without its lease was not sent: what is said of it is why there is no lease.
        let mut outcomes = vec![Outcome::from(Err(no_lease)); changes.len()];
        let committed = match begun {
            Some(begun) => self.commit_counted(units, &begun, carried).await,
            None => self.committer.commit(units).await,
        };
        for (place, outcome) in places.into_iter().zip(committed) {
            outcomes[place] = outcome;
        }
        outcomes
    }

    /// Commits the units of a pass, all of them under its count.
    async fn commit_counted(&self, mut units: Vec<Unit>, begun: &Begun, carried: &mut Carried) -> Vec<Outcome> {
        if units.is_empty() {
            return Vec::new(); // no lease was granted for any of them
        }
        if let [unit] = &mut units[..]
            && carried.lineage.count_within(begun, unit)
        {
            let outcomes = self.committer.commit(units).await;
            match &outcomes[..] {
                [Outcome::Committed(revision)] => carried.lineage.counted_within(begun, *revision),
                // The next pass goes without a count.
                [Outcome::Refused(error @ StoreError::Refused(_))] => carried.lineage.denied(error),
                _ => {}
            }
            return outcomes;
        }
        let failed = match self.committer.commit(vec![carried.lineage.count(begun)]).await.pop() {
            Some(Outcome::Committed(revision)) => {
                carried.lineage.counted(begun, revision);
                carried.lineage.fence(&mut units);
                let outcomes = self.committer.commit(units).await;
                // What may have been written, or not, is in no finished pass.
                if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_))) {
                    carried.lineage.end_term();
                }
                return outcomes;
            }
            Some(Outcome::Lost(read)) => {
                if carried.lineage.is_behind(&read) {
                    warn!("store was restored: it lacks passes of this allocator; listing it again");
                    carried.quiet.noticed(Noticed::SteppedBack);
                }
                Outcome::Lost(Vec::new())
            }
            Some(Outcome::Refused(error @ StoreError::Refused(_))) => {
                carried.lineage.denied(&error);
                Outcome::Refused(error)
            }
            Some(failed) => failed,
            None => Outcome::Lost(Vec::new()),
        };
        vec![failed; units.len()]
    }

    /// Writes that the last pass has ended. Whether that is written or not, nothing waits for it.
    async fn end_pass(&self, carried: &mut Carried) {
        let Some(end) = carried.lineage.end() else { return };
        match self.committer.commit(vec![carried.lineage.count(&end)]).await.pop() {
            Some(Outcome::Committed(revision)) => carried.lineage.ended(&end, revision),
            _ => carried.lineage.end_term(),
        }
    }

    fn settle(&mut self, change: &Change, outcome: Outcome, passed: &mut Passed) {
        passed.answered |= matches!(outcome, Outcome::Committed(_) | Outcome::Lost(_));
        match outcome {
            Outcome::Committed(revision) => {
                passed.committed = passed.committed.max(revision);
                self.tally.count(action_counter(change.action));
                self.say(change);
            }
            Outcome::Lost(_) => {
                passed.lost += 1;
                passed.retry = true;
                self.tally.count("lost");
                debug!(node = %change.node, action = ?change.action, "somebody was faster, planning again");
            }
            Outcome::Deposed => passed.deposed = true,
            Outcome::Unknown(error) => {
                passed.retry = true;
                self.tally.count("unknown");
                passed.failed(change, error);
            }
            Outcome::Refused(error) => {
                passed.retry = true;
                self.tally.count("refused");
                passed.failed(change, error);
            }
        }
    }

    /// One line for each assignment that changes; a waiting node's reason once, not at each pass.
    fn say(&mut self, change: &Change) {
        let Note { from, to, why } = &change.note;
        if why.is_empty() {
            return;
        }
        if change.action == Action::Wait {
            if self.waiting_notes.insert(change.node.clone(), why.clone()).as_ref() == Some(why) {
                return;
            }
        } else {
            self.waiting_notes.remove(&change.node);
        }
        match change.action {
            Action::Repair => info!(node = %change.node, reason = why, "claims put right"),
            Action::HoldExtend => info!(node = %change.node, reason = why, "hold extended"),
            _ => info!(node = %change.node, from, to, reason = why, "assignment changed"),
        }
    }

    fn say_findings(&mut self, plan: &Plan) {
        if plan.findings != self.findings {
            for finding in plan.findings.iter().filter(|finding| !self.findings.contains(finding)) {
                warn!(key = finding.keys.join(", "), reason = finding.code, "{}", finding.message);
            }
            self.findings.clone_from(&plan.findings);
        }
        self.tally.findings(plan.findings.len());
    }
}

#[derive(Debug, Default)]
struct Passed {
    committed: Revision,
    lost: usize,
    more: bool,
    retry: bool,
    deposed: bool,
    /// Whether etcd answered any write well.
    answered: bool,
    /// An error of the writes that failed, and how many did.
    failure: Option<(StoreError, usize)>,
}

impl Passed {
    /// One write failed. All of a pass fail for the same reason, nearly always: people are told of one.
    fn failed(&mut self, change: &Change, error: StoreError) {
        debug!(node = %change.node, %error, "a write failed");
        let (_, count) = self.failure.get_or_insert((error, 0));
        *count += 1;
    }
}

fn action_counter(action: Action) -> &'static str {
    match action {
        Action::Assign => "assigned",
        Action::Refresh => "refreshed",
        Action::Move => "moved",
        Action::Wait => "waiting",
        Action::Settle => "settled",
        Action::HoldSeen | Action::HoldStart | Action::HoldExtend => "held",
        Action::Release => "released",
        Action::Void => "voided",
        Action::Forget => "forgotten",
        Action::Repair => "repaired",
    }
}

/// How many extended holds may be released while the brake is on: a share of the bound nodes a minute. What counts is what
/// the view shows, not what this instance did: another may have led a moment ago.
#[derive(Debug, Default)]
struct Budget {
    spent: Vec<Instant>,
}

impl Budget {
    const WINDOW: Duration = Duration::from_secs(60);

    fn forget_old(&mut self) {
        self.spent.retain(|at| at.elapsed() < Self::WINDOW);
    }

    fn available(&mut self, bound: usize) -> usize {
        self.forget_old();
        (bound * RELEASE_PERCENT_PER_MINUTE / 100).max(1).saturating_sub(self.spent.len())
    }

    fn spend(&mut self, releases: usize) {
        self.forget_old();
        self.spent.extend(std::iter::repeat_n(Instant::now(), releases));
    }
}
