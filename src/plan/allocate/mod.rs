//! Answers to live nodes: first come, first served. Everything here is decided on one snapshot; what makes it safe
//! against what happens meanwhile are the compares that [`answer`] writes.
//!
//! Reading order: [`serve`] decides what a node's answer must do, [`select_pool`] which pool, [`choose_address`],
//! [`choose_shared`] and [`choose_ports`] what out of it, [`keep`] whether what it has still serves, [`leaving`] what becomes of what it had.

pub mod asker;
pub mod serve;
pub mod keep;
pub mod select_pool;
pub mod choose_address;
pub mod choose_shared;
pub mod choose_ports;
pub mod leaving;
pub mod answer;
