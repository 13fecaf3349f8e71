//! What happened, line by line: the same seed must write the same log, byte for byte.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Clones write to the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// One more line, with the time since the simulation's start. Only from within a host.
    pub(super) fn line(&self, what: fmt::Arguments<'_>) {
        let at = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let mut text = self.0.lock().unwrap();
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{at:>8} {what}");
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}
