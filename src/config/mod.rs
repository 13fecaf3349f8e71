//! Settings: built-in defaults ← a file ← `ENLIST__SECTION__KEY` variables ← flags. An unknown key is an error that names the
//! nearest known one.
//!
//! [`sections`] says which settings there are, [`mod@load`] puts the layers on top of each other, [`resolve`] turns sections into
//! the settings structs that the modules own. No module reads settings by itself. Variables of the form `ENLIST_X` (one
//! underscore) are what hooks and children are given, and never settings: Kubernetes makes such variables by itself for a
//! service of that name.

pub mod span;
pub mod sections;
pub mod load;
pub mod resolve;
pub mod agent;
mod vars_file;

pub use load::{ConfigError, Inputs, Loaded, load};
pub use sections::Settings;

/// Where the file is looked for when none is named. It need not exist.
pub const DEFAULT_FILE: &str = "/etc/enlist/enlist.toml";
