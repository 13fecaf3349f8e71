//! The etcd processes of a run: three members of one cluster, whose calls to each other go through the network of the run,
//! and one member by itself. They listen on loopback addresses of their own, so that no other socket takes a port of theirs
//! while they are down.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use enlist::Store;
use enlist::store::etcd::StoreSettings;
use tokio::process::Command;

use super::net::Net;
use super::process::{Launch, Process};
use crate::support::etcd::EtcdVersion;

/// Small enough to be filled in a moment.
const QUOTA_BYTES: u64 = 48 << 20;
const ADMIN_LIMIT: Duration = Duration::from_secs(20);

/// One cluster.
pub(crate) struct Cluster {
    pub(crate) version: EtcdVersion,
    pub(crate) members: Vec<Process>,
    /// Where the members serve clients.
    pub(crate) at: Vec<SocketAddr>,
    /// Reaches all members directly: for the recorder, and for looking.
    pub(crate) store: Store,
}

/// The loopback address of the n-th etcd of this process.
fn address(n: u8, port: u16) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 100 + high % 100, low, n], port))
}

impl Cluster {
    /// Prepares `count` members; `first` counts over all clusters of a run.
    pub(crate) async fn prepare(version: EtcdVersion, net: &Net, names: &[&str], first: u8, folder: &Path) -> Cluster {
        let numbered = || names.iter().zip(first..);
        let at: Vec<SocketAddr> = numbered().map(|(_, n)| address(n, 2379)).collect();
        let mut peers = Vec::new();
        for (name, n) in numbered() {
            peers.push(format!("{name}=http://{}", net.shared_way(name, address(n, 2380)).await));
        }
        let launch = |(index, (name, n)): (usize, (&&str, u8))| {
            let client = format!("http://{}", address(n, 2379));
            let flags = [
                ("name", (*name).to_owned()),
                ("data-dir", folder.join(name).to_string_lossy().into_owned()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client),
                ("listen-peer-urls", format!("http://{}", address(n, 2380))),
                ("initial-advertise-peer-urls", peers[index].split_once('=').unwrap().1.to_owned()),
                ("initial-cluster", peers.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", format!("chaos-{}", names.join("-"))),
                ("heartbeat-interval", "100".to_owned()),
                ("election-timeout", "1000".to_owned()),
                ("quota-backend-bytes", QUOTA_BYTES.to_string()),
            ];
            Process::new(Launch {
                name: (*name).to_owned(),
                program: version.etcd(),
                arguments: flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect(),
                environment: Vec::new(),
                log: folder.join(format!("{name}.log")),
                journal: None,
            })
        };
        let members = numbered().enumerate().map(launch).collect();
        let store = Store::open(StoreSettings::endpoints(at.iter().map(ToString::to_string))).unwrap();
        Cluster { version, members, at, store }
    }

    /// Starts a member.
    pub(crate) fn start(&mut self, index: usize, net: &Net) {
        let pid = self.members[index].start();
        net.calls(pid, self.members[index].name());
    }

    /// Which member leads; `None` = nobody says.
    pub(crate) async fn leading(&self) -> Option<usize> {
        for (index, at) in self.at.iter().enumerate().filter(|(index, _)| self.members[*index].is_up()) {
            let mut settings = StoreSettings::endpoints([at.to_string()]);
            settings.command_timeout = Duration::from_millis(500);
            let Ok(store) = Store::open(settings) else { continue };
            if let Ok(member) = store.member().await
                && member.leader == member.header.member_id
            {
                return Some(index);
            }
        }
        None
    }

    /// Somebody who looks after it.
    pub(crate) fn operator(&self) -> Operator {
        Operator { version: self.version, at: self.at.clone() }
    }

    /// The indices of all members.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.members.len()).collect()
    }
}

/// Somebody with `etcdctl`, who reaches the members directly.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    version: EtcdVersion,
    at: Vec<SocketAddr>,
}

impl Operator {
    /// Runs a command against one member, or all; answers whether it was done. It comes in the middle of faults: it may not be.
    pub(crate) async fn run(&self, member: Option<usize>, arguments: &[&str]) -> bool {
        let at: Vec<String> = self.at.iter().map(ToString::to_string).collect();
        let endpoints = member.map_or_else(|| at.join(","), |index| at[index].clone());
        let mut command = Command::new(self.version.etcdctl());
        command.env("ETCDCTL_API", "3").args(["--command-timeout=15s", "--endpoints", &endpoints]);
        command.args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(ADMIN_LIMIT, command.output()).await;
        output.is_ok_and(|output| output.is_ok_and(|output| output.status.success()))
    }
}
