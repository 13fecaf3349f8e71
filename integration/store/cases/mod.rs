//! The cases of the conformance suite: the behaviour that the rest of the project relies on. Each case gets its own
//! prefix.

pub(crate) mod lease;
pub(crate) mod range;
pub(crate) mod txn;
pub(crate) mod watch;
