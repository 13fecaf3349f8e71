//! The agent: one task on a node that registers it and keeps it registered.
//!
//! It writes a label, is given an assignment, applies it (files, hook, child) and acknowledges it in its status. It sees and
//! writes its own sub-tree `nodes/<id>/` and nothing else; it never touches a network interface (a hook does).
//!
//! [`decide`] is the pure core: what was read → what to do. [`actor`] is the shell: one loop that looks at what is, decides,
//! and keeps at most one store request and one piece of host work under way. [`host`] is everything it does to its host,
//! behind a trait, so that the simulation can replace it; [`os`] is the real one. [`builder`] is how a Rust service
//! registers itself, [`together`] how one that registers many does, [`run`] how the command line does.

pub mod settings;
pub mod decide;
pub mod host;
pub mod actor;
pub mod exit;
pub mod os;
pub mod socket;
pub mod builder;
pub mod together;
pub mod sim;

pub use actor::run;
pub use builder::{Agent, AgentError, Registered};
pub use exit::{AgentExit, Ending};
pub use settings::AgentSettings;
pub use together::SharedAgents;
