//! Micro-benches of the pure parts: `cargo bench`. Each compares with its own last run (`target/criterion/`).
//!
//! `enlist bench` measures the whole; these benches only show which part has changed.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod fleet;
mod groups;
mod planner;
mod selectors;
mod watch;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, selectors::bench, groups::bench, planner::bench, watch::bench);
criterion_main!(benches);
