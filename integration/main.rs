//! All integration tests in one binary. Every file says what it needs; real etcds are started by [`support::etcd`].
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod agent;
mod behaviours;
mod bad_input;
mod cli;
mod documents;
mod fuzz;
mod history;
#[path = "history/tests.rs"]
mod history_tests;
mod layers;
mod manager;
mod relay;
mod sim;
mod store;
mod support;
mod whole;
