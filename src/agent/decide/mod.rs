//! The agent's decisions, purely: what was read, what is known → what to do. No async, clock, randomness or IO.
//!
//! [`subtree`] is what was read, [`applied`] what is in use and what hooks, files and children are given of it; [`identity`]
//! decides whether this agent may take its id, [`join`] makes the transaction that does; [`observe`] says what an observed
//! sub-tree asks for, [`isolation`] when a node that cannot reach etcd must stop using what it has, [`word`] whether a store gives
//! out of a past that is over.

pub mod subtree;
pub mod applied;
pub mod identity;
pub mod join;
pub mod observe;
pub mod isolation;
pub mod word;

#[cfg(test)]
pub(crate) mod fixtures;
