//! Real etcd processes on free loopback ports, each with its own temporary directory; they die with their handle.
//!
//! Missing binaries fail the test with instructions to install them: a suite that silently skips tests nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enlist::Store;
use enlist::store::etcd::StoreSettings;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::certs::Certs;

/// The version of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EtcdVersion {
    /// The oldest supported version (Debian 12).
    V3_4,
    /// A newer version (Debian 13).
    V3_5,
}

impl EtcdVersion {
    /// Both versions.
    pub(crate) const ALL: [EtcdVersion; 2] = [EtcdVersion::V3_4, EtcdVersion::V3_5];

    /// Path of `etcd` or `etcdctl`.
    fn binary(self, name: &str) -> PathBuf {
        let (variable, path) = match self {
            EtcdVersion::V3_4 => ("ENLIST_ETCD_34", on_path(name)),
            EtcdVersion::V3_5 => {
                ("ENLIST_ETCD_35", Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/etcd-3.5/usr/bin").join(name)))
            }
        };
        let path = match std::env::var_os(variable) {
            Some(etcd) => Some(Path::new(&etcd).with_file_name(name)),
            None => path,
        };
        path.filter(|path| path.is_file())
            .unwrap_or_else(|| panic!("{name} for {self:?} is missing: run ./scripts/install-etcd, or set {variable}"))
    }

    /// Path of `etcd`.
    pub(crate) fn etcd(self) -> PathBuf {
        self.binary("etcd")
    }

    /// Path of `etcdctl`.
    pub(crate) fn etcdctl(self) -> PathBuf {
        self.binary("etcdctl")
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Start options.
#[derive(Debug, Clone, Default)]
pub(crate) struct EtcdOptions {
    /// Serve clients with TLS and ask for their certificates.
    pub(crate) tls: Option<Certs>,
    /// More flags for `etcd`.
    pub(crate) flags: Vec<String>,
}

/// One running member.
pub(crate) struct Etcd {
    /// The version of the member.
    pub(crate) version: EtcdVersion,
    /// The endpoint for clients, `127.0.0.1:port`.
    pub(crate) endpoint: String,
    tls: Option<Certs>,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

/// A port that is free now, on the loopback address.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// A single member, ready to serve.
    pub(crate) fn start(version: EtcdVersion) -> Etcd {
        Etcd::start_with(version, &EtcdOptions::default())
    }

    /// A single member with options, ready to serve.
    pub(crate) fn start_with(version: EtcdVersion, options: &EtcdOptions) -> Etcd {
        // Another process can take the port between its choice and etcd's bind: then the start is retried.
        for _ in 0..5 {
            let (client, peer) = (free_port(), free_port());
            let peers = format!("m0=http://127.0.0.1:{peer}");
            let mut etcd = Etcd::prepare(version, options, "m0", client, peer, &peers);
            etcd.spawn();
            if etcd.wait_ready() {
                return etcd;
            }
        }
        panic!("etcd {version:?} did not start");
    }

    /// Three members of one cluster, ready to serve.
    pub(crate) fn start_cluster(version: EtcdVersion) -> Vec<Etcd> {
        for _ in 0..5 {
            let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
            let peers: Vec<String> =
                ports.iter().enumerate().map(|(index, (_, peer))| format!("m{index}=http://127.0.0.1:{peer}")).collect();
            let mut members: Vec<Etcd> = ports
                .iter()
                .enumerate()
                .map(|(index, (client, peer))| {
                    Etcd::prepare(version, &EtcdOptions::default(), &format!("m{index}"), *client, *peer, &peers.join(","))
                })
                .collect();
            members.iter_mut().for_each(Etcd::spawn);
            if members.iter_mut().all(Etcd::wait_ready) {
                return members;
            }
        }
        panic!("etcd {version:?} did not start as a cluster");
    }

    fn prepare(version: EtcdVersion, options: &EtcdOptions, name: &str, client: u16, peer: u16, peers: &str) -> Etcd {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let client_url = format!("{scheme}://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let directory = tempfile::Builder::new().prefix("enlist-etcd-").tempdir().unwrap();
        let mut arguments: Vec<String> = [
            ("--name", name),
            ("--data-dir", directory.path().join("data").to_str().unwrap()),
            ("--listen-client-urls", &client_url),
            ("--advertise-client-urls", &client_url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--initial-cluster", peers),
            ("--initial-cluster-state", "new"),
            ("--heartbeat-interval", "50"),
            ("--election-timeout", "500"),
        ]
        .into_iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
        if let Some(certs) = &options.tls {
            arguments.push(format!("--cert-file={}", certs.server_cert().display()));
            arguments.push(format!("--key-file={}", certs.server_key().display()));
            arguments.push(format!("--trusted-ca-file={}", certs.ca().display()));
            arguments.push("--client-cert-auth=true".to_owned());
        }
        arguments.extend(options.flags.iter().cloned());
        let endpoint = format!("127.0.0.1:{client}");
        Etcd { version, endpoint, tls: options.tls.clone(), arguments, directory, child: None }
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(self.version.etcd());
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until the member serves linearizable reads; `false` if it ended instead.
    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if self.child.as_mut().and_then(|child| child.try_wait().unwrap()).is_some() {
                return false;
            }
            if self.etcdctl(&["get", "readiness"]).is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "etcd is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The log of the member.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The settings to reach the member, with its TLS files.
    pub(crate) fn settings(&self) -> StoreSettings {
        let mut settings = StoreSettings::endpoints([self.endpoint.clone()]);
        if let Some(certs) = &self.tls {
            settings.cacert = Some(certs.ca());
            settings.cert = Some(certs.client_cert());
            settings.key = Some(certs.client_key());
        }
        settings
    }

    /// A store on the member.
    pub(crate) fn store(&self) -> Store {
        Store::open(self.settings()).unwrap()
    }

    /// Runs `etcdctl` against the member; the error is its output.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.version.etcdctl());
        command.env("ETCDCTL_API", "3").arg("--endpoints");
        match &self.tls {
            None => command.arg(&self.endpoint),
            Some(certs) => {
                command.arg(format!("https://{}", self.endpoint));
                command.arg("--cacert").arg(certs.ca()).arg("--cert").arg(certs.client_cert());
                command.arg("--key").arg(certs.client_key())
            }
        };
        let output = command.args(["--dial-timeout=2s", "--command-timeout=5s"]).args(arguments).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The value of a metric without labels; 0 while the metric is absent.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.endpoint).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0.0)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    /// SIGSTOP: connections stay open without an answer. Returns when all threads have stopped: on a busy machine they
    /// run for a moment longer, and would answer one more call.
    pub(crate) fn pause(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.stands_still() {
            assert!(Instant::now() < deadline, "the process does not stop");
            std::thread::yield_now();
        }
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // "pid (name) T …"
        let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            stat.map(|stat| state(stat) == Some('T')).unwrap_or(true)
        })
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    /// Sends SIGKILL and waits for the end. Data stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Restarts the member with the same ports and data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.wait_ready(), "etcd did not start again:\n{}", self.log());
    }

    /// Saves a backup; returns its file.
    pub(crate) fn backup(&self) -> PathBuf {
        let file = self.directory.path().join(format!("backup-{}", free_port()));
        self.etcdctl(&["snapshot", "save", file.to_str().unwrap()]).unwrap();
        file
    }

    /// Restarts the member from a backup, with the same ids of cluster and member, as an operator does after a
    /// disaster.
    pub(crate) fn restore(&mut self, backup: &Path) {
        self.restore_by(self.version.etcdctl(), backup, &[]);
    }

    /// The same with revisions above everything that was seen, and no past: what etcd's documentation advises for clients that keep
    /// what they saw. etcd 3.4 has no such flags.
    pub(crate) fn restore_raised(&mut self, backup: &Path) {
        self.restore_by(self.version.binary("etcdutl"), backup, &["--bump-revision=1000000000", "--mark-compacted"]);
    }

    fn restore_by(&mut self, program: PathBuf, backup: &Path, more: &[&str]) {
        self.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        let kept = ["--name=", "--data-dir=", "--initial-cluster=", "--initial-advertise-peer-urls="];
        let flags = self.arguments.iter().filter(|flag| kept.iter().any(|kept| flag.starts_with(kept)));
        let mut command = Command::new(program);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(backup).args(flags).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.spawn();
        assert!(self.wait_ready(), "etcd did not start from its backup:\n{}", self.log());
    }

    /// Restarts the member without any data: another cluster, as after a loss of all disks.
    pub(crate) fn lose_all(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        self.arguments.push(format!("--initial-cluster-token=new-{}", free_port()));
        self.spawn();
        assert!(self.wait_ready(), "etcd did not start empty:\n{}", self.log());
    }

    /// Restarts the member without any data, as a separate cluster under its old address. An operator does this by mistake with
    /// `--initial-cluster-state new` for a lost member.
    pub(crate) fn come_up_alone(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        let flag = |name: &str| self.arguments.iter().find_map(|flag| flag.strip_prefix(name)).unwrap().to_owned();
        let alone = format!("{}={}", flag("--name="), flag("--initial-advertise-peer-urls="));
        self.arguments.retain(|flag| !flag.starts_with("--initial-cluster="));
        self.arguments.push(format!("--initial-cluster={alone}"));
        self.spawn();
        assert!(self.wait_ready(), "etcd did not start alone:\n{}", self.log());
    }

    /// Restarts all members without any data, as one new cluster under the old addresses.
    pub(crate) fn lose_all_members(members: &mut [Etcd]) {
        let token = format!("--initial-cluster-token=new-{}", free_port());
        for member in members.iter_mut() {
            member.kill();
            std::fs::remove_dir_all(member.directory.path().join("data")).unwrap();
            member.arguments.push(token.clone());
        }
        members.iter_mut().for_each(Etcd::spawn);
        assert!(members.iter_mut().all(Etcd::wait_ready), "etcd did not start as a new cluster");
    }

    /// Restarts the member without waiting until it serves (a member without its quorum does not).
    pub(crate) fn restart_unready(&mut self) {
        self.kill();
        self.spawn();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
