//! Reaps orphans: an agent that is process 1 (in a container) is the parent of every orphan, and they stay zombies
//! until it waits for them.
//!
//! The reaper skips the processes that the agent started: the code that started them waits for them, and needs the exit
//! code.

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::spawner::with_known;

/// Starts to wait for orphans if this is process 1. Only a pure agent process may do this: the reaper would take
/// children that other code of the process started.
pub(super) fn start_if_init() -> Option<JoinHandle<()>> {
    if getpid() != Pid::from_raw(1) {
        return None;
    }
    match signal(SignalKind::child()) {
        Ok(mut ended) => Some(tokio::spawn(async move {
            loop {
                reap();
                if ended.recv().await.is_none() {
                    return;
                }
            }
        })),
        Err(error) => {
            warn!(%error, "failed to listen for ended processes; orphans stay zombies");
            None
        }
    }
}

/// Waits for every zombie child of this process that no other code waits for.
///
/// `waitpid(-1)` cannot skip a process, and a peek (`WNOWAIT`) returns the same one each time, so `/proc` lists the
/// zombies.
fn reap() {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    with_known(|known| {
        for pid in pids {
            if !known.contains(&pid) && is_zombie_of_ours(pid) {
                let result = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
                debug!(pid, ?result, "waited for an orphan");
            }
        }
    });
}

fn is_zombie_of_ours(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_zombie_of(&stat, getpid().as_raw()))
}

/// `pid (name) state ppid …`; the name may hold anything, parentheses too.
fn is_zombie_of(stat: &str, parent: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut words = rest.split_whitespace();
    words.next() == Some("Z") && words.next().and_then(|word| word.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::is_zombie_of;

    #[test]
    fn only_zombies_of_this_parent() {
        assert!(is_zombie_of("7 (a) Z) Z 1 7 7 0", 1));
        assert!(!is_zombie_of("7 (a) S 1 7 7 0", 1));
        assert!(!is_zombie_of("7 (Z 1) S 1", 1));
        assert!(!is_zombie_of("7 (a) Z 12 7", 1));
        assert!(!is_zombie_of("", 1));
    }
}
