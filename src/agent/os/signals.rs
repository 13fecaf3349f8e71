//! Signals that are passed on to the child: all that can be, but those that stop the agent. HUP is the agent's own, which reads its
//! settings again; it is passed on only to a child that handles it, because it would end any other.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::agent::host::ChangeRequest;

/// The signals that are passed on. TERM and INT stop the agent; STOP and KILL cannot be caught; CHLD, PIPE and those of
/// faults and of job control are about this process itself.
const FORWARDED: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// Listens for the forwarded signals from now on.
pub(super) fn listen() -> mpsc::Receiver<i32> {
    let (send, receive) = mpsc::channel(16);
    for kind in FORWARDED {
        let number = kind as i32;
        match signal(SignalKind::from_raw(number)) {
            Ok(mut stream) => {
                let send = send.clone();
                tokio::spawn(async move {
                    while stream.recv().await.is_some() {
                        if send.send(number).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(error) => warn!(%error, signal = number, "failed to listen for a signal; it is not forwarded"),
        }
    }
    receive
}

/// Asks for a reload at each HUP from now on.
pub(super) async fn reload_on_hangup(requests: mpsc::Sender<ChangeRequest>) {
    match signal(SignalKind::hangup()) {
        Ok(mut stream) => {
            while stream.recv().await.is_some() {
                // Nobody waits for the answer: it is logged.
                let (reply, _) = oneshot::channel();
                if requests.send(ChangeRequest::Reload(reply)).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => warn!(%error, "HUP cannot be listened for; it does not read settings again"),
    }
}

/// Whether a process has a handler for a signal. What cannot be told counts as none.
fn handles(process: Pid, number: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    is_caught(&status, number)
}

/// `SigCgt:` is a mask in hexadecimal, the lowest bit is signal 1.
fn is_caught(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    u32::try_from(number - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|rest| rest & 1 == 1)
}

/// Sends a signal; one that has ended needs none.
pub(super) fn send(to: Pid, number: i32) {
    if number == Signal::SIGHUP as i32 && !handles(to, number) {
        return;
    }
    if let Ok(signal) = Signal::try_from(number) {
        let _ = kill(to, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::is_caught;

    #[test]
    fn a_handler_is_a_bit_of_the_mask() {
        let status = "Name:\tsh\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000010002\n";
        assert_eq!(
            [1, 2, 17, 18, 64, 65, 0].map(|number| is_caught(status, number)),
            [false, true, true, false, false, false, false]
        );
        assert!(is_caught("SigCgt:\t0000000180014a07\n", 1) && !is_caught("", 1));
    }
}
