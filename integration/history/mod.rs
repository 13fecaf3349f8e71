//! What must always hold, proven on histories: every revision of a store as it was made, whoever made it. The simulation
//! and the chaos runs give their histories here.
//!
//! It must never ask a live store anything: what it says of a history can be said again tomorrow. [`source`] proves the
//! claims and assignments, [`steps`] each step from one revision to the next, [`copies`] the relay's states, [`quiet`] what must be once nothing changes any more.

pub(crate) mod source;
pub(crate) mod steps;
mod steps_of_nodes;
pub(crate) mod copies;
pub(crate) mod quiet;
