//! One member: etcd's API over gRPC, in front of its [`Cluster`]. It decides nothing and keeps nothing.

use std::fmt::Debug;

use enlist::store::api::{Header, LeaseId, StoreError};
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvServer, PbKvService, PbLeaseGrantRequest,
    PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest, PbLeaseLeasesResponse,
    PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseServer, PbLeaseService, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse, PbMaintenanceServer, PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbRangeStreamResponse, PbResponseHeader, PbTxnRequest, PbTxnResponse, PbWatchServer,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use turmoil::net::TcpListener;

use super::cluster::Cluster;
use super::convert;
use super::login::Login;
use super::network::{MemberSide, PORT, Peer};

/// How long a member takes to start: meanwhile it refuses connections.
const START: std::time::Duration = std::time::Duration::from_millis(400);

/// Clones are the same member.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) cluster: Cluster,
    pub(super) number: usize,
}

/// What a call answers.
type Answer<T> = Result<Response<T>, Status>;

/// The token that came with a call.
pub(super) fn token(metadata: &MetadataMap) -> Option<String> {
    metadata.get("token").and_then(|token| token.to_str().ok()).map(str::to_owned)
}

/// The host that a call came from.
pub(super) fn peer<T>(request: &Request<T>) -> String {
    request.extensions().get::<Peer>().map(|peer| peer.0.clone()).unwrap_or_default()
}

impl Member {
    /// Starts, and serves until the host crashes.
    pub(super) async fn serve(self) -> turmoil::Result {
        match self.cluster.alone(self.number) {
            Some(cluster) => Member { cluster, number: 0 }.serve_its_cluster().await,
            None => self.serve_its_cluster().await,
        }
    }

    async fn serve_its_cluster(self) -> turmoil::Result {
        tokio::time::sleep(START).await;
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        self.cluster.started(self.number);
        let (network, host) = (self.cluster.network().clone(), self.cluster.host(self.number));
        let incoming = futures::stream::unfold(listener, |listener| async move { Some((listener.accept().await, listener)) });
        let incoming = incoming.map(|accepted| accepted.map(|(stream, _)| MemberSide::new(stream, network.clone(), &host)));
        Server::builder()
            .add_service(PbKvServer::new(self.clone()))
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self.clone()))
            .add_service(Login(self))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    }

    pub(super) fn header(&self, header: Header) -> Option<PbResponseHeader> {
        let member_id = self.number as u64 + 1;
        Some(PbResponseHeader { cluster_id: header.cluster_id, member_id, revision: header.revision.0, raft_term: 1 })
    }

    /// Lets a call in, has the model do it, and writes both down.
    async fn call<R, T, F>(
        &self,
        request: &Request<R>,
        name: &str,
        work: (bool, impl FnOnce(enlist::Store) -> F),
    ) -> Result<T, Status>
    where
        T: Debug + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (writes, work) = work;
        let answer = match self.cluster.admit(self.number, token(request.metadata()).as_deref()) {
            Ok(()) => self.cluster.ask(self.number, writes, work).await,
            Err(refused) => Err(refused),
        };
        let said = match &answer {
            Ok(answer) => format!("{answer:?}"),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        };
        self.cluster.log().line(format_args!("{} {name} {} {said}", self.cluster.host(self.number), peer(request)));
        answer
    }
}

fn not_served<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{what} is not simulated")))
}

#[tonic::async_trait]
impl PbKvService for Member {
    type RangeStreamStream = BoxStream<'static, Result<PbRangeStreamResponse, Status>>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Answer<PbRangeResponse> {
        let wanted = convert::range(request.get_ref().clone());
        let work = |store: enlist::Store| async move { store.range(wanted).await };
        let response = self.call(&request, "range", (false, work)).await?;
        let header = self.header(response.header);
        Ok(Response::new(convert::range_response(response, header)))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Answer<PbTxnResponse> {
        let txn = convert::txn(request.get_ref().clone())?;
        let (writes, client, ledger) = (txn.writes(), peer(&request), self.cluster.ledger());
        if writes {
            ledger.sent(&client, &txn);
        }
        let proposed = txn.clone();
        let work = |store: enlist::Store| async move { store.txn(proposed).await };
        let response = self.call(&request, "txn", (writes, work)).await.inspect_err(|refused| {
            if writes && had_no_effect(refused) {
                ledger.turned_away(&client, &txn);
            }
        })?;
        let header = self.header(response.header);
        Ok(Response::new(convert::txn_response(response, header)))
    }

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Answer<Self::RangeStreamStream> {
        not_served("a stream of a range")
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Answer<PbPutResponse> {
        not_served("a put without a transaction")
    }

    async fn delete_range(&self, _: Request<PbDeleteRequest>) -> Answer<PbDeleteResponse> {
        not_served("a delete without a transaction")
    }

    async fn compact(&self, _: Request<PbCompactionRequest>) -> Answer<PbCompactionResponse> {
        not_served("a compaction")
    }
}

/// Turned away at the door: such a write may be sent again.
fn had_no_effect(refused: &Status) -> bool {
    ["no leader", "invalid auth token", "revision of auth store is old"].iter().any(|words| refused.message().contains(words))
}

#[tonic::async_trait]
impl PbLeaseService for Member {
    type LeaseKeepAliveStream = BoxStream<'static, Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<PbLeaseGrantRequest>) -> Answer<PbLeaseGrantResponse> {
        let ttl_s = u64::try_from(request.get_ref().ttl).unwrap_or_default();
        let work = move |store: enlist::Store| async move { store.grant(ttl_s).await };
        let (id, ttl_s) = self.call(&request, "grant", (true, work)).await?;
        let header = self.header(Header::default());
        Ok(Response::new(PbLeaseGrantResponse { header, id: id.0, ttl: i64::try_from(ttl_s).unwrap(), error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<PbLeaseRevokeRequest>) -> Answer<PbLeaseRevokeResponse> {
        let lease = LeaseId(request.get_ref().id);
        let work = move |store: enlist::Store| async move { store.revoke(lease).await };
        self.call(&request, "revoke", (true, work)).await?;
        Ok(Response::new(PbLeaseRevokeResponse { header: self.header(Header::default()) }))
    }

    async fn lease_time_to_live(&self, request: Request<PbLeaseTimeToLiveRequest>) -> Answer<PbLeaseTimeToLiveResponse> {
        let lease = LeaseId(request.get_ref().id);
        let work = move |store: enlist::Store| async move { store.time_to_live(lease).await };
        let (ttl, granted_ttl) = self.call(&request, "time to live", (false, work)).await?;
        let header = self.header(Header::default());
        Ok(Response::new(PbLeaseTimeToLiveResponse { header, id: lease.0, ttl, granted_ttl, keys: Vec::new() }))
    }

    async fn lease_keep_alive(&self, request: Request<Streaming<PbLeaseKeepAliveRequest>>) -> Answer<Self::LeaseKeepAliveStream> {
        let (member, host) = (self.clone(), peer(&request));
        let beats = futures::stream::unfold(Some((member, host, request.into_inner())), |state| async move {
            let (member, host, mut requests) = state?;
            // The client has gone, or its stream broke.
            let lease = LeaseId(requests.message().await.ok().flatten()?.id);
            let answer = member.beat(&host, lease).await;
            let next = answer.is_ok().then_some((member, host, requests));
            Some((answer, next))
        });
        Ok(Response::new(beats.boxed()))
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Answer<PbLeaseLeasesResponse> {
        not_served("a list of leases")
    }
}

impl Member {
    /// A keep-alive. It needs no token, as with etcd; it waits for a leader for as long as streams do.
    async fn beat(&self, client: &str, lease: LeaseId) -> Result<PbLeaseKeepAliveResponse, Status> {
        while !self.cluster.serves(self.number) {
            self.cluster.ends_streams(self.number)?;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let beat = move |store: enlist::Store| async move { store.keep_alive(lease).await?.beat().await };
        let ttl = self.cluster.ask(self.number, false, beat).await?;
        self.cluster.log().line(format_args!("{} beat {client} {lease:?} {ttl}", self.cluster.host(self.number)));
        Ok(PbLeaseKeepAliveResponse { header: self.header(Header::default()), id: lease.0, ttl })
    }
}
