//! **enlist**: automatic node registration over etcd.

pub mod model;
pub mod plan;
pub mod store;
pub mod reconcile;
pub mod agent;
pub mod allocator;
pub mod relay;
pub mod manager;
pub mod config;
pub mod telemetry;
pub mod shutdown;
pub mod cli;

pub use agent::Agent;
pub use model::assignment::Assignment;
pub use model::group::Group;
pub use model::label::Label;
pub use model::pool::Pool;
pub use model::selector::Selector;
pub use model::variables::Variables;
pub use store::api::Store;

/// The README's examples are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
