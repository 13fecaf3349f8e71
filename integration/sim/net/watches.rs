//! The watch API of a member: one stream of a client, any number of watches on it. The watches themselves are the model's; what
//! they say crosses over from its host, and waits here while the member has no leader.

use std::collections::BTreeMap;
use std::time::Duration;

use enlist::model::names::Revision;
use enlist::store::api::{Header, StoreError, Watch, WatchMessage, WatchRequest};
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::member::{Member, peer, token};

/// How often a stream looks whether its member still has a leader.
const LOOK: Duration = Duration::from_millis(200);

/// A watch's number, and what it says; an error = the server broke it.
type Said = (i64, Result<WatchMessage, StoreError>);

/// One stream, at its member.
struct Stream {
    member: Member,
    client: String,
    token: Option<String>,
    requests: Streaming<PbWatchRequest>,
    /// What the watches say.
    said: (UnboundedSender<Said>, UnboundedReceiver<Said>),
    /// To ask a watch for progress; dropped = it is given up.
    asks: BTreeMap<i64, UnboundedSender<()>>,
    next: i64,
    ended: bool,
}

#[tonic::async_trait]
impl PbWatchService for Member {
    type WatchStream = BoxStream<'static, Result<PbWatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (client, token) = (peer(&request), token(request.metadata()));
        let (said, asks) = (mpsc::unbounded_channel(), BTreeMap::new());
        let (member, requests) = (self.clone(), request.into_inner());
        let stream = Stream { member, client, token, requests, said, asks, next: 0, ended: false };
        let responses = futures::stream::unfold(stream, |mut stream| async move {
            let response = stream.next().await?;
            stream.ended = response.is_err();
            Some((response, stream))
        });
        Ok(Response::new(responses.boxed()))
    }
}

impl Stream {
    /// What is said to the client next; `None` = it has gone.
    async fn next(&mut self) -> Option<Result<PbWatchResponse, Status>> {
        if self.ended {
            return None;
        }
        loop {
            let serves = self.member.cluster.serves(self.member.number);
            tokio::select! {
                biased;
                request = self.requests.message() => {
                    if let Some(refused) = self.take(request.ok().flatten()?) {
                        return Some(Ok(refused));
                    }
                }
                Some((number, message)) = self.said.1.recv(), if serves => return Some(self.say(number, message)),
                () = tokio::time::sleep(LOOK) => {
                    if let Err(no_leader) = self.member.cluster.ends_streams(self.member.number) {
                        return Some(Err(no_leader));
                    }
                }
            }
        }
    }

    /// Does what the client asks for. Answers what is said of it at once.
    fn take(&mut self, request: PbWatchRequest) -> Option<PbWatchResponse> {
        match request.request_union? {
            PbWatchRequestUnion::CreateRequest(wanted) => {
                let (cluster, number) = (&self.member.cluster, self.next);
                if let Err(cancel_reason) = cluster.admit_watch(self.member.number, self.token.as_deref()) {
                    let header = self.member.header(Header::default());
                    let refused = PbWatchResponse {
                        header,
                        watch_id: -1,
                        created: true,
                        canceled: true,
                        cancel_reason,
                        ..Default::default()
                    };
                    return Some(refused);
                }
                self.next += 1;
                let request = WatchRequest {
                    range: convert::key_range(wanted.key, wanted.range_end),
                    start: Revision(wanted.start_revision),
                    beside: false,
                };
                let (ask, asked) = mpsc::unbounded_channel();
                self.asks.insert(number, ask);
                let said = self.said.0.clone();
                cluster.spawn_beside_model(|store| {
                    async move {
                        match store.watch(request).await {
                            Ok(watch) => pass_on(number, watch, asked, said).await,
                            // The client has gone.
                            Err(error) => drop(said.send((number, Err(error)))),
                        }
                    }
                    .boxed()
                });
            }
            PbWatchRequestUnion::CancelRequest(canceled) => drop(self.asks.remove(&canceled.watch_id)),
            // Its answer comes on the same way as events, after those that are owed.
            PbWatchRequestUnion::ProgressRequest(_) => {
                // A watch that has ended has nothing to say.
                self.asks.values().for_each(|ask| ask.send(()).unwrap_or_default());
            }
        }
        None
    }

    fn say(&self, watch_id: i64, message: Result<WatchMessage, StoreError>) -> Result<PbWatchResponse, Status> {
        let (member, log) = (self.member.cluster.host(self.member.number), self.member.cluster.log());
        log.line(format_args!("{member} watch {} {message:?}", self.client));
        let with = |header| PbWatchResponse { header: self.member.header(header), watch_id, ..Default::default() };
        Ok(match message {
            Ok(WatchMessage::Created(header)) => PbWatchResponse { created: true, ..with(header) },
            Ok(WatchMessage::Events { header, events, fragment }) => {
                PbWatchResponse { events: events.into_iter().map(convert::event).collect(), fragment, ..with(header) }
            }
            Ok(WatchMessage::Progress(header)) => PbWatchResponse { watch_id: -1, ..with(header) },
            Ok(WatchMessage::Canceled { reason, compacted }) => {
                self.member.cluster.network().count(|effects| effects.compacted += 1);
                // etcd leaves the revision out of this one.
                PbWatchResponse {
                    canceled: true,
                    cancel_reason: reason,
                    compact_revision: compacted.0,
                    ..with(Header::default())
                }
            }
            Err(error) => {
                self.member.cluster.network().count(|effects| effects.watches_broken += 1);
                return Err(Status::unavailable(error.to_string()));
            }
        })
    }
}

/// On the model's host: tells what a watch says until nobody listens.
async fn pass_on(number: i64, mut watch: Box<dyn Watch>, mut asked: UnboundedReceiver<()>, said: UnboundedSender<Said>) {
    loop {
        let message = tokio::select! {
            biased;
            ask = asked.recv() => match ask {
                Some(()) => {
                    watch.request_progress().await;
                    continue;
                }
                None => return,
            },
            message = watch.next() => message,
        };
        let Some(message) = message else { return };
        if said.send((number, message)).is_err() {
            return;
        }
    }
}
