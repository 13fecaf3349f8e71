//! The gate of a client, which can stop it between any two calls.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The number of further calls after which a client stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fuse {
    pub(super) calls: u32,
    /// Whether the store still executes the call at which the client stops.
    pub(super) done: bool,
}

/// Open, or closed.
#[derive(Debug)]
pub(super) struct Gate {
    closed: watch::Sender<bool>,
    fuse: Mutex<Option<Fuse>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Gate { closed: watch::Sender::new(false), fuse: Mutex::new(None) }
    }

    pub(super) fn set_fuse(&self, fuse: Option<Fuse>) {
        *self.fuse.lock().unwrap_or_else(PoisonError::into_inner) = fuse;
    }

    pub(super) fn freeze(&self) {
        self.closed.send_replace(true);
    }

    /// Opens the gate and removes a fuse that has not burnt down.
    pub(super) fn thaw(&self) {
        self.set_fuse(None);
        self.closed.send_replace(false);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.closed.borrow()
    }

    /// Counts a call that is about to be sent. `Some` = the fuse burns down at this call, with its `done`.
    pub(super) fn count(&self) -> Option<bool> {
        let mut fuse = self.fuse.lock().unwrap_or_else(PoisonError::into_inner);
        let burning = fuse.as_mut()?;
        if burning.calls > 0 {
            burning.calls -= 1;
            return None;
        }
        fuse.take().map(|burnt| burnt.done)
    }

    /// Waits until the gate is closed, or open.
    pub(super) async fn wait(&self, closed: bool) {
        let mut state = self.closed.subscribe();
        // The sender lives as long as the gate.
        let _ = state.wait_for(|state| *state == closed).await;
    }
}
