//! Values of the client crate ↔ values of [`api`](crate::store::api). Nothing is decided here.

use bytes::Bytes;
use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseHeader, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{CompareOp, DeleteOptions, GetOptions, PutOptions, TxnOp};

use crate::model::names::Revision;
use crate::store::api::{
    Compare, Header, Key, KeyRange, KeyValue, LeaseId, Op, OpResult, RangeRequest, RangeResponse, Txn, TxnResponse,
};

pub(super) fn bytes(key: &Key) -> Vec<u8> {
    key.as_bytes().to_vec()
}

pub(super) fn get_options(request: &RangeRequest) -> GetOptions {
    let mut options = GetOptions::new().with_limit(request.limit);
    if let Some(end) = &request.range.end {
        options = options.with_range(bytes(end));
    }
    if let Some(revision) = request.revision {
        options = options.with_revision(revision.0);
    }
    if request.keys_only {
        options = options.with_keys_only();
    }
    if request.count_only {
        options = options.with_count_only();
    }
    options
}

pub(super) fn header(header: Option<PbResponseHeader>) -> Header {
    header.map_or_else(Header::default, |header| Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: Revision(header.revision),
    })
}

pub(super) fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: Key::from(kv.key),
        value: Bytes::from(kv.value),
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId(kv.lease),
    }
}

pub(super) fn range_response(response: PbRangeResponse) -> RangeResponse {
    RangeResponse {
        header: header(response.header),
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: response.count,
    }
}

pub(super) fn txn(txn: &Txn) -> etcd_client::Txn {
    etcd_client::Txn::new()
        .when(txn.compares.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.then.iter().map(op).collect::<Vec<_>>())
        .or_else(txn.otherwise.iter().map(op).collect::<Vec<_>>())
}

fn compare(compare: &Compare) -> etcd_client::Compare {
    match compare {
        Compare::Modified(key, revision) => etcd_client::Compare::mod_revision(bytes(key), CompareOp::Equal, revision.0),
        Compare::Created(key, revision) => etcd_client::Compare::create_revision(bytes(key), CompareOp::Equal, revision.0),
        Compare::Value(key, value) => etcd_client::Compare::value(bytes(key), CompareOp::Equal, value.to_vec()),
        // A compare over a range holds when it holds for every key in it; no key has version 0. So: nothing is there.
        Compare::Empty(KeyRange { start, end }) => {
            let absent = etcd_client::Compare::version(bytes(start), CompareOp::Equal, 0);
            match end {
                Some(end) => absent.with_range(bytes(end)),
                None => absent,
            }
        }
    }
}

fn op(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => TxnOp::put(bytes(key), value.to_vec(), Some(PutOptions::new().with_lease(lease.0))),
        Op::Delete(KeyRange { start, end }) => {
            TxnOp::delete(bytes(start), end.as_ref().map(|end| DeleteOptions::new().with_range(bytes(end))))
        }
        Op::Get(request) => TxnOp::get(bytes(&request.range.start), Some(get_options(request))),
        Op::Txn(inner) => TxnOp::txn(txn(inner)),
    }
}

/// `None` if the server left out an answer.
pub(super) fn txn_response(response: PbTxnResponse) -> Option<TxnResponse> {
    let results = response.responses.into_iter().map(|op| op.response.and_then(op_result)).collect::<Option<Vec<_>>>()?;
    Some(TxnResponse { header: header(response.header), succeeded: response.succeeded, results })
}

fn op_result(response: PbTxnOpResponse) -> Option<OpResult> {
    Some(match response {
        PbTxnOpResponse::ResponsePut(_) => OpResult::Put,
        PbTxnOpResponse::ResponseDeleteRange(response) => OpResult::Deleted(response.deleted),
        PbTxnOpResponse::ResponseRange(response) => OpResult::Range(range_response(response)),
        PbTxnOpResponse::ResponseTxn(response) => OpResult::Txn(txn_response(response)?),
    })
}
