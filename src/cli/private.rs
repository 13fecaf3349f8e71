//! A private etcd: a child process on free loopback ports that dies with this process; or several that are one cluster.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::agent::os::spawner::{Started, spawn};
use crate::cli::exit::Fault;
use crate::store::api::Store;
use crate::store::etcd::StoreSettings;

/// How to get an etcd.
const HOW: &str = "no etcd binary was found. Get one with
  apt-get install etcd-server      (Debian; or scripts/install-etcd)
or name one with --etcd FILE, or use an etcd that runs with --endpoints HOST:PORT";
/// Somebody may take a port between our look and etcd's start: that is tried again.
const ATTEMPTS: usize = 5;
/// A first start writes its files; slow disks take seconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between TERM and KILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// It runs.
pub struct PrivateEtcd {
    process: Started,
    home: Home,
    endpoint: String,
    version: String,
    log: PathBuf,
}

/// What it is started with: the same again after a stop.
struct Home {
    binary: PathBuf,
    folder: PathBuf,
    name: String,
    client: u16,
    peer: u16,
    /// All members: `name=url`, comma separated.
    cluster: String,
}

impl PrivateEtcd {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When there is no binary, or it does not come up; its log is named then.
    pub async fn start(binary: Option<&Path>, folder: &Path) -> anyhow::Result<PrivateEtcd> {
        let mut members = PrivateEtcd::start_members(binary, folder, 1).await?;
        members.pop().context("no member of etcd was started")
    }

    /// Starts this many members of one cluster and waits until all of them answer.
    ///
    /// # Errors
    /// As [`PrivateEtcd::start`].
    pub async fn start_members(binary: Option<&Path>, folder: &Path, members: usize) -> anyhow::Result<Vec<PrivateEtcd>> {
        let binary = binary.map(Path::to_path_buf).or_else(in_path).ok_or_else(|| Fault::NotFound(HOW.into()))?;
        if !binary.is_file() {
            return Err(Fault::NotFound(format!("there is no etcd binary {}", binary.display())).into());
        }
        for _ in 0..ATTEMPTS {
            let homes = homes(&binary, folder, members)?;
            // All at once: none of them answers before most of them are there.
            let started = futures::future::try_join_all(homes.into_iter().map(Home::start)).await?;
            if let Some(all) = started.into_iter().collect::<Option<Vec<PrivateEtcd>>>() {
                return Ok(all);
            }
        }
        let log = folder.join("etcd.log");
        anyhow::bail!("etcd did not come up: see {}{}", log.display(), last_line(&log))
    }

    /// Kills it at once, as a power cut would.
    pub async fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.child.kill().await;
    }

    /// Starts it again after [`PrivateEtcd::kill`], on the same data and ports, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up; its log is named then.
    pub async fn start_again(self) -> anyhow::Result<PrivateEtcd> {
        let PrivateEtcd { home, log, .. } = self;
        let again = home.start().await?;
        again.with_context(|| format!("etcd did not come up again: see {}{}", log.display(), last_line(&log)))
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its process, for looking at what it costs.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// What it says it is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Waits until it ends by itself, and says so.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let how = self.process.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow::anyhow!("the private etcd ended ({how}): see {}", self.log.display())
    }

    /// Ends it: in order if it can, else by force.
    pub async fn stop(mut self) {
        // An error means that it has ended already.
        let _ = kill(Pid::from_raw(self.process.pid), Signal::SIGTERM);
        if tokio::time::timeout(STOP_LIMIT, self.process.child.wait()).await.is_err() {
            let _ = self.process.child.kill().await;
        }
    }
}

/// A home for each member: the first one's is the folder itself, as that of a single one.
fn homes(binary: &Path, folder: &Path, members: usize) -> anyhow::Result<Vec<Home>> {
    let ports = (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<anyhow::Result<Vec<_>>>()?;
    let name = |n: usize| if n == 0 { "dev".to_owned() } else { format!("dev-{n}") };
    let cluster: Vec<String> = ports.iter().enumerate().map(|(n, (_, peer))| format!("{}={}", name(n), url(*peer))).collect();
    let home = |(n, (client, peer)): (usize, (u16, u16))| {
        let folder = if n == 0 { folder.to_owned() } else { folder.join(name(n)) };
        Home { binary: binary.to_owned(), folder, name: name(n), client, peer, cluster: cluster.join(",") }
    };
    Ok(ports.into_iter().enumerate().map(home).collect())
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Home {
    /// Starts it and waits until it answers; `None` = it ended (its port was taken, say).
    async fn start(self) -> anyhow::Result<Option<PrivateEtcd>> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("failed to make {}", self.folder.display()))?;
        let log = self.folder.join("etcd.log");
        let process = spawn(command(&self, &log)?).await;
        let mut process = process.with_context(|| format!("failed to start {}", self.binary.display()))?;
        let endpoint = format!("127.0.0.1:{}", self.client);
        let settings = StoreSettings { dial_timeout: START_LIMIT, ..StoreSettings::endpoints([endpoint.clone()]) };
        let member = async { Store::connect(settings).await?.member().await };
        let member = tokio::select! {
            member = member => member.context("the private etcd does not answer")?,
            _ = process.child.wait() => return Ok(None),
        };
        Ok(Some(PrivateEtcd { process, home: self, endpoint, version: member.version, log }))
    }
}

fn command(home: &Home, log: &Path) -> anyhow::Result<Command> {
    let log = File::create(log).with_context(|| format!("failed to make {}", log.display()))?;
    let mut command = Command::new(&home.binary);
    command
        .args(["--name", &home.name, "--listen-client-urls", &url(home.client), "--advertise-client-urls", &url(home.client)])
        .args(["--listen-peer-urls", &url(home.peer), "--initial-advertise-peer-urls", &url(home.peer)])
        .args(["--initial-cluster", &home.cluster, "--data-dir"])
        .arg(home.folder.join("data"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    // Settings of another etcd on this machine must not reach this one.
    let foreign = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("ETCD_"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| foreign(name)) {
        command.env_remove(name);
    }
    if cfg!(target_arch = "aarch64") {
        command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
    }
    Ok(command)
}

/// What it said last, which is mostly why it ended.
fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.is_empty()).map(|line| format!("\n  {line}")).unwrap_or_default()
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|file| file.is_file())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
