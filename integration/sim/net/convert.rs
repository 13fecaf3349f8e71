//! etcd's messages on the wire ↔ values of the store's `api`, seen from the server. The adapter has the other direction; neither
//! may know of the other, or a fault in both would cancel out.

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{
    Compare, Event, Key, KeyRange, KeyValue, LeaseId, Op, OpResult, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse,
};
use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbDeleteResponse, PbEvent, PbKeyValue, PbPutResponse, PbRangeRequest, PbRangeResponse,
    PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tonic::{Code, Status};

/// A message that the roles and agents never send: the model cannot do it.
fn unknown(what: &str) -> Status {
    Status::unimplemented(format!("the model has no {what}"))
}

pub(super) fn key_range(key: Vec<u8>, end: Vec<u8>) -> KeyRange {
    KeyRange { start: Key::from(key), end: Some(end).filter(|end| !end.is_empty()).map(Key::from) }
}

pub(super) fn range(request: PbRangeRequest) -> RangeRequest {
    RangeRequest {
        range: key_range(request.key, request.range_end),
        revision: Some(Revision(request.revision)).filter(|revision| revision.0 > 0),
        limit: request.limit,
        keys_only: request.keys_only,
        count_only: request.count_only,
    }
}

pub(super) fn txn(request: PbTxnRequest) -> Result<Txn, Status> {
    Ok(Txn {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        then: request.success.into_iter().map(op).collect::<Result<_, _>>()?,
        otherwise: request.failure.into_iter().map(op).collect::<Result<_, _>>()?,
    })
}

fn compare(compare: PbCompare) -> Result<Compare, Status> {
    // 0 = "equal".
    if compare.result != 0 {
        return Err(unknown("compare but for equality"));
    }
    let range = key_range(compare.key, compare.range_end);
    let target = PbCompareTarget::try_from(compare.target).map_err(|error| Status::invalid_argument(error.to_string()))?;
    match (target, compare.target_union) {
        (PbCompareTarget::Mod, Some(PbTargetUnion::ModRevision(at))) if range.end.is_none() => {
            Ok(Compare::Modified(range.start, Revision(at)))
        }
        (PbCompareTarget::Create, Some(PbTargetUnion::CreateRevision(at))) if range.end.is_none() => {
            Ok(Compare::Created(range.start, Revision(at)))
        }
        (PbCompareTarget::Value, Some(PbTargetUnion::Value(value))) if range.end.is_none() => {
            Ok(Compare::Value(range.start, value.into()))
        }
        (PbCompareTarget::Version, Some(PbTargetUnion::Version(0))) => Ok(Compare::Empty(range)),
        other => Err(unknown(&format!("compare {other:?}"))),
    }
}

fn op(op: PbTxnRequestOp) -> Result<Op, Status> {
    Ok(match op.request.ok_or_else(|| unknown("empty operation"))? {
        PbTxnOpRequest::RequestRange(request) => Op::Get(range(request)),
        PbTxnOpRequest::RequestPut(put) => {
            Op::Put { key: Key::from(put.key), value: Bytes::from(put.value), lease: LeaseId(put.lease) }
        }
        PbTxnOpRequest::RequestDeleteRange(request) => Op::Delete(key_range(request.key, request.range_end)),
        PbTxnOpRequest::RequestTxn(inner) => Op::Txn(txn(inner)?),
    })
}

fn key_value(kv: KeyValue) -> PbKeyValue {
    PbKeyValue {
        key: kv.key.as_bytes().to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        lease: kv.lease.0,
    }
}

/// Answers inside a transaction have a header with a revision and nothing else.
fn inner_header(revision: Revision) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { revision: revision.0, ..Default::default() })
}

pub(super) fn range_response(response: RangeResponse, header: Option<PbResponseHeader>) -> PbRangeResponse {
    let kvs = response.kvs.into_iter().map(key_value).collect();
    PbRangeResponse { header, kvs, more: response.more, count: response.count }
}

pub(super) fn txn_response(response: TxnResponse, header: Option<PbResponseHeader>) -> PbTxnResponse {
    let revision = response.header.revision;
    let responses = response.results.into_iter().map(|result| op_response(result, revision)).collect();
    PbTxnResponse { header, succeeded: response.succeeded, responses }
}

fn op_response(result: OpResult, revision: Revision) -> PbResponseOp {
    let header = inner_header(revision);
    let response = match result {
        OpResult::Put => PbTxnOpResponse::ResponsePut(PbPutResponse { header, prev_kv: None }),
        OpResult::Deleted(deleted) => {
            PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse { header, deleted, prev_kvs: Vec::new() })
        }
        OpResult::Range(response) => {
            let header = inner_header(response.header.revision);
            PbTxnOpResponse::ResponseRange(range_response(response, header))
        }
        OpResult::Txn(inner) => PbTxnOpResponse::ResponseTxn(txn_response(inner, header)),
    };
    PbResponseOp { response: Some(response) }
}

pub(super) fn event(event: Event) -> PbEvent {
    match event {
        Event::Put(kv) => PbEvent { r#type: 0, kv: Some(key_value(kv)), prev_kv: None },
        Event::Delete { key, mod_revision } => {
            let kv = PbKeyValue { key: key.as_bytes().to_vec(), mod_revision: mod_revision.0, ..Default::default() };
            PbEvent { r#type: 1, kv: Some(kv), prev_kv: None }
        }
    }
}

/// In etcd's words (`api/v3rpc/rpctypes/error.go`).
pub(super) fn status(error: StoreError) -> Status {
    let (code, words) = match error {
        StoreError::Compacted(_) => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted".to_owned()),
        StoreError::Future => (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned()),
        StoreError::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large".to_owned()),
        StoreError::TooManyOps => (Code::InvalidArgument, "etcdserver: too many operations in txn request".to_owned()),
        StoreError::NoLease => (Code::NotFound, "etcdserver: requested lease not found".to_owned()),
        StoreError::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned()),
        StoreError::Other(words) => (Code::InvalidArgument, format!("etcdserver: {words}")),
        // The model never says these: they are what clients see of connections and members.
        other => (Code::Internal, other.to_string()),
    };
    Status::new(code, words)
}
