//! The leading manager: wakes, looks at what is marked, writes the differences, reports.
//!
//! It must never plan on a view that is older than its own last write: it waits until the feed has shown that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::manager::diff::{self, GroupChange};
use crate::manager::view::View;
use crate::model::finding::Finding;
use crate::model::names::{NodeId, Revision};
use crate::plan::brake::BrakeState;
use crate::reconcile::election::Leadership;
use crate::reconcile::pace::Pace;
use crate::reconcile::report::{self, BrakeReport, Reporter};
use crate::reconcile::trouble::{Asked, Troubles};
use crate::reconcile::{Context, Site};
use crate::store::api::{KeyRange, StoreError};
use crate::store::backoff::Backoff;
use crate::store::committer::{Committer, Outcome, Unit};
use crate::store::feed::{Feed, FeedSettings, Scope, Update};
use crate::store::keys::Role;
use crate::store::wire::{RoleReport, VERSION};

/// A feed that does not show our own writes for so long has lost them (old etcds do): it is opened anew.
const OWN_WRITE_SEEN_WITHIN: Duration = Duration::from_secs(10);
/// After so many passes in a row that lost a compare the view is not what is stored: it is read anew.
const LOST_IN_A_ROW: u32 = 4;
/// Passes that write begin at least so far apart.
const PACE: Duration = Duration::from_millis(10);
/// A node that is new is a member that is not published (it is joining, say) only after so long. People look at those, programs do
/// not: a second more is nothing to them, and time enough for nearly every node to be ready.
const NEWCOMER: Duration = Duration::from_secs(1);
/// Updates of one feed that are taken before the next look.
const BURST_MAX: usize = 256;
/// So many new findings are told one by one at a time; a variable with a value of its own on each node makes thousands.
const TOLD_MAX: usize = 20;

/// What people may want to count.
#[derive(Debug, Default)]
struct Counters {
    passes: u64,
    groups: u64,
    members: u64,
    lost: u64,
    unknown: u64,
}

pub(super) struct Leader {
    view: View,
    manager: Feed,
    groups: Feed,
    brakes: Feed,
    committer: Committer,
    job: Option<BoxFuture<'static, Vec<Outcome>>>,
    /// The revision of our last write: nothing is planned before the view has it.
    awaited: Revision,
    awaited_since: Instant,
    /// New nodes, and when they are members also if they are not published.
    newcomers: VecDeque<(Instant, NodeId)>,
    /// `manager/` is being read anew: what the view holds is not to be planned from.
    listing: bool,
    /// The revision at which nothing was left to write.
    clean_at: Revision,
    retry_at: Option<Instant>,
    pace: Pace,
    backoff: Backoff,
    findings: BTreeSet<Finding>,
    brake: BrakeReport,
    last_pass: String,
    counters: Counters,
    context: Context,
    site: Site,
    reporter: Reporter,
    troubles: Troubles,
}

impl Leader {
    pub(super) fn new(site: &Site, context: &Context, leadership: &Leadership) -> Self {
        Leader {
            view: View::new(site.prefix.clone()),
            manager: open_manager(site, context),
            groups: open(site, context, site.prefix.folder("groups"), "manager-groups"),
            brakes: open(site, context, KeyRange::one(site.prefix.brake(Role::Manager)), "manager-brakes"),
            committer: Committer::new(site.store.clone(), leadership.fence.clone()),
            job: None,
            awaited: Revision::NONE,
            awaited_since: Instant::now(),
            newcomers: VecDeque::new(),
            listing: false,
            clean_at: Revision::NONE,
            retry_at: None,
            pace: Pace::new(PACE),
            backoff: Backoff::new(context.rng("manager-backoff"), Duration::from_millis(100), Duration::from_secs(30)),
            findings: BTreeSet::new(),
            brake: BrakeReport::default(),
            last_pass: String::new(),
            counters: Counters::default(),
            context: context.clone(),
            site: site.clone(),
            reporter: Reporter::new(site, Role::Manager, leadership),
            troubles: leadership.troubles.clone(),
        }
    }

    /// Leads until the lease is lost, another leads, or the shutdown.
    pub(super) async fn lead(&mut self, leadership: &mut Leadership, context: &Context) {
        let mut ticker = tokio::time::interval(report::EVERY);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reporting: Option<BoxFuture<'static, ()>> = None;
        loop {
            self.take_newcomers();
            self.pass();
            self.look_at_brake();
            if reporting.is_none() && self.reporter.is_urgent(&self.brake) {
                reporting = self.report();
            }
            let newcomer_due = self.newcomers.front().map(|(due, _)| *due);
            let paced = self.pace.wait();
            let Leader { manager, groups, brakes, job, retry_at, .. } = &mut *self;
            // In this order, so that a run of the simulation repeats itself; the feeds last, so that steady change starves
            // neither the ticker nor what is under way.
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return,
                () = leadership.lost() => return,
                outcomes = report::finish(job) => {
                    if !self.take(outcomes) {
                        return;
                    }
                }
                () = report::finish(&mut reporting) => {}
                () = report::sleep_until(*retry_at) => self.retry_at = None,
                () = report::sleep_until(newcomer_due) => {}
                () = report::sleep_until(paced) => {}
                _ = ticker.tick() => {
                    if self.view.revision() < self.awaited && self.awaited_since.elapsed() > OWN_WRITE_SEEN_WITHIN {
                        warn!(rev = %self.awaited, "the watch does not show our own writes: all is listed again");
                        self.list_again();
                    }
                    if reporting.is_none() {
                        reporting = self.report();
                    }
                }
                update = manager.next() => self.take_manager(update),
                update = groups.next() => self.view.apply_groups(update),
                update = brakes.next() => self.view.apply_brake(update),
            }
            self.take_burst();
        }
    }

    /// A burst is one pass, but a bounded one, and of all feeds: one that changes without a pause must keep neither the others
    /// nor what is under way from being looked at.
    fn take_burst(&mut self) {
        for _ in 0..BURST_MAX {
            let (manager, groups, brakes) = (self.manager.try_next(), self.groups.try_next(), self.brakes.try_next());
            if manager.is_none() && groups.is_none() && brakes.is_none() {
                return;
            }
            manager.into_iter().for_each(|update| self.take_manager(update));
            groups.into_iter().for_each(|update| self.view.apply_groups(update));
            brakes.into_iter().for_each(|update| self.view.apply_brake(update));
        }
    }

    fn take_manager(&mut self, update: Update) {
        if let Update::Reset { stepped_back: true, .. } = &update {
            // Our own last write may be one of those that the restore took back.
            self.awaited = Revision::NONE;
        }
        self.listing &= !matches!(update, Update::Reset { .. });
        let due = Instant::now() + NEWCOMER;
        for node in self.view.apply_manager(update) {
            self.view.defer(node.clone());
            self.newcomers.push_back((due, node));
        }
    }

    /// Those who have been here for long enough.
    fn take_newcomers(&mut self) {
        while let Some((_, node)) = self.newcomers.pop_front_if(|(due, _)| *due <= Instant::now()) {
            self.view.defer_no_longer(&node);
        }
    }

    /// A new read is newer than every write that was answered, so nothing needs to be awaited: in a restored store the
    /// revision of such a write may never come.
    fn list_again(&mut self) {
        self.manager = open_manager(&self.site, &self.context);
        self.listing = true;
        self.awaited = Revision::NONE;
    }

    /// Starts a commit, if there is something to write.
    fn pass(&mut self) {
        if self.job.is_some() || self.listing || self.retry_at.is_some() || self.view.revision() < self.awaited {
            return;
        }
        if !self.view.is_marked() {
            self.troubles.worked(Asked::Work);
            self.clean_at = self.view.revision();
            return;
        }
        if self.pace.wait().is_some() {
            return;
        }
        let changes = self.view.plan();
        if changes.is_empty() {
            return;
        }
        self.pace.begin();
        self.counters.passes += 1;
        self.counters.groups += changes.len() as u64;
        self.counters.members += changes.iter().map(|change| change.members.len() as u64).sum::<u64>();
        self.last_pass = format!("{} groups at {}", changes.len(), self.context.wall.now());
        for change in &changes {
            log(change);
        }
        let units: Vec<Unit> = changes.iter().flat_map(|change| diff::units(change, &self.site.prefix)).collect();
        let committer = self.committer.clone();
        self.job = Some(Box::pin(async move { committer.commit(units).await }));
    }

    /// Takes the outcomes of a commit. What was not written is still marked. Answers whether this instance still leads.
    fn take(&mut self, outcomes: Vec<Outcome>) -> bool {
        let (mut answered, mut lost) = (false, false);
        let mut failure: Option<(StoreError, usize)> = None;
        self.awaited_since = Instant::now();
        for outcome in outcomes {
            match outcome {
                Outcome::Committed(revision) => {
                    answered = true;
                    self.awaited = self.awaited.max(revision);
                }
                Outcome::Lost(_) => {
                    self.counters.lost += 1;
                    (answered, lost) = (true, true);
                }
                Outcome::Deposed => {
                    info!("another instance leads");
                    return false;
                }
                Outcome::Unknown(error) | Outcome::Refused(error) => {
                    self.counters.unknown += 1;
                    self.last_pass = format!("failed: {error}");
                    let (_, count) = failure.get_or_insert((error, 0));
                    *count += 1;
                }
            }
        }
        self.troubles.pass(Asked::Work, answered, failure.as_ref().map(|(error, count)| (error, *count)));
        if lost && self.backoff.failures() >= LOST_IN_A_ROW {
            self.list_again();
        }
        if lost || failure.is_some() {
            self.retry_at = Some(Instant::now() + self.backoff.next_delay());
        } else {
            self.backoff.reset();
        }
        true
    }

    /// For people only, so with the report and not in each pass: it looks at everything.
    fn tell_findings(&mut self) {
        let findings: BTreeSet<Finding> = self.view.findings().into_iter().collect();
        for finding in findings.difference(&self.findings).take(TOLD_MAX) {
            warn!(%finding, "a stored thing is not in order");
        }
        let more = findings.difference(&self.findings).count().saturating_sub(TOLD_MAX);
        if more > 0 {
            warn!(changes = more, "more stored things are not in order, see `enlist check`");
        }
        self.findings = findings;
    }

    fn report(&mut self) -> Option<BoxFuture<'static, ()>> {
        self.tell_findings();
        let lag = if self.view.is_marked() { self.view.revision().0 - self.clean_at.0 } else { 0 };
        let brake = self.view.brake();
        let counters: BTreeMap<String, u64> = [
            ("passes", self.counters.passes),
            ("groups", self.counters.groups),
            ("members", self.counters.members),
            ("lost", self.counters.lost),
            ("unknown", self.counters.unknown),
            ("bound", brake.bound as u64),
            ("silent", brake.silent as u64),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        let mut report = RoleReport {
            v: VERSION,
            identity: self.context.identity.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            revision: self.view.source_revision(),
            lag,
            brake: String::new(),
            trouble: String::new(),
            brake_state: None,
            brake_since: String::new(),
            last_pass: self.last_pass.clone(),
            findings: self.findings.len() as u64,
            counters,
        };
        self.brake.write_to(&mut report);
        self.reporter.write(report)
    }

    /// Not before everything was read: the brake of half a view is none.
    fn look_at_brake(&mut self) {
        if !self.view.is_ready() {
            return;
        }
        let state = self.view.brake_state();
        let why = match state {
            BrakeState::Released => "many nodes fell silent at once; those that were silent at the release are not published",
            _ => "many nodes fell silent at once: their members stay published",
        };
        self.brake.set(Role::Manager, state, why, || self.context.wall.now());
    }
}

fn open_manager(site: &Site, context: &Context) -> Feed {
    open(site, context, site.prefix.folder("manager"), "manager-copies")
}

fn open(site: &Site, context: &Context, range: KeyRange, purpose: &str) -> Feed {
    Feed::open(site.store.clone(), Scope::one(range), FeedSettings::default(), context.rng(purpose))
}

fn log(change: &GroupChange) {
    for (node, _, member) in &change.members {
        match member {
            Some(member) => debug!(group = %change.group, %node, state = %member.state, published = member.published, "member"),
            None => debug!(group = %change.group, %node, "no member any more"),
        }
    }
}
