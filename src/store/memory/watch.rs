//! Watches of the model, with etcd's oddities: catch-up in batches whose header is ahead of their events, fragments,
//! progress that is a barrier or a lie, a compacted start that is created and then cancelled on a stream that stays
//! open and silent, and a start in the future that is silent until the revision comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::mvcc::Mvcc;
use super::state::State;
use super::{MemoryOptions, ProgressKind, Shared};
use crate::model::names::Revision;
use crate::store::api::{Event, Header, KeyRange, StoreError, Watch, WatchMessage, WatchRequest};

/// All watchers of a server.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    next_id: u64,
    all: BTreeMap<u64, Watcher>,
}

/// One watcher, on the side of the server.
#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    /// The first revision that the watcher has not processed.
    cursor: i64,
    /// Messages to send before any further event.
    ready: VecDeque<WatchMessage>,
    /// The server canceled the watcher: it is silent from now on.
    canceled: bool,
    wake: Arc<Notify>,
}

impl Watchers {
    pub(super) fn wake_all(&self) {
        self.all.values().for_each(|watcher| watcher.wake.notify_one());
    }

    pub(super) fn wake_matching(&self, events: &[Event]) {
        for watcher in self.all.values() {
            if events.iter().any(|event| watcher.range.contains(event.key())) {
                watcher.wake.notify_one();
            }
        }
    }

    /// The number of watchers.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Breaks all streams, as a restart of the server does.
    pub(super) fn drop_all(&mut self) {
        self.wake_all();
        self.all.clear();
    }

    /// Cancels those that still owe events from before the compaction; those in step lose nothing and stay.
    pub(super) fn compacted(&mut self, mvcc: &Mvcc) {
        for watcher in self.all.values_mut().filter(|watcher| !watcher.canceled) {
            watcher.skip_foreign(mvcc);
            if watcher.cursor < mvcc.compacted {
                watcher.cancel_compacted(mvcc.compacted);
                watcher.wake.notify_one();
            }
        }
    }
}

impl Watcher {
    /// Moves the cursor to the first revision with an event for this watcher, or behind the last revision.
    fn skip_foreign(&mut self, mvcc: &Mvcc) {
        let mine = mvcc.log().range(self.cursor..).find(|(_, events)| self.wants(events)).map(|(revision, _)| *revision);
        // A start in the future does not move.
        self.cursor = mine.unwrap_or(self.cursor.max(mvcc.revision + 1));
    }

    fn wants(&self, events: &[Event]) -> bool {
        events.iter().any(|event| self.range.contains(event.key()))
    }

    fn cancel_compacted(&mut self, compacted: i64) {
        self.canceled = true;
        let reason = "etcdserver: mvcc: required revision has been compacted".to_owned();
        self.ready.push_back(WatchMessage::Canceled { reason, compacted: Revision(compacted) });
    }

    /// The next message.
    fn poll(&mut self, mvcc: &Mvcc, header: Header, options: &MemoryOptions) -> Option<WatchMessage> {
        if self.ready.is_empty() && !self.canceled {
            self.skip_foreign(mvcc);
            let batch: Vec<(&i64, &Vec<Event>)> = mvcc
                .log()
                .range(self.cursor..)
                .filter(|(_, events)| self.wants(events))
                .take(options.catch_up_revisions.max(1))
                .collect();
            if let Some((last, _)) = batch.last() {
                self.cursor = **last + 1;
                let range = &self.range;
                let events = batch.iter().flat_map(|(_, events)| events.iter()).filter(|event| range.contains(event.key()));
                let messages = fragments(events.cloned().collect(), header, options.fragment_bytes);
                self.ready.extend(messages);
            }
        }
        self.ready.pop_front()
    }
}

/// Cuts a response into pieces of about `bytes`, at least one event each.
fn fragments(events: Vec<Event>, header: Header, bytes: usize) -> Vec<WatchMessage> {
    let mut pieces: Vec<Vec<Event>> = Vec::new();
    let mut room = 0;
    for event in events {
        let size = 64 + event.key().as_bytes().len() + if let Event::Put(kv) = &event { kv.value.len() } else { 0 };
        match pieces.last_mut() {
            Some(piece) if room >= size => piece.push(event),
            _ => {
                pieces.push(vec![event]);
                room = bytes;
            }
        }
        room = room.saturating_sub(size);
    }
    let count = pieces.len();
    let message = |(index, events)| WatchMessage::Events { header, events, fragment: index + 1 < count };
    pieces.into_iter().enumerate().map(message).collect()
}

/// A watch, on the side of the client.
pub(super) struct MemoryWatch {
    shared: Arc<Shared>,
    id: u64,
    wake: Arc<Notify>,
    ended: bool,
}

/// Opens a watch.
pub(super) fn open(shared: &Arc<Shared>, request: WatchRequest) -> MemoryWatch {
    let wake = Arc::new(Notify::new());
    let id = shared.with(|state, _| {
        let header = state.header();
        let cursor = if request.start.0 <= 0 { state.mvcc.revision + 1 } else { request.start.0 };
        let mut watcher = Watcher {
            range: request.range,
            cursor,
            ready: VecDeque::from([WatchMessage::Created(header)]),
            canceled: false,
            wake: wake.clone(),
        };
        if cursor < state.mvcc.compacted {
            watcher.cancel_compacted(state.mvcc.compacted);
        }
        state.watchers.next_id += 1;
        let id = state.watchers.next_id;
        state.watchers.all.insert(id, watcher);
        id
    });
    MemoryWatch { shared: shared.clone(), id, wake, ended: false }
}

impl MemoryWatch {
    /// The outer `None`: no message yet; the inner one: the stream is broken.
    fn poll(&mut self, state: &mut State) -> Option<Option<WatchMessage>> {
        let header = state.header();
        let Some(watcher) = state.watchers.all.get_mut(&self.id) else { return Some(None) };
        watcher.poll(&state.mvcc, header, &state.options).map(Some)
    }

    async fn next_message(&mut self) -> Option<Result<WatchMessage, StoreError>> {
        tokio::task::consume_budget().await;
        while !self.ended {
            let shared = self.shared.clone();
            let (message, next_end) = shared.with(|state, _| (self.poll(state), state.next_end()));
            match message {
                Some(Some(message)) => return Some(Ok(message)),
                Some(None) => {
                    self.ended = true;
                    return Some(Err(StoreError::Broken("the stream was closed".to_owned())));
                }
                None => {}
            }
            // Only this task notices the end of a lease, which is an event.
            match next_end {
                Some(end) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(self.shared.instant(end)) => {}
                    }
                }
                None => self.wake.notified().await,
            }
        }
        None
    }
}

impl Watch for MemoryWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        self.next_message().boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        let id = self.id;
        self.shared.with(|state, _| {
            let header = state.header();
            let Some(watcher) = state.watchers.all.get_mut(&id) else { return };
            watcher.skip_foreign(&state.mvcc);
            let in_step = watcher.cursor > state.mvcc.revision && watcher.ready.is_empty();
            // Newer servers answer only watchers in step, older ones with a revision whose events are still to come.
            match state.options.progress {
                _ if watcher.canceled => return,
                ProgressKind::Barrier if in_step => watcher.ready.push_back(WatchMessage::Progress(header)),
                ProgressKind::Barrier => return,
                ProgressKind::Lie => watcher.ready.push_front(WatchMessage::Progress(header)),
            }
            watcher.wake.notify_one();
        });
        async {}.boxed()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.shared.with(|state, _| state.watchers.all.remove(&self.id));
    }
}
