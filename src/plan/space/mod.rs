//! Numbers for addresses: which exist in a pool, which are taken, what is the next free one. Knows nothing of nodes.
//!
//! [`family`] turns addresses into numbers, [`ranges`] are sorted disjoint ranges of them (what a pool lists, less what
//! it excludes), [`bits`] is the hierarchical bitmap of what is taken,
//! [`ports`] the same for the ports of one address.

pub mod family;
pub mod ranges;
pub mod bits;
pub mod ports;
