//! **enlist**: automatic node registration over etcd.
//!
//! A service registers itself with [`Agent::builder`] on a [`Store`]; what it is given is an [`Assignment`]. The roles that answer
//! are [`allocator`], [`relay`] and [`manager`], each a `run` function over a [`reconcile::Site`]; they meet only in the store. What
//! they read and write is in [`model`] ([`Pool`], [`Group`], [`Label`], [`Variables`], [`Ports`], [`Selector`]), what they decide in [`plan`].
//!
//! ```no_run
//! use enlist::store::etcd::StoreSettings;
//! use enlist::{Agent, Store};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::connect(StoreSettings::endpoints(["127.0.0.1:2379"])).await?;
//! let registered = Agent::builder(store).id("edge-7").variable("zone", "eu-1").port("http").join().await?;
//! for socket in registered.sockets() {
//!     println!("listening on {socket}");
//! }
//! # Ok(())
//! # }
//! ```

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
pub use model::ports::Ports;
pub use model::selector::Selector;
pub use model::variables::Variables;
pub use store::api::Store;

/// The README's examples are tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
