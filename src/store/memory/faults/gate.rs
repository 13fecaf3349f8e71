//! The gate of a client that can be made to stand still, between any two of its calls.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// After how many further calls a client stands still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fuse {
    pub(super) calls: u32,
    /// Whether the store still does the call at which it happens.
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

    /// Opens it; a fuse that has not burnt down is taken out.
    pub(super) fn thaw(&self) {
        self.set_fuse(None);
        self.closed.send_replace(false);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.closed.borrow()
    }

    /// A call is about to be sent. `Some` = this is the one at which the fuse has burnt down: whether it is still done.
    pub(super) fn count(&self) -> Option<bool> {
        let mut fuse = self.fuse.lock().unwrap_or_else(PoisonError::into_inner);
        let burning = fuse.as_mut()?;
        if burning.calls > 0 {
            burning.calls -= 1;
            return None;
        }
        fuse.take().map(|burnt| burnt.done)
    }

    /// Waits until it is closed, or open.
    pub(super) async fn wait(&self, closed: bool) {
        let mut state = self.closed.subscribe();
        // The sender lives as long as the gate.
        let _ = state.wait_for(|state| *state == closed).await;
    }
}
