//! Checks the invariants on histories: every revision of a store, by any writer. The simulation and the chaos runs pass
//! their histories to these checks.
//!
//! The checks never ask a live store, so that a verdict on a history can be repeated later. [`source`] checks the
//! claims and assignments, [`steps`] each step from one revision to the next, [`copies`] the states of the relay,
//! [`quiet`] the state after all changes have ended.

pub(crate) mod source;
pub(crate) mod steps;
mod steps_of_nodes;
pub(crate) mod copies;
pub(crate) mod quiet;
