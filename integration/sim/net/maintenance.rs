//! What a member says of itself, and all of the maintenance API that nobody here asks for.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest, PbDowngradeResponse,
    PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest,
    PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::member::Member;

/// Methods that answer that they are not simulated. Written out as `async_trait` would, which does not look into macros.
macro_rules! not_simulated {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        $(fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not simulated")) })
        })*
    };
}

#[tonic::async_trait]
impl PbMaintenanceService for Member {
    type SnapshotStream = BoxStream<'static, Result<PbSnapshotResponse, Status>>;

    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let info = self.cluster.ask(self.number, false, |store| async move { store.member().await }).await?;
        let leader = self.cluster.leader().map_or(0, |leader| leader as u64 + 1);
        let header = self.header(info.header);
        Ok(Response::new(PbStatusResponse { header, version: info.version, leader, ..Default::default() }))
    }

    not_simulated! {
        alarm(PbAlarmRequest) -> PbAlarmResponse;
        defragment(PbDefragmentRequest) -> PbDefragmentResponse;
        hash(PbHashRequest) -> PbHashResponse;
        hash_kv(PbHashKvRequest) -> PbHashKvResponse;
        snapshot(PbSnapshotRequest) -> Self::SnapshotStream;
        move_leader(PbMoveLeaderRequest) -> PbMoveLeaderResponse;
        downgrade(PbDowngradeRequest) -> PbDowngradeResponse;
    }
}
