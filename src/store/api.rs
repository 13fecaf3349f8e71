//! The part of etcd that enlist needs, as plain values behind one trait ([`Backend`]) and a cheap handle ([`Store`]).
//!
//! No type of a client crate is in here, so that the breaking releases of that crate are not breaking releases of
//! enlist. Shapes and meanings are those of etcd v3 (`etcdserver/api/v3rpc`): revisions are global to a store, ranges
//! are half-open, all compares of a transaction see the state before it, and all its writes have one revision.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::model::names::Revision;
use crate::store::etcd::StoreSettings;

/// A key, as bytes: foreign keys need not be text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Bytes);

impl Key {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The first key after this one.
    #[must_use]
    pub fn successor(&self) -> Key {
        Key([self.as_bytes(), &[0]].concat().into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(Bytes::from(text))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Key(Bytes::from(bytes))
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Key(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A half-open range of keys `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key.
    pub start: Key,
    /// The key after the last one. `None` = the one key `start`.
    pub end: Option<Key>,
}

impl KeyRange {
    /// One key.
    pub fn one(key: impl Into<Key>) -> Self {
        KeyRange { start: key.into(), end: None }
    }

    /// Every key that begins with `prefix`. A prefix should end with `/`, or siblings (`node1`, `node10`) are mixed in.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        let end = prefix_end(start.as_bytes());
        KeyRange { start, end: Some(end) }
    }

    /// From `start` up to but not including `end`.
    pub fn between(start: impl Into<Key>, end: impl Into<Key>) -> Self {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    /// Whether the range is every key that begins with its start.
    pub fn is_prefix(&self) -> bool {
        self.end.as_ref() == Some(&prefix_end(self.start.as_bytes()))
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &Key) -> bool {
        match &self.end {
            None => *key == self.start,
            Some(end) => *key >= self.start && (end.as_bytes() == [0] || key < end),
        }
    }
}

/// The key after every key with this prefix; `\0` (etcd's "to the end") if there is none.
fn prefix_end(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Key::from(end);
        }
    }
    Key::from(vec![0])
}

/// The id of a lease. 0 = no lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: LeaseId = LeaseId(0);
}

/// A key with its value and revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision at which the key was created; updates keep it.
    pub create_revision: Revision,
    /// The revision of the last write.
    pub mod_revision: Revision,
    /// The number of writes since the key was created; 1 = just created.
    pub version: i64,
    /// The lease of the key.
    pub lease: LeaseId,
}

/// The member that answered, and the revision of the store at the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// The store's revision at the answer. In a watch response it is *ahead* of the last event during catch-up: never a
    /// resume point.
    pub revision: Revision,
}

/// Reads a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys to read.
    pub range: KeyRange,
    /// The revision to read at; `None` = now (linearizable).
    pub revision: Option<Revision>,
    /// The largest number of keys; 0 = all.
    pub limit: i64,
    /// Leaves the values out.
    pub keys_only: bool,
    /// Returns only the count.
    pub count_only: bool,
}

impl RangeRequest {
    /// Everything in `range`, now.
    pub fn all(range: KeyRange) -> Self {
        RangeRequest { range, revision: None, limit: 0, keys_only: false, count_only: false }
    }
}

/// The content of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The header of the answer.
    pub header: Header,
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// The number of keys in the range (not in `kvs`).
    pub count: i64,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key's mod_revision is this; 0 = it is absent.
    Modified(Key, Revision),
    /// The key's create_revision is this; 0 = it is absent.
    Created(Key, Revision),
    /// The key has this value.
    Value(Key, Bytes),
    /// The range holds no key.
    Empty(KeyRange),
}

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key. An unknown lease fails the whole request.
    Put {
        /// The key.
        key: Key,
        /// The new value.
        value: Bytes,
        /// The new lease; [`LeaseId::NONE`] detaches the key from any lease.
        lease: LeaseId,
    },
    /// Deletes the keys of a range.
    Delete(KeyRange),
    /// Reads a range.
    Get(RangeRequest),
    /// A nested transaction.
    Txn(Txn),
}

impl Op {
    /// A put without a lease.
    pub fn put(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Op::Put { key: key.into(), value: value.into(), lease: LeaseId::NONE }
    }

    /// Deletes one key.
    pub fn delete(key: impl Into<Key>) -> Self {
        Op::Delete(KeyRange::one(key))
    }

    /// Reads one key.
    pub fn get(key: impl Into<Key>) -> Self {
        Op::Get(RangeRequest::all(KeyRange::one(key)))
    }
}

/// Runs `then` if all compares hold, else `otherwise`. Atomic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions; an empty list holds.
    pub compares: Vec<Compare>,
    /// The operations if the conditions hold.
    pub then: Vec<Op>,
    /// The operations if not.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// Whether the transaction can change anything, in either branch.
    pub fn writes(&self) -> bool {
        self.then.iter().chain(&self.otherwise).any(|op| match op {
            Op::Put { .. } | Op::Delete(_) => true,
            Op::Get(_) => false,
            Op::Txn(inner) => inner.writes(),
        })
    }
}

/// The result of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The header of the answer; its revision is that of the writes, if there were any.
    pub header: Header,
    /// Whether the compares held.
    pub succeeded: bool,
    /// One result for each operation of the branch taken.
    pub results: Vec<OpResult>,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// Written.
    Put,
    /// The number of deleted keys.
    Deleted(i64),
    /// The content of the range.
    Range(RangeResponse),
    /// The result of the nested transaction.
    Txn(TxnResponse),
}

/// A change that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put(KeyValue),
    /// The key was deleted (by a client, or with its lease).
    Delete {
        /// The key.
        key: Key,
        /// The revision of the deletion.
        mod_revision: Revision,
    },
}

impl Event {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Event::Put(kv) => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put(kv) => kv.mod_revision,
            Event::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

/// Follows a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys to watch.
    pub range: KeyRange,
    /// The first revision wanted; [`Revision::NONE`] = from now on.
    pub start: Revision,
    /// The watch may share the connection of the calls: it has few events and reads each at once. Unread events would
    /// delay the calls.
    pub beside: bool,
}

/// A message of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMessage {
    /// The server accepted the watch.
    Created(Header),
    /// Events of one or more revisions, in order. With `fragment` the response continues in the next message: the
    /// reader must apply none of it before the last fragment (`fragment: false`).
    Events {
        /// The header of the answer; its revision is no resume point.
        header: Header,
        /// In order of revision.
        events: Vec<Event>,
        /// More of the same response follows.
        fragment: bool,
    },
    /// A progress answer. Only from servers ≥ 3.4.25 / 3.5.8 is its revision a barrier.
    Progress(Header),
    /// The server canceled the watch. The stream stays open and silent.
    Canceled {
        /// The reason, in etcd's words.
        reason: String,
        /// The start was compacted: every revision up to here is gone. [`Revision::NONE`] = another reason.
        compacted: Revision,
    },
}

/// A running watch. Dropping it cancels it on the server.
pub trait Watch: Send {
    /// The next message; `None` = the stream ended. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>>;
    /// Requests a progress answer. Best effort.
    fn request_progress(&mut self) -> BoxFuture<'_, ()>;
}

/// The persistent keep-alive stream of a lease.
pub trait KeepAlive: Send {
    /// Sends one beat. Returns the remaining TTL in seconds; 0 or less = the lease is gone.
    ///
    /// An error says nothing about the lease: the caller beats again.
    fn beat(&mut self) -> BoxFuture<'_, Result<i64, StoreError>>;
}

/// The status of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// The header of the answer.
    pub header: Header,
    /// etcd's version, e.g. `3.5.16`.
    pub version: String,
    /// The member that leads the cluster; 0 = none.
    pub leader: u64,
    /// What it says is wrong with it, in its own words: a store that is full, or corrupt.
    pub alarms: Vec<String>,
}

/// The status of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointInfo {
    /// `host:port`.
    pub endpoint: String,
    /// The cluster of the endpoint; `None` = the endpoint does not answer.
    pub cluster_id: Option<u64>,
    /// The cluster that calls go to.
    pub used: Option<u64>,
}

impl EndpointInfo {
    /// Whether the endpoint is a member of another cluster than the one used.
    pub fn is_foreign(&self) -> bool {
        self.cluster_id.is_some() && self.used.is_some() && self.cluster_id != self.used
    }

    /// The problem of the endpoint, if any, and the remedy.
    pub fn trouble(&self) -> Option<String> {
        match (self.cluster_id, self.used) {
            (None, _) => Some(format!("endpoint {} does not answer", self.endpoint)),
            (Some(cluster), Some(used)) if cluster != used => Some(format!(
                "endpoint {} is a member of etcd cluster {cluster:x}, the others of {used:x}; no node and no role uses it: remove it \
                 from the endpoints, or add the member to its cluster again",
                self.endpoint
            )),
            _ => None,
        }
    }
}

/// Errors of a store. `Display` is one line fit for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No endpoint answered.
    #[error("etcd is unreachable at {endpoints}: {reason}")]
    Unreachable {
        /// The endpoints tried.
        endpoints: String,
        /// The reason, in the transport's words.
        reason: String,
    },
    /// No answer in time. A write may have happened.
    #[error("etcd did not answer within {milliseconds} ms")]
    Timeout {
        /// The length of the wait.
        milliseconds: u64,
    },
    /// The connection broke while a request was under way. A write may have happened.
    #[error("the connection to etcd broke: {0}")]
    Broken(String),
    /// Authentication, permission or TLS.
    #[error("etcd refused: {0}")]
    Refused(String),
    /// The endpoints are members of several clusters, or of another one than before.
    #[error("the etcd cluster is not certain: {0}")]
    OtherCluster(String),
    /// The revision asked for was compacted.
    #[error("revision is compacted (oldest kept: {0})")]
    Compacted(Revision),
    /// The revision asked for is in the future.
    #[error("revision is in the future")]
    Future,
    /// The request is larger than the server accepts (1.5 MiB by default), or the answer is larger than this client
    /// accepts.
    #[error("the request or its answer is larger than etcd accepts")]
    TooLarge,
    /// More operations than `--max-txn-ops` at one nesting level.
    #[error("the transaction has more operations than etcd accepts (--max-txn-ops)")]
    TooManyOps,
    /// The lease does not exist, or no longer exists.
    #[error("the lease does not exist, or no longer exists")]
    NoLease,
    /// The store is full (NOSPACE alarm).
    #[error("etcd is out of space: raise --quota-backend-bytes or compact, defragment and disarm the alarm")]
    NoSpace,
    /// Anything else, in etcd's words.
    #[error("etcd: {0}")]
    Other(String),
}

impl StoreError {
    /// Whether etcd denied a permission to a known user. After another refusal (a login, a certificate) not every retry reaches
    /// etcd, so that a retry may come soon.
    pub fn is_denied(&self) -> bool {
        matches!(self, StoreError::Refused(why) if why.contains("permission denied"))
    }

    /// Whether a write that failed with this error may have happened.
    pub fn is_unknown_outcome(&self) -> bool {
        matches!(self, StoreError::Timeout { .. } | StoreError::Broken(_) | StoreError::Other(_))
    }
}

/// An etcd, or a model of one. Every call has its own time-out.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Reads a range.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>>;
    /// Runs a transaction.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse, StoreError>>;
    /// Grants a lease; returns its id and the TTL in seconds that the server granted (it raises small ones).
    fn grant(&self, ttl_s: u64) -> BoxFuture<'_, Result<(LeaseId, u64), StoreError>>;
    /// Ends a lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The remaining and granted TTL of a lease in seconds; remaining −1 = it does not exist.
    fn time_to_live(&self, lease: LeaseId) -> BoxFuture<'_, Result<(i64, i64), StoreError>>;
    /// Opens a keep-alive stream.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<Box<dyn KeepAlive>, StoreError>>;
    /// Opens a watch. The first message is [`WatchMessage::Created`].
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>>;
    /// Reads the status of the member that answers.
    fn member(&self) -> BoxFuture<'_, Result<MemberInfo, StoreError>>;
    /// Asks each endpoint for its cluster. Empty unless there are several endpoints.
    fn endpoints(&self) -> BoxFuture<'_, Vec<EndpointInfo>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    /// Sets the cluster used before the start of this process. It counts until a cluster is known.
    fn expect_cluster(&self, _cluster_id: u64) {}
    /// From now on endpoints that no call uses are looked at as well, and trouble with them is logged.
    fn look_out(&self) {}
    /// Puts other settings into force: endpoints, user, password, certificates. What is under way ends on the former connections.
    fn reconfigure(&self, _settings: StoreSettings) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A cheap handle on a store: an etcd cluster, or the in-memory model of one.
///
/// ```no_run
/// use enlist::Store;
/// use enlist::store::etcd::StoreSettings;
/// # async fn example() -> Result<(), enlist::store::api::StoreError> {
/// let store = Store::connect(StoreSettings::endpoints(["127.0.0.1:2379"])).await?;
/// let (header, label) = store.get("/enlist/nodes/edge-7/label").await?;
/// println!("at revision {}: {label:?}", header.revision);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Store(Arc<dyn Backend>);

impl Store {
    /// A store behind this backend.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Store(backend)
    }

    /// Whether both are handles on the same connections.
    pub fn is_same(&self, other: &Store) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Reads one key; returns the header of the answer too.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, key: impl Into<Key>) -> Result<(Header, Option<KeyValue>), StoreError> {
        let response = self.0.range(RangeRequest::all(KeyRange::one(key))).await?;
        Ok((response.header, response.kvs.into_iter().next()))
    }

    /// Reads a range.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.0.range(request).await
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// See [`StoreError`]; for some of them the outcome is unknown ([`StoreError::is_unknown_outcome`]).
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.0.txn(txn).await
    }

    /// Grants a lease; returns its id and the TTL in seconds.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn grant(&self, ttl_s: u64) -> Result<(LeaseId, u64), StoreError> {
        self.0.grant(ttl_s).await
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.revoke(lease).await
    }

    /// Remaining and granted TTL in seconds; remaining −1 = it does not exist.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn time_to_live(&self, lease: LeaseId) -> Result<(i64, i64), StoreError> {
        self.0.time_to_live(lease).await
    }

    /// Opens a keep-alive stream.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Box<dyn KeepAlive>, StoreError> {
        self.0.keep_alive(lease).await
    }

    /// Opens a watch.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn watch(&self, request: WatchRequest) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch(request).await
    }

    /// Reads the status of the member that answers.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn member(&self) -> Result<MemberInfo, StoreError> {
        self.0.member().await
    }

    /// Asks each endpoint for its cluster. Empty unless there are several endpoints.
    pub async fn endpoints(&self) -> Vec<EndpointInfo> {
        self.0.endpoints().await
    }

    /// Names the cluster that was used before this process was started. It counts until a cluster is known: an endpoint of this
    /// cluster is taken before any other.
    pub fn expect_cluster(&self, cluster_id: u64) {
        self.0.expect_cluster(cluster_id);
    }

    /// From now on endpoints that no call uses are looked at as well, every 10 s: one that does not answer, or is a member of
    /// another cluster, is logged once, and once when that is over. For roles; a fleet of agents would be a load. Needs a runtime.
    pub fn look_out(&self) {
        self.0.look_out();
    }

    /// Puts other settings into force on every clone of this handle: endpoints, user, password, certificates and time-outs. Calls
    /// that are under way end on the former connections; watches break, and their followers resume. The same settings again do
    /// nothing. A model in memory has no settings, and takes any.
    ///
    /// # Errors
    /// [`StoreError::Other`] if an endpoint cannot be understood: then the former settings stay.
    pub fn reconfigure(&self, settings: StoreSettings) -> Result<(), StoreError> {
        self.0.reconfigure(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_excludes_sibling_keys() {
        let range = KeyRange::prefix("/e/nodes/node1/");
        assert!(range.contains(&"/e/nodes/node1/label".into()));
        assert!(!range.contains(&"/e/nodes/node10/label".into()));
        assert!(KeyRange::prefix(vec![0xff]).contains(&vec![0xff, 1].into()));
    }

    #[test]
    fn txn_writes_if_any_branch_at_any_depth_writes() {
        let read = || Txn { then: vec![Op::get("a")], otherwise: vec![Op::get("b")], ..Txn::default() };
        assert!(!Txn { then: vec![Op::Txn(read())], ..read() }.writes());
        for write in [Op::put("a", "v"), Op::delete("a")] {
            let otherwise = Txn { otherwise: vec![write.clone()], ..read() };
            assert!(otherwise.writes() && Txn { then: vec![write], ..read() }.writes());
            assert!(Txn { then: vec![Op::get("c"), Op::Txn(otherwise)], ..read() }.writes());
        }
    }

    #[test]
    fn successor_directly_follows_its_key() {
        let key = Key::from("/e/a");
        assert_eq!(key.successor().as_bytes(), b"/e/a\0");
        assert!(key < key.successor() && key.successor() < Key::from("/e/a\u{1}") && key.successor() < Key::from("/e/aa"));
    }
}
