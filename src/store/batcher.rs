//! Many small all-or-nothing writes, few requests.
//!
//! Units that wait while requests are in flight go together into one transaction, each as a *nested* transaction of its own:
//! one round trip, one raft entry, and a unit that loses disturbs no other. How a batch is put together is
//! [`crate::store::batch`]'s business (pure); this is the shell that sends it. It never sends a unit twice, except where the server
//! refused it, and none that nobody waits for any more.

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

/// What a unit would have been answered in a request of its own. `None` = the fence does not hold: nothing was written.
pub(super) type Answer = Result<Option<TxnResponse>, StoreError>;

/// A unit on its way, and who waits for it.
struct Waiting {
    unit: Unit,
    answer: oneshot::Sender<Answer>,
}

/// Collects while requests are in flight, sends at once when idle. Its queue is bounded by its callers, who wait for their answers.
/// A cheap handle; dropping the last one ends it.
#[derive(Debug, Clone)]
pub(super) struct Batcher {
    queue: mpsc::UnboundedSender<Vec<Waiting>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Batcher {
    /// One that writes only while `fence` holds, if there is one.
    pub(super) fn new(store: Store, fence: Option<Fence>) -> Self {
        let (queue, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(work(Sender { store, fence }, receiver).in_current_span());
        Batcher { queue, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Hands a unit over.
    pub(super) fn send(&self, unit: Unit) -> Answered {
        let (waiting, answered) = Waiting::new(unit);
        // If nobody takes it, its end says so.
        let _ = self.queue.send(vec![waiting]);
        answered
    }

    /// Hands units over, which go together as far as they fit; the answers are in their order.
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

/// A unit that is on its way. Dropping it takes it back if it was not sent yet.
pub(super) struct Answered(oneshot::Receiver<Answer>);

impl Answered {
    /// Its answer.
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
                debug!(batch = batch.len(), waiting = queue.len(), "a batch is sent");
                in_flight.push(sender.send(batch));
            }
        }
        tokio::select! {
            biased;
            Some(sent) = in_flight.next(), if !in_flight.is_empty() => {
                // Larger batches may still have been in flight when an earlier one taught us better.
                if let Some(lower) = sent.lower.filter(|lower| lower.units < limits.units) {
                    warn!(batch = lower.units, "the server takes smaller transactions only: the batch size was lowered");
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

/// What became of a batch.
struct Sent {
    /// The server took all of it (a unit may have lost its compares).
    taken: bool,
    /// A lower limit that was found to work.
    lower: Option<Limits>,
}

struct Sender {
    store: Store,
    fence: Option<Fence>,
}

impl Sender {
    /// Sends a batch and answers everybody in it.
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

    /// Both halves, one after the other. The lower limit is remembered only if both pass: one bad unit (an unknown lease, a
    /// giant value) must not shrink the batches of all others.
    async fn halve(&self, mut batch: Vec<Waiting>, error: &StoreError) -> Sent {
        let units = batch.len();
        let second = batch.split_off(units / 2);
        let (first, second) = (self.send(batch).await, self.send(second).await);
        let taken = first.taken && second.taken;
        let about_size = matches!(error, StoreError::TooManyOps | StoreError::TooLarge | StoreError::Other(_));
        let halves = [first.lower, second.lower].iter().flatten().map(|limits| limits.units).min().unwrap_or((units / 2).max(1));
        Sent { taken, lower: (taken && about_size).then(|| Limits { units: halves, ..Limits::default() }) }
    }

    /// Whether the same units in smaller requests may pass. A proxy or server that refuses nesting says so in words of its own.
    fn may_pass_when_halved(&self, error: &StoreError) -> bool {
        match error {
            StoreError::TooManyOps | StoreError::TooLarge | StoreError::NoLease => true,
            // Those behind one fence are one role's, which may write all of it or nothing.
            StoreError::Refused(_) => self.fence.is_none(),
            StoreError::Other(words) => {
                let words = words.to_lowercase();
                ["nest", "invalid argument", "duplicate key", "unimplemented"].iter().any(|word| words.contains(word))
            }
            _ => false,
        }
    }

    /// Answers everybody in a batch that the server took. Whether all of them got what they can use.
    fn answer(&self, batch: Vec<Waiting>, response: TxnResponse) -> bool {
        let TxnResponse { header, succeeded, results } = response;
        let answers: Vec<Answer> = if batch.len() == 1 {
            vec![self.unfenced(TxnResponse { header, succeeded, results })]
        } else if succeeded {
            let whole = |result| match result {
                OpResult::Txn(nested) => Ok(Some(TxnResponse { header, ..nested })),
                _ => Err(StoreError::Other("a nested answer is of another kind".into())),
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

    /// One unit without nesting; the else-branch reads the leader key too, to tell a lost unit from a lost election.
    fn flat(&self, unit: &Unit) -> Txn {
        let mut txn = Txn::from(unit.clone());
        if let Some(fence) = &self.fence {
            txn.compares.insert(0, fence.compare());
            txn.otherwise.insert(0, Op::get(fence.key.clone()));
        }
        txn
    }

    /// The answer to a flat transaction as the unit's own. If it failed: was it the fence, or the unit?
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
