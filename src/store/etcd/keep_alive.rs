//! Keep-alives: a few streams for all leases of a store, as with etcd's own client.
//!
//! A stream for each lease would cost etcd three goroutines and their buffers each: with 20,000 agents in one process a fifth of its
//! memory. On one stream etcd answers in the order of requests, one after another, so what is under way is a
//! queue: an answer is that of the oldest request, whoever still waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::error::classify;
use super::pool::Pool;
use super::ring::{SUSPECT_AFTER, Spot};
use super::turns::Kind;
use crate::store::api::{KeepAlive, LeaseId, StoreError};

/// A member that does not lead asks the leader for each, over HTTP: about a thousand a second and stream. With so many streams it
/// serves the leases of 20,000 agents even if each is as short as ten seconds.
const STREAMS: usize = 16;

/// The streams of a store. Each is opened when it is first needed, and again after an error, on another endpoint if need be.
pub(super) struct KeepAlives {
    pool: Arc<Pool>,
    streams: [tokio::sync::Mutex<Option<Stream>>; STREAMS],
}

impl std::fmt::Debug for KeepAlives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeepAlives").finish_non_exhaustive()
    }
}

struct Stream {
    keeper: LeaseKeeper,
    spot: Spot,
    queue: Queue,
    _reader: AbortOnDropHandle<()>,
}

/// Requests that are not answered yet, in the order in which they were sent.
#[derive(Clone, Default)]
struct Queue(Arc<Mutex<Requests>>);

#[derive(Default)]
struct Requests {
    waiting: VecDeque<Waiting>,
    /// Why no more will be answered.
    over: Option<StoreError>,
}

struct Waiting {
    lease: LeaseId,
    tell: oneshot::Sender<Result<i64, StoreError>>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    /// A request, which `send` sends: in the order of the queue, because nothing comes between.
    fn push(&self, lease: LeaseId, send: impl FnOnce()) -> Result<oneshot::Receiver<Result<i64, StoreError>>, StoreError> {
        let (tell, answer) = oneshot::channel();
        let mut requests = self.lock();
        if let Some(error) = &requests.over {
            return Err(error.clone());
        }
        requests.waiting.push_back(Waiting { lease, tell });
        send();
        Ok(answer)
    }

    /// An answer. Whether it is that of the oldest request: if it is not, nothing on this stream can be believed.
    fn answer(&self, lease: LeaseId, ttl: i64) -> bool {
        let Some(oldest) = self.lock().waiting.pop_front() else { return false };
        let is_its = oldest.lease == lease;
        // Whoever asked may have given up.
        let _ = oldest.tell.send(if is_its { Ok(ttl) } else { Err(out_of_order()) });
        is_its
    }

    /// No more answers come. The first reason counts.
    fn end(&self, error: StoreError) {
        let mut requests = self.lock();
        let waiting = std::mem::take(&mut requests.waiting);
        // What etcd said of one lease is no word on others.
        let others =
            if error == StoreError::NoLease { StoreError::Broken("etcd ended the keep-alives".into()) } else { error.clone() };
        requests.over.get_or_insert(others.clone());
        drop(requests);
        for (place, request) in waiting.into_iter().enumerate() {
            let _ = request.tell.send(Err(if place == 0 { error.clone() } else { others.clone() }));
        }
    }
}

fn out_of_order() -> StoreError {
    StoreError::Broken("a keep-alive was answered out of order".to_owned())
}

impl KeepAlives {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        KeepAlives { pool, streams: std::array::from_fn(|_| tokio::sync::Mutex::default()) }
    }

    async fn open(&self, lease: LeaseId) -> Result<Stream, StoreError> {
        let call = self.pool.call(Kind::Read, |client| {
            let mut client = client.lease_client();
            async move { client.keep_alive(lease.0).await }
        });
        let ((keeper, answers), spot) = call.await?;
        let queue = Queue::default();
        let reader = tokio::spawn(read(answers, queue.clone(), spot.clone()));
        Ok(Stream { keeper, spot, queue, _reader: AbortOnDropHandle::new(reader) })
    }

    /// Sends a request; `None` = there is no such lease.
    async fn send(&self, lease: LeaseId) -> Result<Option<Sent>, StoreError> {
        // Invariant: the remainder is below their number.
        let mut slot = self.streams[lease.0.unsigned_abs() as usize % STREAMS].lock().await;
        let stream = match &*slot {
            Some(stream) if !stream.queue.is_over() && !stream.spot.ring.retired.is_cancelled() => stream,
            // In a box: it is rarely opened, and the room that takes would be in every beat.
            _ => match Box::pin(self.open(lease)).await {
                Ok(stream) => slot.insert(stream),
                Err(StoreError::NoLease) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        // Held only while it is opened: a thousand that come at once must not have to be woken one after another.
        let (sender, spot, queue) = (stream.keeper.sender.clone(), stream.spot.clone(), stream.queue.clone());
        drop(slot);
        let Ok(place) = sender.reserve().await else {
            let error = StoreError::Broken("the keep-alive stream ended".to_owned());
            queue.end(error.clone());
            return Err(error);
        };
        let mut request = blank(&place);
        request.id = lease.0;
        let answer = queue.push(lease, || place.send(request))?;
        Ok(Some(Sent { answer: Some(answer), spot, queue, at: Instant::now() }))
    }

    async fn beat(&self, lease: LeaseId) -> Result<i64, StoreError> {
        let limit = self.pool.ring().settings.command_timeout;
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let sent = timeout(limit, self.send(lease)).await.map_err(|_| StoreError::Timeout { milliseconds })?;
        let Some(mut sent) = sent? else { return Ok(0) };
        match timeout(limit, sent.answer()).await {
            Ok(Err(StoreError::NoLease)) => Ok(0),
            Ok(answer) => answer,
            // Dropping it says the rest.
            Err(_) => Err(StoreError::Timeout { milliseconds }),
        }
    }
}

/// A request under way. Dropped unanswered, after a while, it is a fault of the endpoint and the end of the stream: who limits a
/// beat more tightly than the pool does (a lease by its TTL) would else go back to the same dead stream for ever.
struct Sent {
    answer: Option<oneshot::Receiver<Result<i64, StoreError>>>,
    spot: Spot,
    queue: Queue,
    at: Instant,
}

impl Sent {
    async fn answer(&mut self) -> Result<i64, StoreError> {
        let Some(answer) = &mut self.answer else { return Err(out_of_order()) };
        let told = answer.await.unwrap_or_else(|_| Err(StoreError::Broken("the keep-alives ended".to_owned())));
        self.answer = None;
        told
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if self.answer.is_some() && self.at.elapsed() >= SUSPECT_AFTER {
            self.spot.bad();
            self.queue.end(StoreError::Broken("etcd does not answer keep-alives".to_owned()));
        }
    }
}

/// A message for a place in a queue: the client crate does not export its type.
fn blank<T: Default>(_: &mpsc::Permit<'_, T>) -> T {
    T::default()
}

/// Hands answers out, until the stream ends.
async fn read(mut answers: LeaseKeepAliveStream, queue: Queue, spot: Spot) {
    let error = loop {
        match answers.message().await {
            Ok(Some(answer)) if queue.answer(LeaseId(answer.id()), answer.ttl()) => spot.good(),
            Ok(Some(_)) => break out_of_order(),
            Ok(None) => break StoreError::Broken("the keep-alive stream ended".to_owned()),
            Err(error) => {
                let failure = classify(error, spot.name());
                if failure.endpoint {
                    spot.bad();
                }
                break failure.error;
            }
        }
    };
    queue.end(error);
}

/// The keep-alive of one lease.
pub(super) struct EtcdKeepAlive {
    all: Arc<KeepAlives>,
    lease: LeaseId,
}

impl EtcdKeepAlive {
    pub(super) fn new(all: Arc<KeepAlives>, lease: LeaseId) -> Self {
        EtcdKeepAlive { all, lease }
    }
}

impl KeepAlive for EtcdKeepAlive {
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.all.beat(self.lease).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const ENDED: StoreError = StoreError::Timeout { milliseconds: 7 };

    #[test]
    fn an_answer_is_that_of_the_oldest_request_whoever_still_waits() {
        let queue = Queue::default();
        let given_up = queue.push(LeaseId(1), || {}).unwrap();
        drop(given_up);
        let (mut again, mut other) = (queue.push(LeaseId(1), || {}).unwrap(), queue.push(LeaseId(2), || {}).unwrap());
        assert!(queue.answer(LeaseId(1), 60));
        assert!(again.try_recv().is_err(), "that was the answer to the beat that was given up");
        assert!(queue.answer(LeaseId(1), 59) && queue.answer(LeaseId(2), 0));
        assert_eq!((again.try_recv().unwrap(), other.try_recv().unwrap()), (Ok(59), Ok(0)));
        assert!(!queue.answer(LeaseId(2), 1), "nobody asked");
    }

    #[test]
    fn an_answer_that_is_not_the_oldest_ones_is_not_believed() {
        let queue = Queue::default();
        let mut first = queue.push(LeaseId(1), || {}).unwrap();
        let _second = queue.push(LeaseId(2), || {}).unwrap();
        assert!(!queue.answer(LeaseId(2), 60));
        assert_eq!(first.try_recv().unwrap(), Err(out_of_order()));
    }

    #[test]
    fn an_end_is_told_to_all_and_to_those_who_come_later() {
        let queue = Queue::default();
        let (mut first, mut second) = (queue.push(LeaseId(1), || {}).unwrap(), queue.push(LeaseId(2), || {}).unwrap());
        assert!(!queue.is_over());
        queue.end(ENDED);
        assert_eq!((first.try_recv().unwrap(), second.try_recv().unwrap()), (Err(ENDED), Err(ENDED)));
        assert!(queue.is_over());
        assert_eq!(queue.push(LeaseId(3), || {}).unwrap_err(), ENDED);
        queue.end(out_of_order());
        assert_eq!(queue.push(LeaseId(3), || {}).unwrap_err(), ENDED, "the first reason counts");
    }

    #[test]
    fn that_one_lease_is_gone_is_no_word_on_others() {
        let queue = Queue::default();
        let (mut first, mut second) = (queue.push(LeaseId(1), || {}).unwrap(), queue.push(LeaseId(2), || {}).unwrap());
        queue.end(StoreError::NoLease);
        assert_eq!(first.try_recv().unwrap(), Err(StoreError::NoLease));
        assert_ne!(second.try_recv().unwrap(), Err(StoreError::NoLease));
        assert_ne!(queue.push(LeaseId(3), || {}).unwrap_err(), StoreError::NoLease);
    }
}
