//! The floor's writes of nodes that come at a steady rate, blind: what etcd alone makes of that rate is what the latency of
//! the real thing is to be seen beside.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::floor::{FLAT, NESTED, Writes};
use super::nodes::values;
use super::numbers::Latency;
use super::progress::Bar;
use crate::store::api::{Op, Txn};

/// How long the allocations of several nodes are gathered, as the allocator does it.
const ALLOCATIONS: Duration = Duration::from_millis(5);
/// How long copies are gathered, as the relay does it.
const COPIES: Duration = Duration::from_millis(20);

const GONE: &str = "the task that writes for several nodes ended";

/// Writes so many nodes at this rate, each at its time whether those before are done or not. Answers how long it took from
/// when a node was due until its allocation was written.
///
/// # Errors
/// When etcd refuses a write.
pub async fn steady(writes: Writes, nodes: usize, rate: f64) -> anyhow::Result<Latency> {
    let bar = Bar::new("blind", nodes);
    let values = (0..nodes).map(values).collect::<anyhow::Result<Vec<_>>>()?;
    let writes = Arc::new(writes);
    let mut gathering = JoinSet::new();
    let (allocate, allocations) = mpsc::unbounded_channel();
    gathering.spawn(gather(writes.clone(), allocations, ALLOCATIONS, NESTED));
    let (copy, copies) = mpsc::unbounded_channel();
    gathering.spawn(gather(writes.clone(), copies, COPIES, FLAT));

    let began = Instant::now();
    let mut coming = JoinSet::new();
    for (n, node) in values.into_iter().enumerate() {
        let due = began + Duration::from_secs_f64(n as f64 / rate);
        sleep_until(due).await;
        let (writes, allocate, copy) = (writes.clone(), allocate.clone(), copy.clone());
        coming.spawn(async move {
            let lease = writes.grant().await?;
            let joined = writes.write(writes.join(&node, lease)).await?;
            written(&allocate, vec![Op::Txn(writes.allocation(&node, joined))]).await?;
            let took = due.elapsed();
            writes.write(writes.acknowledgement(&node, lease, joined)).await?;
            written(&copy, writes.first_copies(&node).into()).await?;
            written(&copy, vec![writes.second_copy(&node)]).await?;
            anyhow::Ok(took)
        });
        bar.set(n);
    }
    let mut took = Vec::with_capacity(nodes);
    while let Some(done) = coming.join_next().await {
        match done? {
            Ok(time) => took.push(u64::try_from(time.as_micros())?),
            // It may have failed because the task that it waits for did: then that one's reason is the better one.
            Err(error) => return Err(gathering.try_join_next().and_then(|done| done.ok()?.err()).unwrap_or(error)),
        }
    }
    Ok(Latency::of(took))
}

/// What is to be written together, and who waits for it.
type Parcel = (Vec<Op>, oneshot::Sender<()>);

async fn written(to: &mpsc::UnboundedSender<Parcel>, ops: Vec<Op>) -> anyhow::Result<()> {
    let (tell, told) = oneshot::channel();
    to.send((ops, tell)).ok().context(GONE)?;
    told.await.context(GONE)
}

/// Writes what came within a gap together, at most so many in one request.
async fn gather(
    writes: Arc<Writes>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    gap: Duration,
    most: usize,
) -> anyhow::Result<()> {
    let mut next = Instant::now();
    let mut waiting = Vec::new();
    while parcels.recv_many(&mut waiting, usize::MAX).await > 0 {
        sleep_until(next).await;
        while let Ok(parcel) = parcels.try_recv() {
            waiting.push(parcel);
        }
        next = Instant::now() + gap;
        let (ops, tell): (Vec<Vec<Op>>, Vec<_>) = waiting.drain(..).unzip();
        let ops: Vec<Op> = ops.into_iter().flatten().collect();
        for then in ops.chunks(most) {
            writes.write(Txn { then: then.to_vec(), ..Txn::default() }).await?;
        }
        for tell in tell {
            // Who waited is gone when the bench ends early.
            let _ = tell.send(());
        }
    }
    Ok(())
}
