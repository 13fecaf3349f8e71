//! Signals that are passed on to the child: all that can be, but those that stop the agent.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::warn;

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

/// Listens for them from now on.
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
            Err(error) => warn!(%error, signal = number, "a signal cannot be passed on"),
        }
    }
    receive
}

/// Sends a signal; one that has ended needs none.
pub(super) fn send(to: Pid, number: i32) {
    if let Ok(signal) = Signal::try_from(number) {
        let _ = kill(to, signal);
    }
}
