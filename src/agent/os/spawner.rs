//! One long-lived thread that starts all processes of the agents in this process.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends: a child started from a worker thread of the runtime, or
//! from a thread of its blocking pool, would be killed when that thread is retired. This thread ends with the process.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, OnceLock, mpsc};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

/// Ids of the started processes that no code has waited for yet: the reaper of an init process leaves them alone.
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A started process. Dropping it removes its id from the known ones.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub child: Child,
    /// The id of the process and of its process group.
    pub pid: i32,
}

impl Drop for Started {
    fn drop(&mut self) {
        with_known(|known| known.remove(&self.pid));
    }
}

/// Runs `act` on the known ids; no process starts meanwhile.
pub(super) fn with_known<T>(act: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
    let mut known = match KNOWN.lock() {
        Ok(known) => known,
        // No code leaves the set half changed under the lock.
        Err(poisoned) => poisoned.into_inner(),
    };
    act(&mut known)
}

/// Starts a process in its own process group that dies with this process.
///
/// # Errors
/// The error of the operating system.
pub async fn spawn(mut command: Command) -> io::Result<Started> {
    command.process_group(0);
    super::death::with_parent(&mut command);
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    sender().send(Job { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    let child = answer.await.map_err(|_| gone())??;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(gone)?;
    Ok(Started { child, pid })
}

fn sender() -> &'static mpsc::Sender<Job> {
    SPAWNER.get_or_init(|| {
        let (send, jobs) = mpsc::channel();
        // If no thread can be created, `jobs` is dropped with the closure and every send fails.
        let _ = std::thread::Builder::new().name("enlist-spawner".into()).spawn(move || work(jobs));
        send
    })
}

fn work(jobs: mpsc::Receiver<Job>) {
    for mut job in jobs {
        let _runtime = job.runtime.enter();
        let result = with_known(|known| {
            let child = job.command.spawn();
            if let Some(pid) = child.as_ref().ok().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok()) {
                known.insert(pid);
            }
            child
        });
        // The caller may be gone; then the process is killed (`kill_on_drop`).
        let _ = job.reply.send(result);
    }
}
