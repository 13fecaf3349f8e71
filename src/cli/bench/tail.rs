//! A writer of changes at the source, and when they are seen to be copied.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::floor::IN_FLIGHT;
use super::nodes::Values;
use super::numbers::{Latency, rate};
use crate::model::names::Revision;
use crate::model::status::Status;
use crate::reconcile::Site;
use crate::store::api::{Event, KeyRange, KeyValue, Op, Store, Txn};
use crate::store::feed::{Feed, FeedSettings, Scope, Update};
use crate::store::keys::NodePart;
use crate::store::wire::{Checkpoint, Stored};

/// Requests of the open loop under way at the most: a store that cannot keep up must slow it down rather than time it out.
const BACKLOG_MAX: usize = 4_096;
/// Longer than this without a checkpoint is a fault, not a figure.
const STUCK: Duration = Duration::from_secs(120);

/// Complete checkpoints as they come: up to which source revision, and when it was seen.
pub struct Checkpoints {
    seen: mpsc::UnboundedReceiver<(Revision, Instant)>,
    upto: Revision,
    _task: AbortOnDropHandle<()>,
}

impl Checkpoints {
    /// Follows the destination's.
    pub fn open(destination: &Site) -> Checkpoints {
        let scope = Scope::one(KeyRange::one(destination.prefix.checkpoint()));
        let mut feed = Feed::open(destination.store.clone(), scope, FeedSettings::default(), fastrand::Rng::with_seed(5));
        let (tell, seen) = mpsc::unbounded_channel();
        let follow = async move {
            loop {
                let kvs = match feed.next().await {
                    Update::Reset { kvs, .. } => kvs,
                    Update::Events { events, .. } => events.into_iter().filter_map(put).collect(),
                };
                let checkpoints = kvs.iter().filter_map(|kv| Checkpoint::decode(&kv.value).ok());
                for complete in checkpoints.filter(|checkpoint| checkpoint.partial.is_none()) {
                    if tell.send((complete.revision, Instant::now())).is_err() {
                        return;
                    }
                }
            }
        };
        Checkpoints { seen, upto: Revision::NONE, _task: AbortOnDropHandle::new(tokio::spawn(follow)) }
    }

    async fn next(&mut self) -> anyhow::Result<(Revision, Instant)> {
        let next = timeout(STUCK, self.seen.recv()).await;
        let (revision, at) =
            next.with_context(|| format!("no complete checkpoint came for {STUCK:?}"))?.context("the feed ended")?;
        self.upto = self.upto.max(revision);
        Ok((revision, at))
    }

    /// Waits until everything up to a revision is copied. Answers what was seen on the way.
    ///
    /// # Errors
    /// When no checkpoint comes any more.
    pub async fn reach(&mut self, revision: Revision) -> anyhow::Result<Vec<(Revision, Instant)>> {
        let mut seen = Vec::new();
        while self.upto < revision {
            seen.push(self.next().await?);
        }
        Ok(seen)
    }
}

fn put(event: Event) -> Option<KeyValue> {
    match event {
        Event::Put(kv) => Some(kv),
        Event::Delete { .. } => None,
    }
}

/// What a writer reached, and how late its changes were seen.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tail {
    /// Changes a second that it was told to write, whether those before are done or not.
    pub told: f64,
    /// What it reached.
    pub reached: f64,
    /// From a write's answer until a complete cut holds it.
    pub lag: Latency,
}

/// The n-th change: another generation in the status of a node, another one each time.
fn change(site: &Site, nodes: &[Values], n: usize) -> Option<Txn> {
    // An odd step walks through all nodes before it comes to one again, if it divides their number nowhere.
    let node = nodes.get(n.wrapping_mul(7_919) % nodes.len())?;
    let status = Status { generation: Revision(i64::try_from(n).ok()? + 1), ..node.registered.clone() };
    let key = site.prefix.node(&node.id, NodePart::Status);
    Some(Txn { then: vec![Op::put(key, status.encode())], ..Txn::default() })
}

async fn write(store: &Store, txn: Option<Txn>) -> anyhow::Result<Revision> {
    let answer = store.txn(txn.context("there are no nodes")?).await.context("failed to write a change")?;
    ensure!(answer.succeeded, "a write without compares did not succeed");
    Ok(answer.header.revision)
}

/// So many changes as fast as they are answered. Answers the rate and the last revision.
///
/// # Errors
/// When etcd refuses one.
pub async fn closed_loop(site: &Site, nodes: &[Values], changes: usize) -> anyhow::Result<(f64, Revision)> {
    let began = Instant::now();
    let writes = stream::iter(0..changes).map(async |n| write(&site.store, change(site, nodes, n)).await);
    let last = writes.buffer_unordered(IN_FLIGHT).try_fold(Revision::NONE, async |last, now| Ok(last.max(now))).await?;
    Ok((rate(changes, began.elapsed()), last))
}

/// Changes at a rate, whether those before are done or not, while a relay runs. `first` is the number of the first one: a
/// change that was made before is none, and no cut is written for it.
///
/// # Errors
/// When etcd refuses one, or they are not copied.
pub async fn open_loop(
    site: &Site,
    nodes: &[Values],
    first: usize,
    (told, time): (f64, Duration),
    checkpoints: &mut Checkpoints,
) -> anyhow::Result<Tail> {
    let changes = ((told * time.as_secs_f64()) as usize).max(1);
    let room = Arc::new(Semaphore::new(BACKLOG_MAX));
    let (tell, mut answers) = mpsc::unbounded_channel();
    let began = Instant::now();
    for n in 0..changes {
        sleep_until(began + Duration::from_secs_f64(n as f64 / told)).await;
        let permit = room.clone().acquire_owned().await?;
        let txn = change(site, nodes, first + n);
        let (store, tell) = (site.store.clone(), tell.clone());
        tokio::spawn(async move {
            let answer = write(&store, txn).await.map(|revision| (revision, Instant::now()));
            drop(permit);
            let _ = tell.send(answer);
        });
    }
    drop(tell);
    let mut written = Vec::with_capacity(changes);
    while let Some(answer) = answers.recv().await {
        written.push(answer?);
    }
    let reached = rate(changes, began.elapsed());
    let last = written.iter().map(|(revision, _)| *revision).max().unwrap_or(Revision::NONE);
    let seen = checkpoints.reach(last).await?;
    Ok(Tail { told, reached, lag: Latency::of(lags(written, &seen)) })
}

/// Microseconds from each write's answer until the first checkpoint that holds it was seen.
fn lags(mut written: Vec<(Revision, Instant)>, seen: &[(Revision, Instant)]) -> Vec<u64> {
    written.sort_unstable();
    let mut seen = seen.iter().peekable();
    let mut lags = Vec::with_capacity(written.len());
    for (revision, answered) in written {
        while seen.next_if(|(upto, _)| *upto < revision).is_some() {}
        let Some((_, at)) = seen.peek() else { break };
        lags.push(u64::try_from(at.saturating_duration_since(answered).as_micros()).unwrap_or(u64::MAX));
    }
    lags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_late_until_the_first_checkpoint_that_holds_it() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let written = vec![(Revision(7), at(3)), (Revision(5), at(1)), (Revision(6), at(2))];
        let seen = [(Revision(5), at(4)), (Revision(6), at(1)), (Revision(9), at(13))];
        assert_eq!(lags(written, &seen), [3_000, 0, 10_000]);
    }
}
