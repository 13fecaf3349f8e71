//! Addresses as numbers: the numbers of a pool, the taken ones and the next free one. Nothing here knows of nodes.
//!
//! [`family`] turns addresses into numbers, [`ranges`] are sorted disjoint ranges of numbers (the ranges of a pool less
//! its exclusions), [`bits`] is the hierarchical bitmap of the taken numbers, and [`ports`] is the same for the ports
//! of one address.

pub mod family;
pub mod ranges;
pub mod bits;
pub mod ports;
