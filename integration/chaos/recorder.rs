//! Follows a cluster's history from its first revision on, into a file. It reaches the members directly, so that no fault of
//! the network is its own; they are killed and paused under it all the same.
//!
//! Every write of etcd raises the revision by one, so a number that is missing is a hole, and holes are counted. On 3.5 it
//! watches. The watches of 3.4.23 can lose events: there every revision is read as of itself and compared with the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyRange, KeyValue, StoreError, WatchMessage, WatchRequest};
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::file::{Recorded, Writer};
use crate::support::etcd::EtcdVersion;

/// A watch that says nothing for so long, progress neither, is opened anew.
const SILENCE: Duration = Duration::from_secs(4);
/// Between two looks whether there is something new, where there is no watch.
const LOOK: Duration = Duration::from_millis(50);
/// Reads of different revisions under way at once.
const READS: usize = 3;

/// How far a recorder is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    confirmed: AtomicI64,
    holes: AtomicU64,
    reopened: AtomicU64,
}

impl Progress {
    /// Everything up to here is in the file.
    pub(crate) fn confirmed(&self) -> Revision {
        Revision(self.confirmed.load(Ordering::Acquire))
    }

    /// Revisions that are missing.
    pub(crate) fn holes(&self) -> u64 {
        self.holes.load(Ordering::Acquire)
    }

    /// How often its source had to be opened anew.
    pub(crate) fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Acquire)
    }
}

/// A running recorder.
pub(crate) struct Recorder {
    pub(crate) progress: Arc<Progress>,
    _task: AbortOnDropHandle<()>,
}

impl Recorder {
    /// Starts to follow.
    pub(crate) fn start(version: EtcdVersion, store: Store, path: &Path, began: Instant) -> Recorder {
        let progress = Arc::new(Progress::default());
        progress.confirmed.store(1, Ordering::Release);
        let tape = Tape { writer: Writer::create(path), last: Revision(1), began, progress: progress.clone() };
        let task = match version {
            EtcdVersion::V3_4 => tokio::spawn(by_reads(store, tape)),
            EtcdVersion::V3_5 => tokio::spawn(by_watch(store, tape)),
        };
        Recorder { progress, _task: AbortOnDropHandle::new(task) }
    }
}

fn everything() -> KeyRange {
    KeyRange::between(vec![0], vec![0])
}

struct Tape {
    writer: Writer,
    last: Revision,
    began: Instant,
    progress: Arc<Progress>,
}

impl Tape {
    /// Takes whole revisions; what was taken before is passed over.
    fn take(&mut self, events: Vec<Event>) {
        let mut revisions: BTreeMap<Revision, Vec<Event>> = BTreeMap::new();
        for event in events {
            revisions.entry(event.revision()).or_default().push(event);
        }
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        let fresh = revisions.into_iter().filter(|(revision, _)| *revision > self.last);
        let recorded: Vec<_> = fresh.map(|(revision, events)| Recorded { revision, ms, events }).collect();
        for Recorded { revision, .. } in &recorded {
            self.missing(revision.0 - self.last.0 - 1);
            self.last = *revision;
        }
        self.writer.append(&recorded);
        self.progress.confirmed.store(self.last.0, Ordering::Release);
    }

    /// Everything up to here is gone before it was seen.
    fn lost(&mut self, upto: Revision) {
        if upto > self.last {
            self.missing(upto.0 - self.last.0);
            self.last = upto;
        }
    }

    fn missing(&self, count: i64) {
        self.progress.holes.fetch_add(u64::try_from(count).unwrap(), Ordering::AcqRel);
    }

    fn reopened(&self) {
        self.progress.reopened.fetch_add(1, Ordering::AcqRel);
    }
}

async fn by_watch(store: Store, mut tape: Tape) {
    loop {
        let request = WatchRequest { range: everything(), start: tape.last.next(), beside: false };
        if let Ok(mut watch) = store.watch(request).await {
            let mut whole = Vec::new();
            let mut asked = false;
            loop {
                match timeout(SILENCE / 2, watch.next()).await {
                    Ok(Some(Ok(WatchMessage::Events { events, fragment, .. }))) => {
                        whole.extend(events);
                        if !fragment {
                            tape.take(std::mem::take(&mut whole));
                        }
                    }
                    Ok(Some(Ok(WatchMessage::Canceled { compacted, .. }))) => {
                        tape.lost(compacted.max(Revision::NONE));
                        break;
                    }
                    Ok(Some(Ok(WatchMessage::Created(_) | WatchMessage::Progress(_)))) => {}
                    Ok(Some(Err(_)) | None) => break,
                    Err(_) if asked => break,
                    Err(_) => {
                        asked = true;
                        watch.request_progress().await;
                        continue;
                    }
                }
                asked = false;
            }
        }
        tape.reopened();
        sleep(LOOK).await;
    }
}

type State = BTreeMap<Key, KeyValue>;

async fn by_reads(store: Store, mut tape: Tape) {
    let mut before = State::new();
    loop {
        let Ok((header, _)) = store.get("/").await else {
            tape.reopened();
            sleep(LOOK).await;
            continue;
        };
        let mut reads = futures::stream::iter(tape.last.0 + 1..=header.revision.0)
            .map(|revision| state(&store, Revision(revision)))
            .buffered(READS);
        while let Some((revision, answer)) = reads.next().await {
            match answer {
                Ok(now) => {
                    tape.take(difference(&before, &now, revision));
                    before = now;
                }
                Err(StoreError::Compacted(_)) => tape.lost(revision),
                // The next round tries it again.
                Err(_) => {
                    tape.reopened();
                    break;
                }
            }
        }
        drop(reads);
        sleep(LOOK).await;
    }
}

async fn state(store: &Store, revision: Revision) -> (Revision, Result<State, StoreError>) {
    let answer = store.read_all(everything(), Some(revision)).await;
    (revision, answer.map(|read| read.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect()))
}

/// What happened at `revision`.
fn difference(before: &State, now: &State, revision: Revision) -> Vec<Event> {
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    let deleted = gone.map(|key| Event::Delete { key: key.clone(), mod_revision: revision });
    let put = now.values().filter(|kv| kv.mod_revision == revision).map(|kv| Event::Put(kv.clone()));
    deleted.chain(put).collect()
}
