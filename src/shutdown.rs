//! How a process is told to stop: the first SIGTERM or SIGINT asks for an orderly stop, the second one for an immediate one.
//!
//! It never exits by itself: whoever holds the tokens decides what stopping means.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two stages of stopping.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish what is under way and stop.
    pub orderly: CancellationToken,
    /// Cancelled by the second signal: drop everything.
    pub immediate: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Shutdown::default();
        let tokens = shutdown.clone();
        tokio::spawn(async move {
            for token in [tokens.orderly, tokens.immediate] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::debug!(signal = name, "signal");
                token.cancel();
            }
        });
        Ok(shutdown)
    }
}
