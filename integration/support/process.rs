//! Processes of the binary that keep running: their output goes to a file, and dropping the handle kills them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// An orderly end takes at most this long, except on a stalled machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A running process.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the process; both its streams go to the file `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Process {
        let file = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).kill_on_drop(true);
        Process { child: command.spawn().unwrap(), log }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end and returns the exit code; −1 = killed.
    pub(crate) async fn end(&mut self) -> i32 {
        match tokio::time::timeout(LIMIT, self.child.wait()).await {
            Ok(status) => status.unwrap().code().unwrap_or(-1),
            Err(_) => panic!("the process did not end:\n{}", self.log()),
        }
    }

    /// Sends SIGTERM and returns the exit code.
    pub(crate) async fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.end().await
    }

    /// Sends SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.end().await;
    }

    /// The output so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
