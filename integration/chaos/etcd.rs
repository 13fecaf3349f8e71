//! The etcd processes of a run: three members of one cluster, whose calls to each other go through the network of the run,
//! and one member by itself. They listen on loopback addresses of their own, so that no other socket takes a port of theirs
//! while they are down.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use enlist::Store;
use enlist::store::etcd::StoreSettings;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::net::Net;
use super::process::{Launch, Process};
use crate::support::etcd::EtcdVersion;

/// Small enough to be filled in a moment.
const QUOTA_BYTES: u64 = 48 << 20;
const ADMIN_LIMIT: Duration = Duration::from_secs(20);
/// What a fault waits for an operator's command, while everything else waits for the fault.
const STEP_LIMIT: Duration = Duration::from_secs(4);
/// Who looks after the clusters, and who enlist is there.
pub(crate) const ROOT: (&str, &str) = ("root", "root-word");
pub(crate) const ENLIST: (&str, &str) = ("enlist", "enlist-word");

/// The settings of a client of this user.
pub(crate) fn settings(at: impl IntoIterator<Item = String>, (user, password): (&str, &str)) -> StoreSettings {
    StoreSettings { user: Some(user.into()), password: Some(password.into()), ..StoreSettings::endpoints(at) }
}

/// One cluster.
pub(crate) struct Cluster {
    pub(crate) version: EtcdVersion,
    pub(crate) members: Vec<Process>,
    /// Where the members serve clients.
    pub(crate) at: Vec<SocketAddr>,
    /// Reaches all members directly: for the recorder, and for looking.
    pub(crate) store: Store,
    /// Members that began as 3.4 and are 3.5 now.
    upgraded: BTreeSet<usize>,
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
                // Every change of a user makes all clients log in again; by default each login takes 50 ms of a processor.
                ("bcrypt-cost", "4".to_owned()),
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
        let store = Store::open(settings(at.iter().map(ToString::to_string), ROOT)).unwrap();
        Cluster { version, members, at, store, upgraded: BTreeSet::new() }
    }

    /// Starts a member.
    pub(crate) fn start(&mut self, index: usize, net: &Net) {
        let pid = self.members[index].start();
        net.calls(pid, self.members[index].name());
    }

    /// Which member leads; `None` = nobody says.
    pub(crate) async fn leading(&self) -> Option<usize> {
        for (index, at) in self.at.iter().enumerate().filter(|(index, _)| self.members[*index].is_up()) {
            let mut settings = settings([at.to_string()], ROOT);
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

    /// Makes the users and switches authentication on; `false` if the cluster is not up yet. It may be done again.
    pub(crate) async fn protect(&self) -> bool {
        let operator = self.operator();
        let (root, enlist) = (format!("{}:{}", ROOT.0, ROOT.1), format!("{}:{}", ENLIST.0, ENLIST.1));
        let permission = ["role", "grant-permission", ENLIST.0, "readwrite", "--prefix=true", "/enlist/"];
        let commands: [&[&str]; 7] = [
            &["user", "add", &root],
            &["role", "add", "root"],
            &["user", "grant-role", ROOT.0, "root"],
            &["user", "add", &enlist],
            &["role", "add", ENLIST.0],
            &permission,
            &["user", "grant-role", ENLIST.0, ENLIST.0],
        ];
        for command in commands {
            operator.run(None, command).await;
        }
        operator.run(None, &["auth", "enable"]).await
    }

    /// The kill is done: takes the member out of the cluster and its data away. `false` if the others do not agree.
    pub(crate) async fn remove(&mut self, index: usize) -> bool {
        let operator = self.operator();
        let name = self.members[index].name().to_owned();
        let list = operator.output(&["member", "list"], "").await.unwrap_or_default();
        // "8e9e05c52164694d, started, etcd-1, http://…"
        let id = list.lines().find(|line| line.split(", ").nth(2) == Some(&name)).and_then(|line| line.split(", ").next());
        let Some(id) = id else { return false };
        if operator.output(&["member", "remove", id], "").await.is_none() {
            return false;
        }
        let member = &mut self.members[index];
        if let Some(folder) = member.flag("data-dir") {
            std::fs::remove_dir_all(folder).unwrap();
        }
        member.set_flag("initial-cluster-state", "existing");
        true
    }

    /// Takes a removed member in again, as a new one. `false` if the others do not agree.
    pub(crate) async fn add(&self, index: usize) -> bool {
        let member = &self.members[index];
        let peer = format!("--peer-urls={}", member.flag("initial-advertise-peer-urls").unwrap_or_default());
        self.operator().output(&["member", "add", member.name(), &peer], "").await.is_some()
    }

    /// Makes a stopped member a 3.5; `false` if it is one.
    pub(crate) fn upgrade(&mut self, index: usize) -> bool {
        let first = self.version == EtcdVersion::V3_4 && self.upgraded.insert(index);
        if first {
            self.members[index].set_program(EtcdVersion::V3_5.etcd());
        }
        first
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
        tokio::time::timeout(ADMIN_LIMIT, self.answer(member, arguments, "")).await.is_ok_and(|answer| answer.is_some())
    }

    /// The same with what it said, for what a fault waits for.
    pub(crate) async fn output(&self, arguments: &[&str], input: &str) -> Option<String> {
        tokio::time::timeout(STEP_LIMIT, self.answer(None, arguments, input)).await.ok()?
    }

    async fn answer(&self, member: Option<usize>, arguments: &[&str], input: &str) -> Option<String> {
        let at: Vec<String> = self.at.iter().map(ToString::to_string).collect();
        let endpoints = member.map_or_else(|| at.join(","), |index| at[index].clone());
        let mut command = Command::new(self.version.etcdctl());
        command.env("ETCDCTL_API", "3").args(["--command-timeout=15s", "--endpoints", &endpoints]);
        command.args(["--user", &format!("{}:{}", ROOT.0, ROOT.1)]);
        command.args(arguments).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        child.stdin.take()?.write_all(input.as_bytes()).await.ok()?;
        let output = child.wait_with_output().await.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
