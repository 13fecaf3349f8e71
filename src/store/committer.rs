//! The committer: many small all-or-nothing writes, few requests.
//!
//! A unit is one caller's write with its compares. Units that wait while requests are in flight go together into one
//! transaction, each as a *nested* transaction of its own: one round trip, one raft entry, and a unit that loses disturbs
//! no other. How a batch is put together is [`crate::store::batch`]'s business (pure); this is the shell that sends it.

use std::collections::VecDeque;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::model::names::Revision;
use crate::store::api::{Compare, Key, KeyRange, KeyValue, Op, OpResult, Store, StoreError, Txn, TxnResponse};
use crate::store::batch::{Limits, take_batch};

pub use crate::store::batch::Unit;

/// Requests in flight. More would only queue in etcd's raft; fewer leave it idle for a round trip.
const IN_FLIGHT_MAX: usize = 4;

/// What became of a unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Written at this revision.
    Committed(Revision),
    /// A compare failed; what `reads` held then.
    Lost(Vec<KeyValue>),
    /// The leader key is gone: nothing was written and nothing will be.
    Deposed,
    /// No answer: it may have been written. Read, then decide.
    Unknown(StoreError),
    /// Refused for good (too large, no space, permission): not written.
    Refused(StoreError),
}

/// Who may write: a key that must still have the create_revision it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The leader key.
    pub key: Key,
    /// Its create_revision.
    pub created: Revision,
}

impl Fence {
    /// The compare that every transaction carries.
    pub fn compare(&self) -> Compare {
        Compare::Created(self.key.clone(), self.created)
    }
}

/// A unit on its way, and who waits for it.
struct Waiting {
    unit: Unit,
    place: usize,
    answer: mpsc::UnboundedSender<(usize, Outcome)>,
}

/// Collects while requests are in flight, sends at once when idle. A cheap handle; dropping the last one ends it.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::UnboundedSender<Vec<Waiting>>,
    _task: std::sync::Arc<AbortOnDropHandle<()>>,
}

impl Committer {
    /// A committer that writes only while `fence` holds.
    pub fn new(store: Store, fence: Fence) -> Self {
        let (queue, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(work(store, fence, receiver));
        Committer { queue, _task: std::sync::Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Commits units; the outcomes are in the order of the units. The queue is bounded by what the caller hands over: a
    /// role waits for the outcomes of a pass before it plans the next.
    pub async fn commit(&self, units: Vec<Unit>) -> Vec<Outcome> {
        let lost = || Outcome::Unknown(StoreError::Broken("the committer ended".into()));
        let mut outcomes: Vec<Outcome> = units.iter().map(|_| lost()).collect();
        let (answer, mut answers) = mpsc::unbounded_channel();
        let waiting =
            units.into_iter().enumerate().map(|(place, unit)| Waiting { unit, place, answer: answer.clone() }).collect();
        drop(answer);
        if self.queue.send(waiting).is_ok() {
            while let Some((place, outcome)) = answers.recv().await {
                if let Some(slot) = outcomes.get_mut(place) {
                    *slot = outcome;
                }
            }
        }
        outcomes
    }
}

async fn work(store: Store, fence: Fence, mut incoming: mpsc::UnboundedReceiver<Vec<Waiting>>) {
    let mut queue: VecDeque<Waiting> = VecDeque::new();
    let mut limits = Limits::default();
    let mut in_flight: FuturesUnordered<BoxFuture<'_, Option<Limits>>> = FuturesUnordered::new();
    loop {
        while in_flight.len() < IN_FLIGHT_MAX && !queue.is_empty() {
            let batch = take_batch(&mut queue, |waiting| &waiting.unit, limits);
            debug!(batch = batch.len(), waiting = queue.len(), "a batch is sent");
            let sender = Sender { store: &store, fence: &fence };
            in_flight.push(async move { sender.send(batch).await }.boxed());
        }
        tokio::select! {
            biased;
            Some(lower) = in_flight.next(), if !in_flight.is_empty() => {
                if let Some(lower) = lower {
                    // Larger batches may still have been in flight when an earlier one taught us better.
                    if lower.units < limits.units {
                        warn!(batch = lower.units, "the server takes smaller transactions only: the batch size was lowered");
                        limits = lower;
                    }
                }
            }
            units = incoming.recv() => match units {
                Some(units) => queue.extend(units),
                None => break,
            },
        }
    }
    while in_flight.next().await.is_some() {}
}

struct Sender<'a> {
    store: &'a Store,
    fence: &'a Fence,
}

impl Sender<'_> {
    /// Sends a batch and answers everybody in it. `Some` = a lower limit was found to work.
    fn send(&self, batch: Vec<Waiting>) -> BoxFuture<'_, Option<Limits>> {
        async move {
            let units = batch.len();
            let whole = if units == 1 {
                self.store.txn(flat(self.fence, &batch[0].unit)).await
            } else {
                self.store.txn(nested(self.fence, batch.iter().map(|w| &w.unit))).await
            };
            match whole {
                Ok(response) => {
                    self.answer(batch, &response);
                    None
                }
                Err(error) if units > 1 && may_pass_when_halved(&error) => self.halve(batch, &error).await,
                Err(error) => {
                    for waiting in batch {
                        let outcome = if error.is_unknown_outcome() {
                            Outcome::Unknown(error.clone())
                        } else {
                            Outcome::Refused(error.clone())
                        };
                        let _ = waiting.answer.send((waiting.place, outcome));
                    }
                    None
                }
            }
        }
        .boxed()
    }

    /// Both halves, one after the other. The lower limit is remembered only if both pass: one bad unit (an unknown lease, a
    /// giant value) must not shrink the batches of all others.
    async fn halve(&self, mut batch: Vec<Waiting>, error: &StoreError) -> Option<Limits> {
        let units = batch.len();
        let second = batch.split_off(units / 2);
        let (passed_a, passed_b) = (Passed::default(), Passed::default());
        let (first, second) = (passed_a.watch(batch), passed_b.watch(second));
        let learned = [self.send(first).await, self.send(second).await];
        let both = passed_a.all().await && passed_b.all().await;
        let about_size = matches!(error, StoreError::TooManyOps | StoreError::TooLarge | StoreError::Other(_));
        let halves = learned.iter().flatten().map(|limits| limits.units).min().unwrap_or((units / 2).max(1));
        (both && about_size).then(|| Limits { units: halves, ..Limits::default() })
    }

    fn answer(&self, batch: Vec<Waiting>, response: &TxnResponse) {
        let revision = response.header.revision;
        if batch.len() == 1 {
            let outcome = if response.succeeded { Outcome::Committed(revision) } else { lost(&response.results, self.fence) };
            batch.into_iter().for_each(|w| drop(w.answer.send((w.place, outcome.clone()))));
            return;
        }
        for (index, waiting) in batch.into_iter().enumerate() {
            let outcome = match (response.succeeded, response.results.get(index)) {
                (false, _) => Outcome::Deposed,
                (true, Some(OpResult::Txn(nested))) if nested.succeeded => Outcome::Committed(revision),
                (true, Some(OpResult::Txn(nested))) => Outcome::Lost(read(&nested.results)),
                (true, _) => Outcome::Unknown(StoreError::Other("a nested answer is missing".into())),
            };
            let _ = waiting.answer.send((waiting.place, outcome));
        }
    }
}

/// Whether the same units in smaller requests may pass. A proxy or server that refuses nesting says so in words of its own.
fn may_pass_when_halved(error: &StoreError) -> bool {
    match error {
        StoreError::TooManyOps | StoreError::TooLarge | StoreError::NoLease => true,
        StoreError::Other(words) => {
            let words = words.to_lowercase();
            ["nest", "invalid argument", "duplicate key", "unimplemented"].iter().any(|word| words.contains(word))
        }
        _ => false,
    }
}

/// Listens in on the answers of a half.
#[derive(Default)]
struct Passed(std::sync::Mutex<Vec<oneshot::Receiver<bool>>>);

impl Passed {
    fn watch(&self, batch: Vec<Waiting>) -> Vec<Waiting> {
        batch
            .into_iter()
            .map(|waiting| {
                let (passed, receiver) = oneshot::channel();
                if let Ok(mut receivers) = self.0.lock() {
                    receivers.push(receiver);
                }
                Waiting { answer: tap(waiting.answer, passed), ..waiting }
            })
            .collect()
    }

    async fn all(self) -> bool {
        let receivers = self.0.into_inner().unwrap_or_default();
        futures::future::join_all(receivers).await.into_iter().all(|passed| passed == Ok(true))
    }
}

/// Hands an answer on, and says whether it was one of a server that took the request.
fn tap(
    answer: mpsc::UnboundedSender<(usize, Outcome)>,
    passed: oneshot::Sender<bool>,
) -> mpsc::UnboundedSender<(usize, Outcome)> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(usize, Outcome)>();
    tokio::spawn(async move {
        if let Some((place, outcome)) = receiver.recv().await {
            let _ = passed.send(matches!(outcome, Outcome::Committed(_) | Outcome::Lost(_)));
            let _ = answer.send((place, outcome));
        }
    });
    sender
}

fn nested<'a>(fence: &Fence, units: impl Iterator<Item = &'a Unit>) -> Txn {
    let then = units
        .map(|unit| {
            Op::Txn(Txn {
                compares: unit.compares.clone(),
                then: unit.writes.clone(),
                otherwise: unit.reads.iter().map(read_op).collect(),
            })
        })
        .collect();
    Txn { compares: vec![fence.compare()], then, otherwise: vec![] }
}

/// One unit without nesting; the else-branch reads the leader key too, to tell a lost unit from a lost election.
fn flat(fence: &Fence, unit: &Unit) -> Txn {
    let mut compares = vec![fence.compare()];
    compares.extend(unit.compares.iter().cloned());
    let mut otherwise = vec![Op::get(fence.key.clone())];
    otherwise.extend(unit.reads.iter().map(read_op));
    Txn { compares, then: unit.writes.clone(), otherwise }
}

fn read_op(range: &KeyRange) -> Op {
    Op::Get(crate::store::api::RangeRequest::all(range.clone()))
}

/// Of a flat transaction that failed: the fence, or the unit?
fn lost(results: &[OpResult], fence: &Fence) -> Outcome {
    let (leader, reads) = match results.split_first() {
        Some((OpResult::Range(leader), reads)) => (leader.kvs.first(), reads),
        _ => return Outcome::Unknown(StoreError::Other("the answer of a failed compare is missing".into())),
    };
    match leader {
        Some(kv) if kv.create_revision == fence.created => Outcome::Lost(read(reads)),
        _ => Outcome::Deposed,
    }
}

fn read(results: &[OpResult]) -> Vec<KeyValue> {
    results
        .iter()
        .filter_map(|result| match result {
            OpResult::Range(range) => Some(range.kvs.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests;
