//! The leading relay: wakes, looks at the mirror, writes the next part, reports.
//!
//! One job is under way at a time (a write, or a read that decides something); both feeds are taken meanwhile, so that a
//! slow destination leaves one pending write and not a queue. It must never plan on a view that is older than its own last
//! write: it waits until the destination's feed has shown that.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, error, info, warn};

use crate::model::names::Revision;
use crate::plan::brake::BrakeState;
use crate::reconcile::election::Leadership;
use crate::reconcile::pace::Pace;
use crate::reconcile::report::{self, BrakeReport, Reporter};
use crate::reconcile::trouble::{Asked, Troubles};
use crate::reconcile::{Context, Site};
use crate::relay::RelaySettings;
use crate::relay::cut::{self, Limits, Part};
use crate::relay::diff::Mirror;
use crate::relay::guard::{self, Refusal, Verdict};
use crate::relay::reads::{ask, open_destination, open_source};
use crate::store::api::{OpResult, RangeResponse, StoreError, TxnResponse};
use crate::store::backoff::Backoff;
use crate::store::committer::Fence;
use crate::store::feed::{Feed, Update};
use crate::store::keys::Role;
use crate::store::wire::RoleReport;

/// A feed that does not show our own write for so long has lost it (old etcds do): it is opened anew.
const OWN_WRITE_SEEN_WITHIN: Duration = Duration::from_secs(10);
/// How often `brakes/relay` is looked at while the brake is on.
const RELEASE_EVERY: Duration = Duration::from_secs(2);
/// A source that did not answer for so long makes the copies late, whatever the view says. (Two ticks and a time-out.)
const UNHEARD_MIN: Duration = Duration::from_secs(15);
/// Cuts begin at least so far apart: a few full requests each at full load, and nobody who reads copies misses the time.
const PACE: Duration = Duration::from_millis(20);
/// Updates of one side that are taken before the next look.
const BURST_MAX: usize = 256;

/// A job's end.
enum Done {
    Written(Box<Part>, Result<TxnResponse, StoreError>),
    /// The checkpoint's mod_revision, after a write whose outcome is unknown.
    Looked(Revision, Result<Revision, StoreError>),
    SecondRead(Result<RangeResponse, StoreError>),
    /// The source's revision, asked for because the checkpoint at this one is ahead of the view.
    Asked(Revision, Result<Revision, StoreError>),
    Released(Result<Revision, StoreError>),
}

/// What people may want to count.
#[derive(Debug, Default)]
struct Counters {
    cuts: u64,
    parts: u64,
    written: u64,
    lost: u64,
    unknown: u64,
    rereads: u64,
}

/// Whether to go on.
enum Next {
    On,
    Deposed,
}

pub(super) struct Leader {
    source: Site,
    destination: Site,
    settings: RelaySettings,
    context: Context,
    fence: Fence,
    mirror: Mirror,
    source_feed: Feed,
    destination_feed: Feed,
    limits: Limits,
    job: Option<BoxFuture<'static, Done>>,
    /// The revision of our last write: nothing is planned before the view has it.
    awaited: Revision,
    /// The source was asked, and is behind a checkpoint at this revision: it was restored.
    went_back: Revision,
    awaited_since: Instant,
    retry_at: Option<Instant>,
    /// Of whole cuts: the parts of one follow each other at once.
    pace: Pace,
    backoff: Backoff,
    /// mod_revision of `brakes/relay`.
    released: Revision,
    /// Why nothing is taken away; empty = the brake is off.
    brake: String,
    brake_report: BrakeReport,
    behind_since: Option<Instant>,
    /// When the source last answered: a view that hears nothing does not know what it lacks.
    heard: Instant,
    last_pass: String,
    counters: Counters,
    reporter: Reporter,
    troubles: Troubles,
}

impl Leader {
    /// Both feeds are opened only now that this instance leads: what they read is then newer than anything a former leader
    /// could write, so the copies never go back.
    pub(super) fn new(
        source: &Site,
        destination: &Site,
        settings: &RelaySettings,
        context: &Context,
        leadership: &Leadership,
    ) -> Self {
        Leader {
            source_feed: open_source(source, context),
            destination_feed: open_destination(destination, context),
            mirror: Mirror::new(source.prefix.clone(), destination.prefix.clone()),
            fence: leadership.fence.clone(),
            limits: Limits::default(),
            job: None,
            awaited: Revision::NONE,
            went_back: Revision::NONE,
            awaited_since: Instant::now(),
            retry_at: None,
            pace: Pace::new(PACE),
            backoff: Backoff::new(context.rng("relay-backoff"), Duration::from_millis(100), Duration::from_secs(30)),
            released: Revision::NONE,
            brake: String::new(),
            brake_report: BrakeReport::default(),
            behind_since: None,
            heard: Instant::now(),
            last_pass: String::new(),
            counters: Counters::default(),
            reporter: Reporter::new(destination, Role::Relay, leadership),
            troubles: leadership.troubles.clone(),
            source: source.clone(),
            destination: destination.clone(),
            settings: settings.clone(),
            context: context.clone(),
        }
    }

    /// Leads until the lease is lost, another leads, or the shutdown.
    pub(super) async fn lead(&mut self, leadership: &mut Leadership, context: &Context) -> Result<(), Refusal> {
        let mut ticker = tokio::time::interval(report::EVERY);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reporting: Option<BoxFuture<'static, ()>> = None;
        let mut asking: Option<BoxFuture<'static, Result<Revision, StoreError>>> = None;
        let (mut ask_at, mut asks) = (Instant::now(), Backoff::new(context.rng("relay-ask"), report::EVERY, report::EVERY));
        loop {
            self.plan()?;
            let state = BrakeState::of(!self.brake.is_empty(), true);
            self.brake_report.set(Role::Relay, state, self.brake.as_str(), || self.context.wall.now());
            if reporting.is_none() && (self.reporter.is_urgent(&self.brake_report) || self.has_caught_up()) {
                reporting = self.report();
            }
            let paced = self.pace.wait();
            let Leader { source_feed, destination_feed, job, retry_at, .. } = &mut *self;
            // In this order, so that a run of the simulation repeats itself; the feeds last, so that steady change starves
            // neither the ticker nor what is under way.
            tokio::select! {
                biased;
                () = context.shutdown.cancelled() => return Ok(()),
                () = leadership.lost() => return Ok(()),
                done = report::finish(job) => {
                    if let Next::Deposed = self.take(done) {
                        return Ok(());
                    }
                }
                () = report::finish(&mut reporting) => {}
                answered = report::finish(&mut asking) => match answered {
                    Ok(_) => {
                        self.heard = Instant::now();
                        self.troubles.worked(Asked::Source);
                        asks.reset();
                    }
                    Err(error) => {
                        self.troubles.failed(Asked::Source, &error, 1);
                        ask_at = Instant::now() + asks.delay_after(&error);
                    }
                },
                () = report::sleep_until(*retry_at) => self.retry_at = None,
                () = report::sleep_until(paced) => {}
                _ = ticker.tick() => {
                    self.nudge();
                    if asking.is_none() && Instant::now() >= ask_at {
                        asking = Some(ask(&self.source));
                    }
                    if reporting.is_none() {
                        reporting = self.report();
                    }
                }
                update = source_feed.next() => self.take_source(update),
                update = destination_feed.next() => self.take_destination(update),
            }
            self.take_burst();
        }
    }

    /// A burst is one pass, but a bounded one, and of both feeds: a side that changes without a pause must keep neither the other
    /// side nor what is under way from being looked at.
    fn take_burst(&mut self) {
        for _ in 0..BURST_MAX {
            let (source, destination) = (self.source_feed.try_next(), self.destination_feed.try_next());
            if source.is_none() && destination.is_none() {
                return;
            }
            if let Some(update) = source {
                self.take_source(update);
            }
            if let Some(update) = destination {
                self.take_destination(update);
            }
        }
    }

    fn take_source(&mut self, update: Update) {
        self.counters.rereads += u64::from(matches!(update, Update::Reset { .. }));
        self.mirror.apply_source(update);
    }

    fn take_destination(&mut self, update: Update) {
        if let Update::Reset { stepped_back: true, .. } = &update {
            // Our own last write may be one of those that the restore took back.
            self.awaited = Revision::NONE;
        }
        let drift = self.mirror.drift();
        self.mirror.apply_destination(update);
        if self.mirror.drift() > drift {
            warn!(changes = self.mirror.drift() - drift, "copies were changed by somebody else and are put right");
        }
    }

    /// Whether the last report told a lag that is over.
    fn has_caught_up(&self) -> bool {
        self.reporter.tells_lag() && self.behind_since.is_none() && self.heard.elapsed() <= UNHEARD_MIN
    }

    /// Opens the destination's feed anew if it does not show our own write.
    fn nudge(&mut self) {
        let waits = self.mirror.destination_revision() < self.awaited;
        if waits && self.awaited_since.elapsed() > OWN_WRITE_SEEN_WITHIN {
            warn!(rev = %self.awaited, "the watch does not show our own write: the destination is listed again");
            self.list_destination_again();
        }
    }

    /// A new read is newer than every write that was answered, so nothing needs to be awaited: in a restored store the
    /// revision of such a write may never come.
    fn list_destination_again(&mut self) {
        self.mirror.forget_destination();
        self.destination_feed = open_destination(&self.destination, &self.context);
        // A listing that begins now has our last write, unless a restore took it back: then it would be waited for for ever.
        self.awaited = Revision::NONE;
    }

    fn await_own(&mut self, revision: Revision) {
        self.awaited = revision;
        self.awaited_since = Instant::now();
    }

    /// Starts the next job, if there is one to start.
    fn plan(&mut self) -> Result<(), Refusal> {
        if self.job.is_some() || !self.mirror.is_complete() || self.mirror.destination_revision() < self.awaited {
            return Ok(());
        }
        let cutting = self.mirror.stored_checkpoint().is_some_and(|stored| stored.partial.is_some());
        if !cutting && self.pace.wait().is_some() {
            return Ok(());
        }
        let Some(part) = cut::next_part(&self.mirror, &self.settings.source_name, self.limits) else {
            self.behind_since = None;
            self.brake.clear();
            self.troubles.worked(Asked::Work);
            return Ok(());
        };
        self.behind_since.get_or_insert_with(Instant::now);
        if self.retry_at.is_some() {
            return Ok(());
        }
        if let Some(ahead) = guard::ahead(&self.mirror).filter(|ahead| *ahead > self.went_back) {
            self.ask_source(ahead);
            return Ok(());
        }
        let stored = self.mirror.checkpoint().map(|seen| &seen.value);
        guard::same_source(stored, &self.settings.source_name, self.settings.adopt)?;
        match guard::judge(&self.mirror, self.settings.allow_empty, self.released) {
            Verdict::Go => {
                if !cutting {
                    self.pace.begin();
                }
                self.write(part);
            }
            Verdict::SecondRead => self.read_again(),
            Verdict::Empty => self.look_for_release(),
        }
        Ok(())
    }

    fn write(&mut self, part: Part) {
        self.brake.clear();
        // At the first part: it writes the new cluster's id already.
        let first = self.mirror.stored_checkpoint().is_some_and(|stored| stored.partial.is_none());
        if let Some(why) = guard::restored(&self.mirror).filter(|_| first) {
            warn!(
                reason = why,
                rev = %self.mirror.source_revision(),
                changes = part.writes.len(),
                "source was restored; copies follow it"
            );
        }
        let txn = cut::transaction(&part, &self.destination.prefix, &self.fence, self.limits);
        let store = self.destination.store.clone();
        self.job = Some(Box::pin(async move { Done::Written(Box::new(part), store.txn(txn).await) }));
    }

    /// A checkpoint that is ahead of the view proves nothing by itself. Race: this process was paused, and another relay led meanwhile.
    fn ask_source(&mut self, ahead: Revision) {
        self.job = Some(ask(&self.source).map(move |answer| Done::Asked(ahead, answer)).boxed());
    }

    fn source_asked(&mut self, ahead: Revision, now: Revision) {
        if now < ahead {
            self.went_back = ahead;
        } else {
            debug!(rev = %self.mirror.source_revision(), "view of the source is older than the checkpoint; listing it again");
            self.mirror.forget_source();
            self.source_feed = open_source(&self.source, &self.context);
        }
    }

    fn read_again(&mut self) {
        let deletes = self.mirror.missing().count();
        warn!(changes = deletes, "one read of the source would delete many copies: it is read a second time first");
        let (store, range) = (self.source.store.clone(), self.source.prefix.folder("nodes"));
        self.job = Some(Box::pin(async move { Done::SecondRead(store.read_all(range, None).await) }));
    }

    fn look_for_release(&mut self) {
        if self.brake.is_empty() {
            self.brake = format!(
                "the source is empty but {} copies are there: --allow-empty or `enlist brake release relay` lets them go",
                self.mirror.copies()
            );
        }
        let (store, key) = (self.destination.store.clone(), self.destination.prefix.brake(Role::Relay));
        self.job = Some(Box::pin(async move {
            let found = store.get(key).await;
            Done::Released(found.map(|(_, kv)| kv.map_or(Revision::NONE, |kv| kv.mod_revision)))
        }));
    }

    /// Takes a job's end.
    fn take(&mut self, done: Done) -> Next {
        match done {
            Done::Written(part, Ok(response)) if response.succeeded => self.written(&part, &response),
            Done::Written(_, Ok(response)) => return self.lost(&response),
            Done::Written(part, Err(error)) => self.failed(&part, &error),
            Done::Looked(seen, Ok(now)) if now != seen => self.await_own(now),
            Done::Looked(_, Ok(_)) => self.retry_later(),
            Done::Asked(ahead, Ok(now)) => self.source_asked(ahead, now),
            Done::SecondRead(Ok(response)) => self.compare_second(&response),
            Done::Released(Ok(released)) => {
                let before = std::mem::replace(&mut self.released, released);
                if released == before {
                    self.retry_at = Some(Instant::now() + RELEASE_EVERY);
                }
            }
            Done::SecondRead(Err(error)) | Done::Asked(_, Err(error)) => {
                self.troubles.failed(Asked::Source, &error, 1);
                self.retry_later();
            }
            Done::Looked(_, Err(error)) | Done::Released(Err(error)) => {
                self.say(&error);
                self.retry_later();
            }
        }
        Next::On
    }

    fn written(&mut self, part: &Part, response: &TxnResponse) {
        self.await_own(response.header.revision);
        self.backoff.reset();
        self.troubles.worked(Asked::Work);
        self.counters.parts += 1;
        self.counters.written += part.writes.len() as u64;
        self.counters.cuts += u64::from(part.checkpoint.partial.is_none());
        self.last_pass = format!("{} writes at {}", part.writes.len(), self.context.wall.now());
        debug!(rev = %part.checkpoint.revision, changes = part.writes.len(), partial = ?part.checkpoint.partial, "cut written");
    }

    /// A compare failed: either another leads, or the checkpoint is not the one seen.
    fn lost(&mut self, response: &TxnResponse) -> Next {
        let leads = match response.results.first() {
            Some(OpResult::Range(found)) => found.kvs.iter().any(|kv| kv.create_revision == self.fence.created),
            _ => false,
        };
        if !leads {
            info!("another instance leads");
            return Next::Deposed;
        }
        self.counters.lost += 1;
        debug!("the checkpoint is not the one seen: the destination is listed again");
        self.list_destination_again();
        Next::On
    }

    fn failed(&mut self, part: &Part, error: &StoreError) {
        match error {
            StoreError::TooLarge | StoreError::TooManyOps => match self.limits.halved() {
                Some(limits) => {
                    info!(batch_bytes_max = limits.bytes, %error, "smaller parts from now on");
                    self.limits = limits;
                    self.mirror.limit_values(limits.value_bytes_max());
                }
                None => {
                    self.say(error);
                    self.retry_later();
                }
            },
            unknown if unknown.is_unknown_outcome() => {
                self.counters.unknown += 1;
                self.say(error);
                // It tells whether the part was written. If it lands later still, it finds another checkpoint or we do.
                let (store, key, seen) = (self.destination.store.clone(), self.destination.prefix.checkpoint(), part.seen);
                self.job = Some(Box::pin(async move {
                    let found = store.get(key).await;
                    Done::Looked(seen, found.map(|(_, kv)| kv.map_or(Revision::NONE, |kv| kv.mod_revision)))
                }));
            }
            refused => {
                self.say(refused);
                self.retry_later();
            }
        }
    }

    fn compare_second(&mut self, response: &RangeResponse) {
        let there: std::collections::BTreeSet<_> = response.kvs.iter().map(|kv| &kv.key).collect();
        let prefix = &self.source.prefix;
        let disagrees = self.mirror.missing().any(|(node, part)| there.contains(&prefix.node(node, *part)));
        if disagrees {
            error!("two reads of the source disagree: nothing is deleted, it is read anew");
            self.brake = "two reads of the source disagree".into();
            self.mirror.forget_source();
            self.source_feed = open_source(&self.source, &self.context);
            self.retry_later();
        } else {
            info!("a second read of the source agrees");
            self.mirror.prove();
        }
    }

    fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + self.backoff.next_delay());
    }

    fn say(&mut self, error: &StoreError) {
        self.last_pass = format!("failed: {error}");
        self.troubles.failed(Asked::Work, error, 1);
    }

    fn report(&mut self) -> Option<BoxFuture<'static, ()>> {
        let revision = self.mirror.source_revision();
        let stored = self.mirror.stored_checkpoint().map_or(Revision::NONE, |checkpoint| checkpoint.revision);
        let unheard = Some(self.heard.elapsed()).filter(|unheard| *unheard > UNHEARD_MIN);
        let behind = self.behind_since.map(|since| since.elapsed()).max(unheard);
        let mut counters: std::collections::BTreeMap<String, u64> = [
            ("cuts", self.counters.cuts),
            ("parts", self.counters.parts),
            ("written", self.counters.written),
            ("lost", self.counters.lost),
            ("unknown", self.counters.unknown),
            ("rereads", self.counters.rereads),
            ("drift", self.mirror.drift()),
            ("foreign", self.mirror.foreign().len() as u64),
            ("left_out", self.mirror.left_out().len() as u64),
            ("copies", self.mirror.copies() as u64),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        counters.insert("lag_s".into(), behind.map_or(0, |behind| behind.as_secs()));
        let mut report = RoleReport {
            v: crate::store::wire::VERSION,
            identity: self.context.identity.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            revision,
            lag: behind.map_or(0, |_| (revision.0 - stored.0).max(1)),
            brake: String::new(),
            trouble: String::new(),
            brake_state: None,
            brake_since: String::new(),
            last_pass: self.last_pass.clone(),
            findings: (self.mirror.foreign().len() + self.mirror.left_out().len()) as u64,
            counters,
        };
        self.brake_report.write_to(&mut report);
        self.reporter.write(report)
    }
}
