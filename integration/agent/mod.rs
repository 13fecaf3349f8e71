//! Real agent processes on a real etcd. The test writes what an allocator would, so that every answer is its own choice.
//!
//! Needs: etcd. `init` needs root and `unshare` (util-linux).

mod identity;
mod init;
mod isolation;
mod process;
mod reload;
mod apply;
mod store;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use enlist::model::asked::Asked;
use enlist::model::assignment::{Answer, Assignment, Bound, Leaving, Terms};
use enlist::model::label::Label;
use enlist::model::names::{NodeId, Revision};
use enlist::model::pool::{OnIsolation, Sharing};
use enlist::model::status::{Phase, Status};
use enlist::store::api::{KeyRange, Op, Store, Txn};
use enlist::store::keys::{NodePart, Prefix};
use enlist::store::wire::Stored;
use tokio::process::Command;

use crate::support::etcd::{Etcd, EtcdVersion};
pub(crate) use crate::support::process::{Process as Agent, is_alive};
use crate::support::wait::until;

/// Everything must happen within this; a loaded machine is slow.
const SOON: Duration = Duration::from_secs(30);

/// One etcd, one node's id, directories for its agents.
pub(crate) struct Lab {
    pub(crate) etcd: Etcd,
    pub(crate) store: Store,
    pub(crate) prefix: Prefix,
    pub(crate) id: NodeId,
    pub(crate) terms: Terms,
    pub(crate) dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn start() -> Lab {
        Lab::on(EtcdVersion::V3_4)
    }

    pub(crate) fn on(version: EtcdVersion) -> Lab {
        let etcd = Etcd::start(version);
        Lab {
            store: etcd.store(),
            etcd,
            prefix: Prefix::default(),
            id: "edge-7".parse().unwrap(),
            terms: Terms {
                pool: "eu".parse().unwrap(),
                domain: "default".parse().unwrap(),
                sharing: Sharing::Exclusive,
                hold_s: 600,
                cooldown_s: 60,
                on_isolation: OnIsolation::Keep,
            },
            dir: tempfile::Builder::new().prefix("enlist-agent-").tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `enlist agent` for this node with the state directory `state`, a lease of 2 s, and more flags (`-- CMD` among them).
    pub(crate) fn agent(&self, state: &str, flags: &[&str]) -> Agent {
        self.spawn(Command::new(env!("CARGO_BIN_EXE_enlist")), state, flags)
    }

    pub(crate) fn spawn(&self, mut command: Command, state: &str, flags: &[&str]) -> Agent {
        command
            .args(["agent", "--endpoints", &self.etcd.endpoint, "--id", self.id.as_str(), "--lease-ttl", "2s", "--port", "http"])
            .arg("--state-dir")
            .arg(self.path(state))
            .args(flags)
            // With the stop time-out at most one TTL, or an agent that must withdraw refuses to start.
            .env("ENLIST__AGENT__HOOK_TIMEOUT", "1s");
        Agent::start(command, self.path(&format!("log-{}", crate::support::etcd::free_port())))
    }

    async fn read<T: Stored>(&self, part: NodePart) -> Option<T> {
        let (_, kv) = self.store.get(self.prefix.node(&self.id, part)).await.unwrap();
        kv.map(|kv| T::decode(&kv.value).unwrap())
    }

    pub(crate) async fn label(&self) -> Option<Label> {
        self.read(NodePart::Label).await
    }

    pub(crate) async fn status(&self) -> Option<Status> {
        self.read(NodePart::Status).await
    }

    pub(crate) async fn write(&self, op: Op) {
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    pub(crate) async fn delete(&self, part: NodePart) {
        self.write(Op::Delete(KeyRange::one(self.prefix.node(&self.id, part)))).await;
    }

    pub(crate) async fn until_status(&self, what: &str, condition: impl Fn(Option<&Status>) -> bool) -> Option<Status> {
        until(what, SOON, || async {
            let status = self.status().await;
            condition(status.as_ref()).then_some(status)
        })
        .await
    }

    pub(crate) async fn until_phase(&self, phase: Phase) -> Status {
        self.until_status(phase.as_str(), |status| status.is_some_and(|status| status.phase == phase)).await.unwrap()
    }

    pub(crate) async fn until_registered(&self, assignment: &Assignment) {
        self.until_status("the acknowledgement", |status| {
            status.is_some_and(|s| s.phase == Phase::Registered && s.generation == assignment.generation)
        })
        .await;
    }

    /// What an allocator would answer to the label of a live node, with the present answer as `leaving`.
    pub(crate) async fn assign(&self, ip: &str, port: u16) -> Assignment {
        self.until_status("a live status", |status| status.is_some_and(|status| status.phase.is_live())).await;
        let label = self.label().await.unwrap();
        let before: Option<Assignment> = self.read(NodePart::Assignment).await;
        let leaving = before.and_then(|before| {
            let bound = before.bound()?.clone();
            Some(Leaving { generation: before.generation, terms: bound.terms, addresses: bound.addresses, ports: bound.ports })
        });
        let (header, _) = self.store.get("x").await.unwrap();
        let assignment = Assignment {
            node: label.id.clone(),
            instance: label.instance.clone(),
            generation: Revision(header.revision.0),
            asked: Asked::of(&label, self.terms.sharing),
            answer: Answer::Bound(Bound {
                terms: self.terms.clone(),
                addresses: vec![ip.parse::<IpAddr>().unwrap()],
                ports: label.ports.iter().zip(port..).map(|(name, port)| (name.clone(), port)).collect(),
            }),
            leaving: leaving.into_iter().collect(),
            mark: None,
        };
        self.write(Op::put(self.prefix.node(&self.id, NodePart::Assignment), assignment.encode())).await;
        assignment
    }

    /// How often the label was written.
    pub(crate) async fn label_version(&self) -> i64 {
        self.store.get(self.prefix.node(&self.id, NodePart::Label)).await.unwrap().1.unwrap().version
    }
}

/// A free port on an address of the loopback network.
pub(crate) fn free_port_on(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until a file holds something that satisfies `condition`.
pub(crate) async fn until_file(path: &Path, condition: impl Fn(&str) -> bool) -> String {
    until(&format!("{} as wanted", path.display()), SOON, || async {
        std::fs::read_to_string(path).ok().filter(|text| condition(text))
    })
    .await
}

/// Waits until a process has ended (a zombie has).
pub(crate) async fn until_gone(pid: i32) {
    until(&format!("the end of process {pid}"), SOON, || async { (!is_alive(pid)).then_some(()) }).await;
}

/// The number in a file, once it is there whole (with its end of line).
pub(crate) async fn pid_in(path: &Path) -> i32 {
    until_file(path, |text| text.ends_with('\n')).await.trim().parse().unwrap()
}

/// Something that listens: a child cannot be told to in a shell.
pub(crate) fn listen(ip: &str, port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::new(ip.parse().unwrap(), port)).unwrap()
}

/// Checks that something holds all the time, for so long.
pub(crate) async fn stays(what: &str, time: Duration, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        assert!(condition(), "no longer: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
