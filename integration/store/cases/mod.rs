//! The cases of the conformance suite: what the rest of the project relies on. Each gets a prefix of its own.

pub(crate) mod lease;
pub(crate) mod range;
pub(crate) mod txn;
pub(crate) mod watch;
