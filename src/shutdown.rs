//! How a process is told to stop: the first SIGTERM or SIGINT asks for an orderly stop, the second one for an immediate one. A terminal
//! that is closed (SIGHUP) asks for an orderly stop too, unless the process means something else by it.
//!
//! This module never exits the process: the holder of the tokens decides how to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Two stages of stopping.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish the work under way and stop.
    pub orderly: CancellationToken,
    /// Cancelled by the second signal: drop everything.
    pub immediate: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let shutdown = Shutdown::but_hangup()?;
        let (mut hangup, orderly) = (signal(SignalKind::hangup())?, shutdown.orderly.clone());
        tokio::spawn(async move {
            if hangup.recv().await.is_some() {
                orderly.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Listens for SIGTERM and SIGINT from now on. SIGHUP does nothing by itself any more.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn but_hangup() -> std::io::Result<Shutdown> {
        // Once it is listened for, it never ends the process.
        let _hangup = signal(SignalKind::hangup())?;
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
