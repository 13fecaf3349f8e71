//! Sends many small all-or-nothing writes in few requests.
//!
//! Units that wait while requests are in flight go together into one transaction, each as its own *nested* transaction:
//! one round trip, one raft entry, and a unit whose compare fails disturbs no other. [`crate::store::batch`] (pure)
//! composes the batch; this shell sends it. It sends no unit twice, except after a rejection by the server, and no unit
//! whose caller no longer waits.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug, warn};

use crate::model::names::Revision;
use crate::store::api::{Compare, Key, Op, OpResult, Store, StoreError, Txn, TxnResponse};
use crate::store::batch::{Limits, Unit, take_batch};

/// Requests in flight. More would only queue in etcd's raft; fewer leave it idle for a round trip.
const IN_FLIGHT_MAX: usize = 4;

/// The right to write: a key that must still have its first create_revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The leader key.
    pub key: Key,
    /// The create_revision of that key.
    pub created: Revision,
}

impl Fence {
    /// The compare that every transaction carries.
    pub fn compare(&self) -> Compare {
        Compare::Created(self.key.clone(), self.created)
    }
}

/// The answer that a unit would have got in its own request. `None` = the fence does not hold: nothing was written.
pub(super) type Answer = Result<Option<TxnResponse>, StoreError>;

/// A unit on its way, and the channel of its caller.
struct Waiting {
    unit: Unit,
    answer: oneshot::Sender<Answer>,
}

/// Collects units while requests are in flight and sends at once when idle. The callers bound the queue, because they
/// wait for their answers. A cheap handle; dropping the last one ends the task.
#[derive(Debug, Clone)]
pub(super) struct Batcher {
    queue: mpsc::UnboundedSender<Vec<Waiting>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Batcher {
    /// A batcher that writes only while `fence` holds, if there is one.
    pub(super) fn new(store: Store, fence: Option<Fence>) -> Self {
        let (queue, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(work(Sender { store, fence }, receiver).in_current_span());
        Batcher { queue, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Queues a unit.
    pub(super) fn send(&self, unit: Unit) -> Answered {
        let (waiting, answered) = Waiting::new(unit);
        // If the task has ended, the caller gets an error from the closed channel.
        let _ = self.queue.send(vec![waiting]);
        answered
    }

    /// Queues units, which go together as far as they fit; the answers are in the order of the units.
    pub(super) fn send_all(&self, units: Vec<Unit>) -> Vec<Answered> {
        let (waiting, answers) = units.into_iter().map(Waiting::new).unzip();
        let _ = self.queue.send(waiting);
        answers
    }
}

impl Waiting {
    fn new(unit: Unit) -> (Waiting, Answered) {
        let (answer, receiver) = oneshot::channel();
        (Waiting { unit, answer }, Answered(receiver))
    }
}

/// A unit on its way. Dropping this takes the unit back if it was not sent yet.
pub(super) struct Answered(oneshot::Receiver<Answer>);

impl Answered {
    /// Waits for the answer to the unit.
    pub(super) async fn get(self) -> Answer {
        self.0.await.unwrap_or_else(|_| Err(StoreError::Broken("the task that sends batches ended".into())))
    }
}

async fn work(sender: Sender, mut incoming: mpsc::UnboundedReceiver<Vec<Waiting>>) {
    let mut queue: VecDeque<Waiting> = VecDeque::new();
    let mut limits = Limits::default();
    let mut in_flight: FuturesUnordered<BoxFuture<'_, Sent>> = FuturesUnordered::new();
    loop {
        while in_flight.len() < IN_FLIGHT_MAX && !queue.is_empty() {
            let mut batch = take_batch(&mut queue, |waiting| &waiting.unit, limits);
            batch.retain(|waiting| !waiting.answer.is_closed());
            if !batch.is_empty() {
                debug!(batch = batch.len(), waiting = queue.len(), "sending a batch");
                in_flight.push(sender.send(batch));
            }
        }
        tokio::select! {
            biased;
            Some(sent) = in_flight.next(), if !in_flight.is_empty() => {
                // Larger batches may have been in flight when the server rejected an earlier one.
                if let Some(lower) = sent.lower.filter(|lower| lower.units < limits.units) {
                    warn!(batch = lower.units, "the server accepts only smaller transactions; batch size lowered");
                    limits = lower;
                }
            }
            waiting = incoming.recv() => match waiting {
                Some(waiting) => queue.extend(waiting),
                None => break,
            },
        }
    }
    while in_flight.next().await.is_some() {}
}

/// The result of sending a batch.
struct Sent {
    /// The server accepted the whole batch (a compare of a unit may have failed).
    taken: bool,
    /// A lower limit that worked.
    lower: Option<Limits>,
}

struct Sender {
    store: Store,
    fence: Option<Fence>,
}

impl Sender {
    /// Sends a batch and answers every caller in it.
    fn send(&self, batch: Vec<Waiting>) -> BoxFuture<'_, Sent> {
        async move {
            let txn = if let [one] = &batch[..] { self.flat(&one.unit) } else { self.nested(batch.iter().map(|w| &w.unit)) };
            match self.store.txn(txn).await {
                Ok(response) => Sent { taken: self.answer(batch, response), lower: None },
                Err(error) if batch.len() > 1 && self.may_pass_when_halved(&error) => self.halve(batch, &error).await,
                Err(error) => {
                    batch.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(error.clone()))));
                    Sent { taken: false, lower: None }
                }
            }
        }
        .boxed()
    }

    /// Sends both halves, one after the other. The lower limit is remembered only if both pass: one bad unit (an
    /// unknown lease, a giant value) must not shrink the batches of all others.
    async fn halve(&self, mut batch: Vec<Waiting>, error: &StoreError) -> Sent {
        let units = batch.len();
        let second = batch.split_off(units / 2);
        let (first, second) = (self.send(batch).await, self.send(second).await);
        let taken = first.taken && second.taken;
        let about_size = matches!(error, StoreError::TooManyOps | StoreError::TooLarge | StoreError::Other(_));
        let halves = [first.lower, second.lower].iter().flatten().map(|limits| limits.units).min().unwrap_or((units / 2).max(1));
        Sent { taken, lower: (taken && about_size).then(|| Limits { units: halves, ..Limits::default() }) }
    }

    /// Whether the same units may pass in smaller requests. A proxy or server that rejects nesting does so in its own
    /// words.
    fn may_pass_when_halved(&self, error: &StoreError) -> bool {
        match error {
            StoreError::TooManyOps | StoreError::TooLarge | StoreError::NoLease => true,
            // All units behind one fence belong to one role, which may write either all of them or none.
            StoreError::Refused(_) => self.fence.is_none(),
            StoreError::Other(words) => {
                let words = words.to_lowercase();
                ["nest", "invalid argument", "duplicate key", "unimplemented"].iter().any(|word| words.contains(word))
            }
            _ => false,
        }
    }

    /// Answers every caller in a batch that the server accepted. Returns whether each unit got a usable answer.
    fn answer(&self, batch: Vec<Waiting>, response: TxnResponse) -> bool {
        let TxnResponse { header, succeeded, results } = response;
        let answers: Vec<Answer> = if batch.len() == 1 {
            vec![self.unfenced(TxnResponse { header, succeeded, results })]
        } else if succeeded {
            let whole = |result| match result {
                OpResult::Txn(nested) => Ok(Some(TxnResponse { header, ..nested })),
                _ => Err(StoreError::Other("a nested answer has the wrong kind".into())),
            };
            results.into_iter().map(whole).collect()
        } else {
            batch.iter().map(|_| Ok(None)).collect()
        };
        let mut taken = true;
        let mut answers = answers.into_iter();
        for waiting in batch {
            let answer = answers.next().unwrap_or_else(|| Err(StoreError::Other("a nested answer is missing".into())));
            taken &= matches!(answer, Ok(Some(_)));
            let _ = waiting.answer.send(answer);
        }
        taken
    }

    fn nested<'a>(&self, units: impl Iterator<Item = &'a Unit>) -> Txn {
        let then = units.map(|unit| Op::Txn(unit.clone().into())).collect();
        Txn { compares: self.fence.iter().map(Fence::compare).collect(), then, otherwise: vec![] }
    }

    /// One unit without nesting; the else-branch also reads the leader key, which shows whether the unit or the
    /// election was lost.
    fn flat(&self, unit: &Unit) -> Txn {
        let mut txn = Txn::from(unit.clone());
        if let Some(fence) = &self.fence {
            txn.compares.insert(0, fence.compare());
            txn.otherwise.insert(0, Op::get(fence.key.clone()));
        }
        txn
    }

    /// Turns the answer to a flat transaction into the answer to the unit, and tells a failed fence from a failed unit.
    fn unfenced(&self, mut response: TxnResponse) -> Answer {
        let Some(fence) = self.fence.as_ref().filter(|_| !response.succeeded) else { return Ok(Some(response)) };
        let leader = if response.results.is_empty() { None } else { Some(response.results.remove(0)) };
        match leader {
            Some(OpResult::Range(leader)) => {
                let holds = leader.kvs.first().is_some_and(|kv| kv.create_revision == fence.created);
                Ok(holds.then_some(response))
            }
            _ => Err(StoreError::Other("the answer of a failed compare is missing".into())),
        }
    }
}
