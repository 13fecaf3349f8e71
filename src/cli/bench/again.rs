//! This program once more, as a child: what is to be stopped, or whose memory is to be looked at, has to be a process.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::place::Place;
use crate::agent::os::spawner::{Started, spawn};

/// A child of the same program. It dies with this process, or when it is dropped.
pub struct Again(Started);

impl Again {
    /// Starts `enlist bench <what> <flags> <hidden>` at a place. At an etcd of yours the flags are those of this process, which
    /// say how to reach it too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(place: &Place, what: &str, flags: &[(&str, String)], hidden: &str) -> anyhow::Result<Again> {
        let program = std::env::current_exe().context("failed to find this program's own file")?;
        let mut command = Command::new(program);
        match place.private_endpoint() {
            Some(endpoint) => {
                command.args(["bench", what, "--endpoints", endpoint, "--prefix", place.site()?.prefix.as_str()]);
                command.args(flags.iter().flat_map(|(flag, value)| [OsString::from(flag), OsString::from(value)]));
            }
            None => drop(command.args(std::env::args_os().skip(1))),
        }
        command.arg(hidden).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        Ok(Again(spawn(command).await.context("failed to start this program once more")?))
    }

    /// Stops it as it stands (STOP), or lets it go on (CONT).
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.0.pid), signal).context("a child of the bench is gone: see what it said above")
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> anyhow::Result<u64> {
        super::numbers::memory(self.0.pid).context("a child of the bench is gone: see what it said above")
    }

    /// Waits until it ends by itself, which it should not.
    pub async fn ended(&mut self) -> anyhow::Error {
        let how = self.0.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow::anyhow!("a child of the bench ended ({how}): see what it said above")
    }

    /// Ends it by force.
    pub async fn kill(mut self) {
        // An error means that it has ended already.
        let _ = self.0.child.kill().await;
    }
}
