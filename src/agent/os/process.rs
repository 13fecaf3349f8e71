//! Runs hooks and children.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use super::spawner::{self, Started};
use crate::agent::host::{Child, HostError};
use crate::agent::os::signals;

/// Bytes of a hook's last output in the error message.
const TAIL_BYTES: usize = 400;
/// The limit for reading output after the end of a hook: a process that the hook left running may hold the output open.
const OUTPUT_LIMIT: Duration = Duration::from_millis(200);

/// The code of an exit: 128 + n for a signal.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

/// A command in the agent's environment with `env` on top. Variables `ENLIST…` of the agent's environment are its
/// settings (possibly a password) or come from an outer agent, so the command does not get them.
fn command(program: impl AsRef<std::ffi::OsStr>, env: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ENLIST_") {
            command.env_remove(name);
        }
    }
    command.envs(env);
    command
}

/// Kills a process group when dropped, unless it is cleared.
struct KillOnDrop(Option<Pid>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a hook by `/bin/sh -c`. On a drop or time-out its process group is killed.
///
/// # Errors
/// The exit code with the end of the output, the time limit, or the error of the operating system.
pub async fn run_hook(hook: &str, env: &BTreeMap<String, String>, limit: Duration) -> Result<(), HostError> {
    let mut shell = command("/bin/sh", env);
    shell.arg("-c").arg(hook).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut started = spawner::spawn(shell).await.map_err(|error| HostError::failed("failed to start the hook", error))?;
    let mut guard = KillOnDrop(Some(Pid::from_raw(started.pid)));
    let out = tokio::spawn(tail(started.child.stdout.take()));
    let err = tokio::spawn(tail(started.child.stderr.take()));
    let status = match timeout(limit, started.child.wait()).await {
        Ok(status) => status.map_err(|error| HostError::failed("the hook", error))?,
        Err(_) => {
            return Err(HostError::Failed(format!("the hook did not end within {}", humantime::format_duration(limit))));
        }
    };
    guard.0 = None;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    for output in [err, out] {
        let abort = output.abort_handle();
        match timeout(OUTPUT_LIMIT, output).await {
            Ok(Ok(text)) if said.is_empty() => said = text,
            Ok(_) => {}
            Err(_) => abort.abort(),
        }
    }
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Err(HostError::Failed(format!("the hook ended with exit code {}{said}", code(status))))
}

/// The end of an output, on one line.
async fn tail(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut end: Vec<u8> = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = output.read(&mut chunk).await {
        end.extend_from_slice(chunk.get(..n).unwrap_or_default());
        let surplus = end.len().saturating_sub(TAIL_BYTES);
        end.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&end).lines().map(str::trim).collect::<Vec<_>>().join("; ");
    if !text.is_empty() {
        debug!(output = text, "hook output");
    }
    text
}

/// A running child and the task that waits for it.
struct OsChild {
    pid: i32,
    ended: watch::Receiver<Option<i32>>,
}

impl Child for OsChild {
    fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    fn signal(&self, signal: i32) {
        // Race: after the wait for the process, another process may have its id.
        if self.ended.borrow().is_none() {
            signals::send(Pid::from_raw(self.pid), signal);
        }
    }

    fn signal_group(&self, signal: i32) {
        // The id of the group stays reserved while any process of the group runs; the kernel gives it to no other
        // process meanwhile.
        if let Ok(signal) = Signal::try_from(signal) {
            let _ = killpg(Pid::from_raw(self.pid), signal);
        }
    }

    fn ended(&self) -> BoxFuture<'static, i32> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(code) => code.unwrap_or(1),
                Err(_) => 1,
            }
        }
        .boxed()
    }
}

impl Drop for OsChild {
    fn drop(&mut self) {
        // Race: after the wait for the process, another process may have its id.
        if self.ended.borrow().is_none() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// Starts the child in its own process group. The child dies with this process.
///
/// # Errors
/// The error of the operating system, with the name of the program.
pub async fn start_child(words: &[OsString], env: &BTreeMap<String, String>) -> Result<Arc<dyn Child>, HostError> {
    let (program, arguments) = words.split_first().ok_or_else(|| HostError::Failed("there is no command".into()))?;
    let mut child = command(program, env);
    child.args(arguments);
    let failed = |error| HostError::failed(format!("failed to start {}", program.display()), error);
    let mut started: Started = spawner::spawn(child).await.map_err(failed)?;
    let pid = started.pid;
    let (tell, ended) = watch::channel(None);
    tokio::spawn(async move {
        let status = started.child.wait().await;
        tell.send_replace(Some(status.map_or(1, code)));
    });
    Ok(Arc::new(OsChild { pid, ended }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn env(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[tokio::test]
    async fn hook_gets_its_variables_and_fails_with_its_output() {
        let limit = Duration::from_secs(20);
        run_hook("test \"$ENLIST_EVENT\" = assigned", &env("ENLIST_EVENT", "assigned"), limit).await.unwrap();
        let error = run_hook("echo out; echo no such interface >&2; exit 3", &BTreeMap::new(), limit).await.unwrap_err();
        assert_eq!(error.to_string(), "the hook ended with exit code 3: no such interface");
    }

    #[tokio::test]
    async fn hung_hook_is_killed_with_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let hook = format!("sleep 600 & echo $! > {}; wait", file.display());
        let error = run_hook(&hook, &BTreeMap::new(), Duration::from_millis(500)).await.unwrap_err();
        assert!(error.to_string().contains("500ms"), "{error}");
        until_gone(pid_in(&file).await).await;
    }

    #[tokio::test]
    async fn dropped_child_is_killed_with_its_processes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let child = start_child(&["/bin/sh", "-c", &script].map(OsString::from), &BTreeMap::new()).await.unwrap();
        let grandchild = pid_in(&file).await;
        drop(child);
        until_gone(grandchild).await;
    }

    async fn until<T>(what: &str, condition: impl Fn() -> Option<T>) -> T {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(tokio::time::Instant::now() < until, "{what} did not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn pid_in(file: &std::path::Path) -> i32 {
        until("a process id", || std::fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))?.trim().parse().ok())
            .await
    }

    /// A zombie counts as gone.
    async fn until_gone(pid: i32) {
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
            Err(_) => true,
        };
        until(&format!("the end of process {pid}"), || gone().then_some(())).await;
    }

    #[tokio::test]
    async fn child_ends_with_its_code_or_its_signal() {
        let words = |script: &str| ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        let child = start_child(&words("exit $ENLIST_PORT"), &env("ENLIST_PORT", "7")).await.unwrap();
        assert_eq!(child.ended().await, 7);
        let child = start_child(&words("exec sleep 600"), &BTreeMap::new()).await.unwrap();
        child.signal_group(15);
        assert_eq!(child.ended().await, 143);
        assert_eq!(child.ended().await, 143);
        let error = start_child(&["/no/such/program".into()], &BTreeMap::new()).await.err().unwrap();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
