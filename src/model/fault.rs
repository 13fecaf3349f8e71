//! Faults of a definition beyond the types of its fields.

use std::fmt;

/// A rule that a definition breaks, with the field to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field as a document spells it, e.g. `reserve`.
    pub field: &'static str,
    /// The problem and the allowed values.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
