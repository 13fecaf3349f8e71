//! Findings: what is wrong with a stored thing. A bad record costs that record, and says so here.

use std::fmt;

/// Something `enlist check` reports, and roles count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A code out of a closed set, e.g. `label-invalid`.
    pub code: &'static str,
    /// The keys concerned, relative to the prefix, e.g. `nodes/edge-7/label`.
    pub keys: Vec<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding about one key.
    pub fn about(code: &'static str, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, keys: vec![key.into()], message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.code, self.keys.join(", "), self.message)
    }
}
