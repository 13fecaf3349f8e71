//! For tests: a small store in memory that plans are applied to, and what agents, operators and clocks do to it.
//!
//! It executes changes with their compares, one request after the other, as a store would. No test of the planner is
//! allowed to write an expectation about a change that was never applied.

pub mod apply;
pub mod lab;
pub mod make;
