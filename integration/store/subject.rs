//! A store under test, and what can be done to its server.

use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Header, KeyRange, Op, RangeRequest, Txn, Watch, WatchMessage, WatchRequest};
use enlist::store::memory::MemoryEtcd;
use tokio::time::timeout;

use crate::support::etcd::Etcd;

/// Nothing here takes longer, except on a machine that stands still.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Subject {
    pub(crate) store: Store,
    server: Server,
}

enum Server {
    Memory(MemoryEtcd),
    Etcd(Etcd),
}

impl Subject {
    pub(crate) fn memory() -> Subject {
        let etcd = MemoryEtcd::new();
        Subject { store: etcd.store(), server: Server::Memory(etcd) }
    }

    pub(crate) async fn etcd(etcd: Etcd) -> Subject {
        Subject { store: Store::connect(etcd.settings()).await.unwrap(), server: Server::Etcd(etcd) }
    }

    pub(crate) fn name(&self) -> String {
        match &self.server {
            Server::Memory(_) => "memory".to_owned(),
            Server::Etcd(etcd) => format!("{:?}", etcd.version),
        }
    }

    /// Compacts up to a revision.
    pub(crate) fn compact(&self, revision: Revision) {
        match &self.server {
            Server::Memory(etcd) => etcd.compact(revision).unwrap(),
            Server::Etcd(etcd) => {
                etcd.etcdctl(&["compaction", &revision.to_string()]).unwrap();
            }
        }
    }

    /// How many watches the server has.
    pub(crate) fn watchers(&self) -> usize {
        match &self.server {
            Server::Memory(etcd) => etcd.watchers(),
            Server::Etcd(etcd) => etcd.metric("etcd_debugging_mvcc_watcher_total") as usize,
        }
    }

    /// Puts one key; answers the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> Revision {
        self.commit(vec![Op::put(key, value.to_owned())]).await
    }

    /// Deletes one key; answers the revision.
    pub(crate) async fn delete(&self, key: &str) -> Revision {
        self.commit(vec![Op::delete(key)]).await
    }

    /// Does operations without a condition; answers the revision.
    pub(crate) async fn commit(&self, then: Vec<Op>) -> Revision {
        self.store.txn(Txn { then, ..Txn::default() }).await.unwrap().header.revision
    }

    /// The keys in a range now, as text.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.store.range(RangeRequest::all(KeyRange::prefix(prefix))).await.unwrap();
        answer.kvs.iter().map(|kv| kv.key.to_string()).collect()
    }

    /// A watch on a prefix, and the header of its first message.
    pub(crate) async fn watch(&self, prefix: &str, start: Revision) -> (Box<dyn Watch>, Header) {
        let request = WatchRequest { range: KeyRange::prefix(prefix), start, beside: false };
        let mut watch = self.store.watch(request).await.unwrap();
        match next(&mut watch).await {
            WatchMessage::Created(header) => (watch, header),
            other => panic!("first came {other:?}"),
        }
    }
}

/// The next message, in time.
pub(crate) async fn next(watch: &mut Box<dyn Watch>) -> WatchMessage {
    timeout(LIMIT, watch.next()).await.expect("no message in time").expect("the stream ended").unwrap()
}

/// The next response with events, put together from its fragments: its header, its events, the number of fragments.
pub(crate) async fn response(watch: &mut Box<dyn Watch>) -> (Header, Vec<Event>, usize) {
    let mut whole = Vec::new();
    for fragments in 1.. {
        match next(watch).await {
            WatchMessage::Events { header, events, fragment } => {
                whole.extend(events);
                if !fragment {
                    return (header, whole, fragments);
                }
            }
            other => panic!("instead of events came {other:?}"),
        }
    }
    unreachable!("a response has an end")
}

/// The next `count` events, in as many responses as it takes.
pub(crate) async fn events(watch: &mut Box<dyn Watch>, count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(response(watch).await.1);
    }
    all
}

/// "put a=1@7" and "delete a@8": events as short text.
pub(crate) fn show(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| match event {
        Event::Put(kv) => format!("put {}={}", kv.key, String::from_utf8_lossy(&kv.value)),
        Event::Delete { key, .. } => format!("delete {key}"),
    };
    events.iter().map(one).collect()
}
