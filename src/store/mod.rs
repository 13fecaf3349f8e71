//! The store: how enlist sees and writes etcd.
//!
//! [`api`] is the small part of etcd that enlist needs, as plain values behind one trait. Two implementations stand behind
//! it: `etcd/` (the only folder that names the client crate) and `memory` (a model of etcd for simulation and tests). On
//! top: [`keys`] and [`wire`] say what is stored where, `feed` follows a prefix, `committer` writes batches, `lease`
//! keeps one alive. Reading order follows the `mod` lines.

pub mod api;
pub mod pages;
pub mod around;
pub mod etcd;
pub mod memory;
pub mod keys;
pub mod grants;
pub mod users;
pub mod wire;
pub mod backoff;
pub mod outage;
pub mod watch;
pub mod feed;
pub mod shared;
pub mod lease;
pub mod batch;
mod batcher;
pub mod committer;
pub mod batched;
