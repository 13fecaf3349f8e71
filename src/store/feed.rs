//! A feed follows a scope of keys for ever: reads it whole, then tells the events, and reads it again whenever it must.
//!
//! The thin shell around [`crate::store::watch`]: it does what the machine says, with back-off. It keeps no content: a
//! [`Update::Reset`] replaces everything that was told before, so a deletion during a gap is seen, and a read that was cut
//! short is thrown away, never told.

mod relief;

use std::collections::VecDeque;
use std::time::Duration;

use relief::{Relief, next_of};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug, info, warn};

use crate::model::names::Revision;
use crate::store::api::{
    Event, Header, KeyRange, KeyValue, RangeRequest, RangeResponse, Store, StoreError, Watch, WatchMessage, WatchRequest,
};
use crate::store::backoff::Backoff;
use crate::store::outage::Outage;
use crate::store::watch::{Listed, Reread, Verdict, WatchMachine, Witness, progress_is_barrier};

/// Updates that may wait for a slow consumer. Beyond it the feed stops reading and etcd counts it as a slow watcher.
const QUEUE: usize = 256;
/// A watch that is opened ahead of a read is taken on within this, or the read goes first: who joins waits for it.
const TAKEN_ON_WITHIN: Duration = Duration::from_secs(2);
/// A watch that lags by so many revisions gets a relief: it needs an eighth of a second for them.
const LAG_MAX: i64 = 1_000;
/// So many reliefs stand in a row, at most: each is served at the rate of one watch, so that they keep up with as many times that.
const RELIEFS_MAX: usize = 8;
/// So many bytes of keys and values that reliefs told wait for their turn, at most: two seconds of what etcd can take. The last
/// relief is given up for the others.
const RELIEF_BYTES_MAX: usize = 64 << 20;
/// A relief is opened within this, or not: nothing is taken meanwhile.
const RELIEF_WITHIN: Duration = Duration::from_secs(1);
/// … and so long after one that could not be, or was given up, none is.
const RELIEF_AGAIN: Duration = Duration::from_secs(5);
/// A stream that was asked for progress so often without any word is dead.
const SILENT_ASKS: u32 = 5;
/// … but not before it had so long: who asks often must not give up a stream whose server is only busy, and begin again with what
/// it owes.
const SILENT_MIN: Duration = Duration::from_secs(5);
/// A stream that lived so long was no failure: the next attempt comes soon.
const WORKED: Duration = Duration::from_secs(10);

/// What a feed follows: one or more ranges, seen in one total order through one watch over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What is wanted. Sorted, not overlapping.
    pub ranges: Vec<KeyRange>,
}

impl Scope {
    /// One range.
    pub fn one(range: KeyRange) -> Self {
        Scope { ranges: vec![range] }
    }

    /// The smallest range that covers all.
    fn covering(&self) -> KeyRange {
        match self.ranges.as_slice() {
            [one] => one.clone(),
            several => KeyRange {
                start: several.iter().map(|range| range.start.clone()).min().unwrap_or_default(),
                end: several.iter().map(|range| range.end.clone().unwrap_or_else(|| range.start.successor())).max(),
            },
        }
    }
}

/// How a feed behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSettings {
    /// Ask for progress this often; `None` = never (an agent's keep-alive is its sign of life).
    pub progress: Option<Duration>,
    /// Few events, and a consumer that takes each at once: its watch shares the connection of the calls. One that was left
    /// unread would hold up every call on it.
    pub beside: bool,
    /// Read everything again this often (spread by ± 20 %): what old servers' watches lose is found.
    pub verify: Duration,
}

impl Default for FeedSettings {
    fn default() -> Self {
        FeedSettings { progress: Some(Duration::from_secs(2)), beside: false, verify: Duration::from_secs(300) }
    }
}

/// What a feed makes of a listing, page by page while it is read: whoever makes something of the keys of a large store need not
/// hold them as well. By itself the list of keys and values.
pub trait Collect: Send + 'static {
    /// Takes a page in. The pages of a listing are in key order.
    fn page(&mut self, kvs: Vec<KeyValue>);
}

impl Collect for Vec<KeyValue> {
    fn page(&mut self, mut kvs: Vec<KeyValue>) {
        if self.is_empty() { *self = kvs } else { self.append(&mut kvs) }
    }
}

/// What a feed tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<L = Vec<KeyValue>> {
    /// Everything there is, at one revision: replaces all that was told before.
    Reset {
        /// The revision of the content.
        revision: Revision,
        /// The cluster that it is of.
        cluster_id: u64,
        /// In key order, or what was made of it.
        kvs: L,
        /// The store is not the one it was, or went back: a backup was restored.
        stepped_back: bool,
    },
    /// All events of some whole revisions, in order. May be empty: only the revision is news.
    Events {
        /// The last of these revisions.
        revision: Revision,
        /// In order.
        events: Vec<Event>,
    },
}

/// A watch that was opened before what it goes on from is read.
///
/// etcd serves a watch that starts at the present at once. One that starts only a few revisions back waits for the next round of
/// those that lag (every 100 ms, 512 watches a round), each of which reads and decodes all that lies between: with a thousand nodes
/// that join in a second that is half of what etcd does.
pub struct Ahead {
    watch: Box<dyn Watch>,
    /// Where it began: it tells everything after this.
    header: Header,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Ahead {
    /// Opens a watch that starts at the present. `beside`: see [`FeedSettings::beside`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(store: &Store, range: KeyRange, beside: bool) -> Result<Ahead, StoreError> {
        let mut watch = store.watch(WatchRequest { range, start: Revision::NONE, beside }).await?;
        match tokio::time::timeout(TAKEN_ON_WITHIN, watch.next()).await {
            Ok(Some(Ok(WatchMessage::Created(header)))) => Ok(Ahead { watch, header }),
            Ok(Some(Err(error))) => Err(error),
            // Silence too: whoever joins waits for this.
            Ok(Some(Ok(_)) | None) | Err(_) => Err(StoreError::Broken("the watch was not taken on".into())),
        }
    }

    /// Whether it tells all that comes after a listing.
    fn covers(&self, listing: &Header) -> bool {
        self.header.cluster_id == listing.cluster_id && self.header.revision <= listing.revision
    }
}

/// A running feed. Dropping it ends it.
#[derive(Debug)]
pub struct Feed<L = Vec<KeyValue>> {
    updates: mpsc::Receiver<Update<L>>,
    task: AbortOnDropHandle<()>,
}

impl Feed {
    /// Starts one.
    pub fn open(store: Store, scope: Scope, settings: FeedSettings, rng: fastrand::Rng) -> Feed {
        Feed::collecting(store, scope, settings, rng, Vec::new)
    }

    /// Starts one from a listing that is known already: everything in the scope at the listing's revision. If a watch was
    /// opened before that, it goes on with it.
    pub fn open_from(
        known: Option<(RangeResponse, Option<Ahead>)>,
        store: Store,
        scope: Scope,
        settings: FeedSettings,
        rng: fastrand::Rng,
    ) -> Feed {
        let (mut follower, updates) = Follower::new(store, scope, settings, rng, Vec::new);
        let known = known.map(|(listing, ahead)| {
            follower.ahead = ahead;
            let mut listed = Listed::default();
            follower.machine.page(&mut listed, &listing.kvs);
            Whole { header: listing.header, listed, content: listing.kvs }
        });
        Feed { updates, task: AbortOnDropHandle::new(tokio::spawn(follower.run(known).in_current_span())) }
    }
}

impl<L: Collect> Feed<L> {
    /// Starts one that makes something of its listings while it reads them. `empty` makes what a listing begins with.
    pub fn collecting(
        store: Store,
        scope: Scope,
        settings: FeedSettings,
        rng: fastrand::Rng,
        empty: impl Fn() -> L + Send + 'static,
    ) -> Feed<L> {
        let (follower, updates) = Follower::new(store, scope, settings, rng, empty);
        Feed { updates, task: AbortOnDropHandle::new(tokio::spawn(follower.run(None).in_current_span())) }
    }

    /// The next update. Cancel-safe. Never ends: what goes wrong is retried for ever inside.
    ///
    /// # Panics
    /// If the following task did: a role without its view must not stand there for ever as if nothing happened.
    pub async fn next(&mut self) -> Update<L> {
        if let Some(update) = self.updates.recv().await {
            return update;
        }
        match (&mut self.task).await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The task only ends when the receiver is gone, or the runtime is shutting down.
            _ => std::future::pending().await,
        }
    }

    /// The next update if one is there already: a burst becomes one pass.
    pub fn try_next(&mut self) -> Option<Update<L>> {
        self.updates.try_recv().ok()
    }
}

struct Follower<L, E> {
    machine: WatchMachine,
    backoff: Backoff,
    outage: Outage,
    store: Store,
    scope: Scope,
    settings: FeedSettings,
    /// What a listing begins with.
    empty: E,
    /// A watch that waits for a listing, or takes over from another.
    ahead: Option<Ahead>,
    /// What takes over next, if the watch that is followed lags. In the order of their starts.
    reliefs: VecDeque<Relief>,
    /// Before this none is opened.
    relief_at: Instant,
    /// The watch that is opened next takes over from one that was in order.
    takes_over: bool,
    /// Counted from the last whole read, not from the last connection: streams that end early must not put it off for ever.
    verify_at: Instant,
    rng: fastrand::Rng,
    sender: mpsc::Sender<Update<L>>,
}

/// Everything, as of one revision.
struct Whole<L> {
    header: Header,
    listed: Listed,
    content: L,
}

/// The consumer is gone.
struct Closed;

impl<L: Collect, E: Fn() -> L + Send + 'static> Follower<L, E> {
    fn new(
        store: Store,
        scope: Scope,
        settings: FeedSettings,
        rng: fastrand::Rng,
        empty: E,
    ) -> (Box<Self>, mpsc::Receiver<Update<L>>) {
        let (sender, updates) = mpsc::channel(QUEUE);
        let follower = Box::new(Follower {
            machine: WatchMachine::new(scope.ranges.clone()),
            backoff: Backoff::reconnect(rng.clone()),
            outage: Outage::default(),
            store,
            scope,
            empty,
            ahead: None,
            reliefs: VecDeque::new(),
            relief_at: Instant::now(),
            takes_over: false,
            verify_at: Instant::now() + settings.verify,
            settings,
            rng,
            sender,
        });
        (follower, updates)
    }

    // It is in a box, and so are the futures of what it does rarely: a process may have thousands of feeds.
    async fn run(mut self: Box<Self>, known: Option<Whole<L>>) {
        let mut reread = Some(Reread::Start);
        if let Some(whole) = known {
            if Box::pin(self.take(whole, Reread::Start)).await.is_err() {
                return;
            }
            reread = None;
        }
        while !self.sender.is_closed() {
            let began = Instant::now();
            let step = match reread {
                Some(why) => Box::pin(self.reread(why)).await.map(|result| result.map(|()| None)),
                None => self.follow().await,
            };
            match step {
                Err(Closed) => return,
                // A watch that had to be given up for another read is no failure of the store.
                Ok(Ok(Some(why))) => reread = Some(why),
                Ok(Ok(None)) => {
                    // What takes over from another watch goes on where that is, like one after a gap.
                    self.takes_over = reread.is_none();
                    reread = if self.takes_over { Box::pin(self.resume_fault()).await } else { None };
                }
                Ok(Err(error)) => {
                    self.reliefs.clear();
                    // A stream that lived for a while worked, even if nothing happened on it.
                    if reread.is_none() && began.elapsed() >= WORKED {
                        self.backoff.reset();
                    }
                    self.pause(&error).await;
                    // After a gap the store may be another one: only a witness makes a resumed watch sound.
                    if reread.is_none() {
                        reread =
                            if self.machine.can_resume() { Box::pin(self.resume_fault()).await } else { Some(Reread::Unsure) };
                    }
                }
            }
        }
    }

    async fn pause(&mut self, error: &StoreError) {
        let delay = self.backoff.delay_after(error);
        if self.outage.is_due(Instant::now()) {
            warn!(%error, failures = self.backoff.failures(), "a view cannot follow etcd; retrying");
        } else {
            debug!(%error, "a view cannot follow etcd; retrying");
        }
        tokio::time::sleep(delay).await;
    }

    /// It follows: something was told, or the stream lives on.
    fn follows(&mut self) {
        if let Some(lasted) = self.outage.over(Instant::now()) {
            info!(elapsed_s = lasted.as_secs(), "a view follows etcd again");
        }
    }

    /// Reads everything at one revision and tells it.
    async fn reread(&mut self, why: Reread) -> Result<Result<(), StoreError>, Closed> {
        (self.ahead, self.takes_over) = (None, false);
        self.reliefs.clear();
        if self.settings.beside {
            // If that fails, so will the read.
            self.ahead = Ahead::open(&self.store, self.scope.covering(), true).await.ok();
        }
        match self.list().await {
            Ok(whole) => self.take(whole, why).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Reads all ranges as of one revision. While something is made of a page, the next one is on its way.
    async fn list(&mut self) -> Result<Whole<L>, StoreError> {
        let mut whole = Whole { header: Header::default(), listed: Listed::default(), content: (self.empty)() };
        let mut at = None;
        for range in &self.scope.ranges {
            let mut pages = self.store.pages(range.clone(), at);
            let mut page = pages.next().await?;
            if at.is_none() {
                whole.header = pages.header();
                at = Some(whole.header.revision);
            }
            while let Some(kvs) = page {
                let taken = async {
                    self.machine.page(&mut whole.listed, &kvs);
                    whole.content.page(kvs);
                };
                let (next, ()) = tokio::join!(biased; pages.next(), taken);
                page = next?;
            }
        }
        Ok(whole)
    }

    /// Tells a listing.
    async fn take(&mut self, whole: Whole<L>, why: Reread) -> Result<(), Closed> {
        let Whole { header, listed, content } = whole;
        self.ahead.take_if(|ahead| !ahead.covers(&header));
        let stepped_back = self.machine.reread(&header, listed) || why == Reread::SteppedBack;
        self.verify_at = Instant::now() + self.settings.verify.mul_f64(0.8 + 0.4 * self.rng.f64());
        if stepped_back {
            warn!(rev = %header.revision, "the store is another one or stepped back (a restored backup?): everything was read again");
        } else if why != Reread::Start && why != Reread::Verify {
            info!(rev = %header.revision, reason = why.as_str(), "everything was read again");
        }
        let update = Update::Reset { revision: header.revision, cluster_id: header.cluster_id, kvs: content, stepped_back };
        self.sender.send(update).await.map_err(|_| Closed)
    }

    /// Whether the store is still the one that was followed: asks for the witnesses as of their revisions.
    async fn resume_fault(&mut self) -> Option<Reread> {
        let witnesses: Vec<Witness> = self.machine.witnesses().cloned().collect();
        if witnesses.is_empty() {
            return Some(Reread::Unsure);
        }
        for witness in witnesses {
            let request =
                RangeRequest { revision: Some(witness.revision), ..RangeRequest::all(KeyRange::one(witness.key.clone())) };
            loop {
                match self.store.range(request.clone()).await {
                    Ok(response) if self.machine.recognises(&witness, &response) => break,
                    Ok(_) | Err(StoreError::Future) => return Some(Reread::SteppedBack),
                    Err(StoreError::Compacted(_)) => return Some(Reread::Compacted),
                    Err(error) => self.pause(&error).await,
                }
                if self.sender.is_closed() {
                    return None;
                }
            }
        }
        None
    }

    /// The watch that was opened ahead, else one from where the view stands.
    async fn open_watch(&mut self) -> Result<Box<dyn Watch>, StoreError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(ahead.watch);
        }
        let (start, beside) = (self.machine.resume(), self.settings.beside);
        self.store.watch(WatchRequest { range: self.scope.covering(), start, beside }).await
    }

    /// Opens a watch that is at the present, behind the last one that lags.
    async fn open_relief(&mut self) {
        if Instant::now() < self.relief_at {
            return;
        }
        let open = Ahead::open(&self.store, self.scope.covering(), self.settings.beside);
        let opened = tokio::time::timeout(RELIEF_WITHIN, open).await.ok().and_then(Result::ok);
        let after = self.reliefs.back().map_or(Revision::NONE, Relief::start);
        let of_use = |ahead: &Ahead| self.machine.may_go_on(&ahead.header) && after < ahead.header.revision;
        let Some(ahead) = opened.filter(of_use) else {
            self.relief_at = Instant::now() + RELIEF_AGAIN;
            return;
        };
        debug!(rev = %ahead.header.revision, "a view lags: another watch takes over from there");
        self.reliefs.push_back(Relief::new(ahead));
    }

    /// Takes what a relief told. The last of them may lag as well.
    async fn relieve(&mut self, index: usize, message: Option<Result<WatchMessage, StoreError>>) {
        let message = message.and_then(Result::ok).filter(|message| !matches!(message, WatchMessage::Canceled { .. }));
        let (Some(relief), Some(message)) = (self.reliefs.get_mut(index), message) else {
            // One that ends is none.
            self.reliefs.remove(index);
            self.relief_at = Instant::now() + RELIEF_AGAIN;
            return;
        };
        let lag = relief.keep(message);
        if self.reliefs.iter().map(Relief::bytes).sum::<usize>() > RELIEF_BYTES_MAX {
            self.reliefs.pop_back();
            self.relief_at = Instant::now() + RELIEF_AGAIN;
        } else if lag > LAG_MAX && index + 1 == self.reliefs.len() && index + 1 < RELIEFS_MAX {
            self.open_relief().await;
        }
    }

    /// Sees, after each update, whether the watch that is followed lags, and whether another one takes over: then that is `ahead`.
    async fn seek_relief(&mut self) -> bool {
        // Not for a consumer that does not keep up: the next watch would lag as well.
        if self.machine.lag() > LAG_MAX && self.reliefs.is_empty() && self.sender.capacity() > 0 {
            self.open_relief().await;
        }
        let reached = self.reliefs.iter().take_while(|relief| self.machine.reached(relief.start())).count();
        let Some(relief) = self.reliefs.drain(..reached).next_back() else { return false };
        self.ahead = Some(relief.into_ahead());
        true
    }

    /// Follows events until something is wrong. `Ok(Ok(Some(why)))` = read again, `Ok(Ok(None))` = another watch is at hand that
    /// takes over.
    async fn follow(&mut self) -> Result<Result<Option<Reread>, StoreError>, Closed> {
        if std::mem::take(&mut self.takes_over) {
            self.machine.taken_over();
        } else {
            self.machine.reopened();
        }
        let mut watch = match self.open_watch().await {
            Ok(watch) => watch,
            Err(error) => return Ok(Err(error)),
        };
        if self.settings.progress.is_some()
            && let Ok(member) = self.store.member().await
        {
            let barrier = progress_is_barrier(&member.version);
            self.machine.trust_progress_of(barrier.then_some(member.header.member_id));
        }
        let (mut asked, mut heard, mut opened) = (0, Instant::now(), false);
        let next_ask = |settings: &FeedSettings| settings.progress.map(|every| Instant::now() + every);
        let mut ask = next_ask(&self.settings);
        loop {
            let message = tokio::select! {
                biased;
                message = watch.next() => message,
                (index, message) = next_of(&mut self.reliefs) => {
                    self.relieve(index, message).await;
                    continue;
                }
                () = tokio::time::sleep_until(self.verify_at) => return Ok(Ok(Some(Reread::Verify))),
                () = sleep_until(ask) => {
                    asked += 1;
                    if asked > SILENT_ASKS && heard.elapsed() >= SILENT_MIN {
                        return Ok(Err(StoreError::Broken("the watch is silent".into())));
                    }
                    ask_progress(watch.as_mut()).await;
                    ask = next_ask(&self.settings);
                    continue;
                }
            };
            (asked, heard, ask) = (0, Instant::now(), next_ask(&self.settings));
            match message {
                None => return Ok(Err(StoreError::Broken("etcd ended the watch".into()))),
                Some(Err(error)) => return Ok(Err(error)),
                Some(Ok(message)) => match self.machine.message(message) {
                    // The first one only says that the watch was opened.
                    Verdict::Nothing if !opened => opened = true,
                    Verdict::Nothing => self.follows(),
                    Verdict::Apply(revision, events) => {
                        self.backoff.reset();
                        self.follows();
                        self.sender.send(Update::Events { revision, events }).await.map_err(|_| Closed)?;
                        if self.seek_relief().await {
                            return Ok(Ok(None));
                        }
                    }
                    Verdict::Reread(why) => return Ok(Ok(Some(why))),
                    Verdict::Doubt => {
                        if let Some(why) = Box::pin(self.resume_fault()).await {
                            return Ok(Ok(Some(why)));
                        }
                    }
                    Verdict::Reconnect(reason) => return Ok(Err(StoreError::Broken(reason))),
                },
            }
        }
    }
}

async fn ask_progress(watch: &mut dyn Watch) {
    // A stream whose sending half is blocked is as dead as a silent one; the counter of asks finds it.
    let _ = tokio::time::timeout(Duration::from_secs(1), watch.request_progress()).await;
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
