//! What the planner does, told as small stories on a store in memory. Each test's name is the behaviour.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod assign;
mod want;
mod pools;
mod change;
mod compares;
mod reasons;
mod refused;
mod away;
mod brake;
mod races;
mod restore;
mod repair;
mod usage;
mod explain;
mod random;
mod outside;
mod picture;
mod speed;
