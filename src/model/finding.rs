//! Findings: problems of stored records. A bad record costs only that record, and a finding reports it.

use std::fmt;

/// A problem that `enlist check` reports and that roles count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// A code out of a closed set, e.g. `label-invalid`.
    pub code: &'static str,
    /// The keys that it concerns, relative to the prefix, e.g. `nodes/edge-7/label`.
    pub keys: Vec<String>,
    /// The problem and the remedy.
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
