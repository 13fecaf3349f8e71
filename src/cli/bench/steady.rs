//! The floor's writes of nodes that come at a steady rate, blind: what etcd alone makes of that rate is what the latency of
//! the real thing is to be seen beside. It waits for nothing but answers: it has no view of what it wrote.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::floor::{BATCHES_IN_FLIGHT, FLAT, NESTED, Writes};
use super::nodes::{Values, values};
use super::numbers::Latency;
use super::progress::Bar;
use crate::model::names::Revision;
use crate::store::api::{Op, Txn};

/// How long the allocations of several nodes are gathered, as the allocator does it.
const ALLOCATIONS: Duration = Duration::from_millis(5);
/// How long copies are gathered, as the relay does it.
const COPIES: Duration = Duration::from_millis(20);
/// Single requests under way: as many as those of agents that share a watch.
const REQUESTS_MAX: usize = 512;
const GONE: &str = "the task that writes for several nodes ended";

/// Writes so many nodes at this rate, each at its time whether those before are done or not. Answers how long it took from
/// when a node was due until its allocation was written.
///
/// # Errors
/// When etcd refuses a write.
pub async fn steady(writes: Writes, nodes: usize, rate: f64) -> anyhow::Result<Latency> {
    let mut gathering = JoinSet::new();
    let mut coming = JoinSet::new();
    let steady = Arc::new(Steady::open(writes, &mut gathering));
    let done = steady.clone().all(nodes, rate, &mut coming).await;
    drop(steady);
    // What is under way is waited for: a prefix of yours is emptied after this.
    while coming.join_next().await.is_some() {}
    // What was to be gathered is no more, so these end too. If one of them failed, that is why others did.
    let mut why = None;
    while let Some(ended) = gathering.join_next().await {
        why = why.or(ended.map_err(anyhow::Error::from).flatten().err());
    }
    why.map_or(done, Err)
}

struct Steady {
    writes: Arc<Writes>,
    turns: Semaphore,
    allocations: mpsc::UnboundedSender<Parcel>,
    copies: mpsc::UnboundedSender<Parcel>,
}

impl Steady {
    fn open(writes: Writes, gathering: &mut JoinSet<anyhow::Result<()>>) -> Steady {
        let writes = Arc::new(writes);
        let mut open = |gap, most| {
            let (sender, parcels) = mpsc::unbounded_channel();
            gathering.spawn(gather(writes.clone(), parcels, gap, most));
            sender
        };
        let (allocations, copies) = (open(ALLOCATIONS, NESTED), open(COPIES, FLAT));
        Steady { writes, turns: Semaphore::new(REQUESTS_MAX), allocations, copies }
    }

    async fn all(
        self: Arc<Self>,
        nodes: usize,
        rate: f64,
        coming: &mut JoinSet<anyhow::Result<Duration>>,
    ) -> anyhow::Result<Latency> {
        let bar = Bar::new("blind", nodes);
        let values = (0..nodes).map(values).collect::<anyhow::Result<Vec<_>>>()?;
        let mut took = Vec::with_capacity(nodes);
        let mut take = |time: Duration| took.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        let began = Instant::now();
        for (n, node) in values.into_iter().enumerate() {
            let due = began + Duration::from_secs_f64(n as f64 / rate);
            sleep_until(due).await;
            coming.spawn(self.clone().one(node, due));
            while let Some(done) = coming.try_join_next() {
                take(done??);
            }
            bar.set(n);
        }
        while let Some(done) = coming.join_next().await {
            take(done??);
        }
        Ok(Latency::of(took))
    }

    /// Answers how long its allocation took.
    async fn one(self: Arc<Self>, node: Values, due: Instant) -> anyhow::Result<Duration> {
        let writes = &self.writes;
        let lease = {
            let _turn = self.turns.acquire().await?;
            writes.grant().await?
        };
        let joined = self.write(writes.join(&node, lease)).await?;
        written(&self.allocations, vec![Op::Txn(writes.allocation(&node, joined))]).await?;
        let took = due.elapsed();
        self.write(writes.acknowledgement(&node, lease, joined)).await?;
        written(&self.copies, writes.first_copies(&node).into()).await?;
        written(&self.copies, vec![writes.second_copy(&node)]).await?;
        Ok(took)
    }

    async fn write(&self, txn: Txn) -> anyhow::Result<Revision> {
        let _turn = self.turns.acquire().await?;
        self.writes.write(txn).await
    }
}

/// What is to be written together, and who waits for it.
type Parcel = (Vec<Op>, oneshot::Sender<()>);

async fn written(to: &mpsc::UnboundedSender<Parcel>, ops: Vec<Op>) -> anyhow::Result<()> {
    let (tell, told) = oneshot::channel();
    to.send((ops, tell)).ok().context(GONE)?;
    told.await.context(GONE)
}

/// The oldest of what waits, at most so many writes of it but at least one parcel.
fn batch(waiting: &mut VecDeque<Parcel>, most: usize) -> (Vec<Op>, Vec<oneshot::Sender<()>>) {
    let (mut ops, mut tell) = (Vec::new(), Vec::new());
    while let Some((parcel, teller)) = waiting.pop_front_if(|(parcel, _)| ops.is_empty() || ops.len() + parcel.len() <= most) {
        ops.extend(parcel);
        tell.push(teller);
    }
    (ops, tell)
}

async fn send(writes: &Writes, (then, tell): (Vec<Op>, Vec<oneshot::Sender<()>>)) -> anyhow::Result<()> {
    writes.write(Txn { then, ..Txn::default() }).await?;
    for tell in tell {
        // Who waited is gone when the bench ends early.
        let _ = tell.send(());
    }
    Ok(())
}

/// Writes what came within a gap together, at most so many in one request, several requests under way, as the committer does.
async fn gather(
    writes: Arc<Writes>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    gap: Duration,
    most: usize,
) -> anyhow::Result<()> {
    let (mut next, mut waiting, mut under_way) = (Instant::now(), VecDeque::new(), FuturesUnordered::new());
    let mut failed = Ok(());
    while failed.is_ok() {
        tokio::select! {
            biased;
            Some(done) = under_way.next() => failed = done,
            parcel = parcels.recv() => match parcel {
                Some(parcel) => waiting.push_back(parcel),
                None => break,
            },
            () = sleep_until(next), if !waiting.is_empty() && under_way.len() < BATCHES_IN_FLIGHT => {
                next = Instant::now() + gap;
                while !waiting.is_empty() && under_way.len() < BATCHES_IN_FLIGHT {
                    under_way.push(send(&writes, batch(&mut waiting, most)));
                }
            }
        }
    }
    while let Some(done) = under_way.next().await {
        failed = failed.and(done);
    }
    failed
}
