//! Roles that run inside a test, on any store; and nodes with the records that agents and the allocator would write.

use std::collections::BTreeMap;
use std::time::Duration;

use enlist::Store;
use enlist::reconcile::{Context, Wall};
use enlist::store::api::{KeyRange, Op, Txn};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Each step takes at most this long, except on a stalled machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Short, so that a killed leader is replaced soon.
pub(crate) const LEADER_TTL: Duration = Duration::from_secs(2);

/// A context like that of a process.
pub(crate) fn context(identity: &str) -> Context {
    let seed = identity.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    Context { identity: identity.into(), seed, wall: Wall::system(), shutdown: CancellationToken::new() }
}

/// A running role. Dropping it is like a SIGKILL: it does nothing more.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: AbortOnDropHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts a role.
    pub(crate) fn start<F>(context: &Context, role: F) -> Running
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Running { shutdown: context.shutdown.clone(), task: AbortOnDropHandle::new(tokio::spawn(role)) }
    }

    /// Stops the role cleanly.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await.unwrap();
    }

    /// The return value of the role, which must end by itself soon.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap()
    }
}

/// Writes one key.
pub(crate) async fn put(store: &Store, key: &str, value: impl Into<String>) {
    store.txn(Txn { then: vec![Op::put(key, value.into())], ..Txn::default() }).await.unwrap();
}

/// Deletes one key.
pub(crate) async fn delete(store: &Store, key: &str) {
    store.txn(Txn { then: vec![Op::delete(key)], ..Txn::default() }).await.unwrap();
}

/// Everything below a prefix, by key without the prefix.
pub(crate) async fn read(store: &Store, prefix: &str) -> BTreeMap<String, String> {
    let found = store.read_all(KeyRange::prefix(prefix), None).await.unwrap();
    let relative = |key: &str| key.strip_prefix(prefix).unwrap().to_owned();
    found.kvs.iter().map(|kv| (relative(kv.key.as_str().unwrap()), String::from_utf8(kv.value.to_vec()).unwrap())).collect()
}

/// A label.
pub(crate) fn label(node: &str, variables: &[(&str, &str)], description: &str) -> String {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    serde_json::json!({
        "v": 1, "id": node, "instance": "i", "boot": "b", "run": "r", "temporary": {"ip": "192.0.2.1", "port": 1},
        "variables": variables, "description": description,
    })
    .to_string()
}

/// A status.
pub(crate) fn status(phase: &str) -> String {
    format!(r#"{{"v":1,"instance":"i","boot":"b","run":"r","phase":"{phase}","generation":5}}"#)
}

/// A bound assignment of generation 5.
pub(crate) fn bound(node: &str, ip: &str) -> String {
    format!(
        r#"{{"v":1,"node":"{node}","instance":"i","state":"bound","pool":"p","domain":"default","sharing":"exclusive","addresses":["{ip}"],"ports":{{"http":8000}},"generation":5,"asked":"9f86d081884c7d65","hold_s":600,"cooldown_s":60,"on_isolation":"keep"}}"#
    )
}
