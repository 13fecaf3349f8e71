//! This program once more, as a child: what is to be stopped, or whose memory is to be looked at, has to be a process.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::place::Place;
use crate::agent::os::spawner::{Started, spawn};

/// What a stopped child said is here within this.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// A child of the same program. It dies with this process, or when it is dropped.
pub struct Again {
    started: Started,
    /// What it says on stdout.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Again {
    /// Starts `enlist bench <what> <flags> <hidden>` at a place. At an etcd of yours the flags are those of this process, which
    /// say how to reach it too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(place: &Place, what: &str, flags: &[String], hidden: &str) -> anyhow::Result<Again> {
        let program = std::env::current_exe().context("failed to find this program's own file")?;
        let mut command = Command::new(program);
        match place.private_endpoint() {
            Some(endpoint) => {
                command.args(["bench", what, "--endpoints", endpoint, "--prefix", place.site()?.prefix.as_str()]);
                command.args(flags);
            }
            None => drop(command.args(std::env::args_os().skip(1))),
        }
        command.arg(hidden).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut started = spawn(command).await.context("failed to start this program once more")?;
        let stdout = started.child.stdout.take().context("a child of the bench has no stdout")?;
        Ok(Again { started, lines: BufReader::new(stdout).lines() })
    }

    /// Stops it as it stands (STOP), or lets it go on (CONT).
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.started.pid), signal).context("a child of the bench is gone: see what it said above")
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> anyhow::Result<u64> {
        super::numbers::memory(self.started.pid).context("a child of the bench is gone: see what it said above")
    }

    /// The next number that it says.
    ///
    /// # Errors
    /// When it ends, or says something else.
    pub async fn number(&mut self) -> anyhow::Result<usize> {
        let line = self.lines.next_line().await.context("failed to hear a child of the bench")?;
        let line = line.context("a child of the bench ended: see what it said above")?;
        line.parse().with_context(|| format!("a child of the bench said {line:?}, not a number"))
    }

    /// Takes what it said before it was stopped.
    ///
    /// # Errors
    /// See [`number`](Self::number).
    pub async fn forget_numbers(&mut self) -> anyhow::Result<()> {
        while let Ok(number) = timeout(ON_ITS_WAY, self.number()).await {
            number?;
        }
        Ok(())
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        let how = self.started.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow::anyhow!("a child of the bench ended ({how}): see what it said above")
    }

    /// Ends it by force.
    pub async fn kill(mut self) {
        // An error means that it has ended already.
        let _ = self.started.child.kill().await;
    }
}
