//! Micro-benches of the pure parts: `cargo bench`. What they are compared with is their own last run (`target/criterion/`).
//!
//! The whole is measured by `enlist bench`; these only say which part it was.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod fleet;
mod groups;
mod planner;
mod selectors;
mod watch;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, selectors::bench, groups::bench, planner::bench, watch::bench);
criterion_main!(benches);
