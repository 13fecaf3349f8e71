//! One watch, as a rule on one connection of its own.
//!
//! Of its own, because streams on one connection share a flow-control window: a watcher that reads slowly would hold up other
//! watches and plain reads for ever. So a slow reader hurts only itself, and memory stays bounded. Dropping the watch drops the
//! connection, which cancels it at the server. A watch of few events that is always read at once may share the connection of the
//! calls: an agent's, so that a fleet costs etcd one connection a node.

use std::collections::VecDeque;
use std::sync::Arc;

use etcd_client::proto::{PbEvent, PbWatchResponse};
use etcd_client::{Client, WatchOptions, WatchRequestSender, WatchResponseStream};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::backend::DECODED_BYTES_MAX;
use super::convert;
use super::error::{Failure, classify, is_watch_refusal};
use super::pool::Pool;
use super::ring::Spot;
use super::turns::Kind;
use crate::model::names::Revision;
use crate::store::api::{Event, Key, StoreError, Watch, WatchMessage, WatchRequest};

struct EtcdWatch {
    spot: Spot,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// What was already received.
    ready: VecDeque<WatchMessage>,
    ended: bool,
    /// Keeps the connection.
    _client: Arc<Client>,
}

/// Opens a watch and waits until the server has taken it on.
pub(super) async fn open(pool: Arc<Pool>, request: WatchRequest) -> Result<Box<dyn Watch>, StoreError> {
    let create = |client, endpoint| create(client, endpoint, request.clone());
    let opened = if request.beside { pool.call_shared(Kind::Read, create).await? } else { pool.call_alone(create).await? };
    let (Opened { requests, responses, ready, client }, spot) = opened;
    Ok(Box::new(EtcdWatch { spot, requests, responses, ready, ended: false, _client: client }))
}

struct Opened {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    ready: VecDeque<WatchMessage>,
    client: Arc<Client>,
}

async fn create(client: Arc<Client>, endpoint: Arc<str>, request: WatchRequest) -> Result<Opened, Failure> {
    let mut options = WatchOptions::new().with_start_revision(request.start.0).with_fragment();
    if let Some(end) = &request.range.end {
        options = options.with_range(convert::bytes(end));
    }
    let mut watches = client.watch_client().max_decoding_message_size(DECODED_BYTES_MAX);
    let fault = |error| classify(error, &endpoint);
    let stream = watches.watch(convert::bytes(&request.range.start), Some(options)).await.map_err(fault)?;
    let (requests, mut responses) = stream.split();
    let created = responses.message().await.map_err(fault)?;
    let created = created.ok_or_else(|| Failure::not_connected(&endpoint, "the stream ended at once"))?.0;
    // A token that ran out shows only in here, not as an error of the call. The pool then comes again with a new client, which
    // has a new token; a permission that is really missing ends at that second try.
    if created.created && created.canceled && is_watch_refusal(&created.cancel_reason) {
        return Err(Failure::token(created.cancel_reason));
    }
    let ready = translate(created).map_err(Failure::request)?;
    Ok(Opened { requests, responses, ready, client })
}

/// One response → the messages it stands for, in order.
fn translate(response: PbWatchResponse) -> Result<VecDeque<WatchMessage>, StoreError> {
    let mut messages = VecDeque::new();
    let header = convert::header(response.header);
    if response.created {
        messages.push_back(WatchMessage::Created(header));
    }
    if response.canceled {
        let compacted = Revision(response.compact_revision);
        messages.push_back(WatchMessage::Canceled { reason: response.cancel_reason, compacted });
    } else if !response.events.is_empty() || response.fragment {
        let events = response.events.into_iter().map(event).collect::<Result<_, _>>()?;
        messages.push_back(WatchMessage::Events { header, events, fragment: response.fragment });
    } else if !response.created {
        messages.push_back(WatchMessage::Progress(header));
    }
    Ok(messages)
}

/// The crate's own accessor panics at a type it does not know.
fn event(event: PbEvent) -> Result<Event, StoreError> {
    let kv = event.kv.ok_or_else(|| StoreError::Other("a watch event without a key".to_owned()))?;
    match event.r#type {
        0 => Ok(Event::Put(convert::key_value(kv))),
        1 => Ok(Event::Delete { key: Key::from(kv.key), mod_revision: Revision(kv.mod_revision) }),
        other => Err(StoreError::Other(format!("a watch event of the unknown type {other}"))),
    }
}

impl EtcdWatch {
    async fn next_message(&mut self) -> Option<Result<WatchMessage, StoreError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            let message = tokio::select! {
                biased;
                message = self.responses.message() => message,
                () = self.spot.ring.retired.cancelled() => {
                    self.ended = true;
                    return Some(Err(StoreError::Broken("the settings of the store changed".to_owned())));
                }
            };
            match message {
                Ok(Some(response)) => match translate(response.0) {
                    Ok(messages) => self.ready = messages,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                },
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    let failure = classify(error, self.spot.name());
                    if failure.endpoint {
                        self.spot.bad();
                    }
                    return Some(Err(failure.error));
                }
            }
        }
    }
}

impl Watch for EtcdWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        self.next_message().boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        async {
            // Best effort, so without waiting: the queue is only full when the connection is stuck.
            let _ = self.requests.request_progress().now_or_never();
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_event_is_an_error_not_a_panic() {
        let unknown = PbEvent { r#type: 7, kv: Some(Default::default()), prev_kv: None };
        assert!(event(unknown).is_err());
        assert!(event(PbEvent { r#type: 0, kv: None, prev_kv: None }).is_err());
    }

    #[test]
    fn created_and_canceled_in_one_response_are_two_messages() {
        let response = PbWatchResponse { created: true, canceled: true, cancel_reason: "x".into(), ..Default::default() };
        assert_eq!(translate(response).map(|messages| messages.len()), Ok(2));
    }
}
