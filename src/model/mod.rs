//! The nouns of enlist: names, labels, pools, assignments, groups. Pure values.
//!
//! Nothing here knows of etcd, time or the network, and only [`documents`] knows YAML and JSON. A value of these types
//! is valid: text is parsed at the edge (`FromStr`, `TryFrom`), which rejects an invalid text, and `fault` reports
//! fields that contradict each other. The stored forms of everything but pools and groups are in
//! [`crate::store::wire`]. Reading order follows the `mod` lines.

pub(crate) mod text;
mod recent;
pub mod names;
pub mod duration;
pub mod fault;
pub mod ports;
pub mod variables;
pub mod selector;
pub mod label;
pub mod status;
pub mod pool;
pub mod claim;
pub mod assignment;
pub mod hold;
pub mod lineage;
pub mod group;
pub mod asked;
pub mod finding;
pub mod documents;
