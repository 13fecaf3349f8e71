//! What `get` shows of each kind: the JSON objects that docs/json.md documents, and their cells in tables. Pure.
//!
//! The fields of these structs are an interface: their names stay.

pub mod assignment;
pub mod claim;
pub mod group;
pub mod member;
pub mod node;
pub mod pool;
pub mod role;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::content::Content;
use super::output::age;
use crate::model::documents::Document;

/// What a kind is made of.
#[derive(Debug, Clone, Copy)]
pub struct Stores<'a> {
    /// Where nodes register; `None` = it was not read, because nothing of it is needed.
    pub source: Option<&'a Content>,
    /// Relay's and manager's; `None` = not read, or away.
    pub manager: Option<&'a Content>,
}

/// A kind that `get` shows.
pub trait Shown: Serialize + PartialEq + Sized {
    /// The folders of the source that it is made of.
    const SOURCE: &'static [&'static str];
    /// Those of the manager's store.
    const MANAGER: &'static [&'static str];
    /// Headings that a narrow terminal does not get, the first one first.
    const NARROW: &'static [&'static str] = &[];
    /// Headings of a table.
    const HEADINGS: &'static [&'static str];
    /// More headings of a wide one.
    const WIDE: &'static [&'static str];

    /// All objects, in the order of names.
    fn list(stores: Stores<'_>) -> Vec<Self>;
    /// Its name: unique among the objects of its kind.
    fn name(&self) -> String;
    /// Whether a name on the command line means it.
    fn is_called(&self, name: &str) -> bool {
        self.name() == name
    }
    /// Whether it is shown only when it is asked for, by name or with `--all`.
    fn is_hidden(&self) -> bool {
        false
    }
    /// What people should know of the objects as a whole; `None` = nothing.
    fn warning(_stores: Stores<'_>) -> Option<String> {
        None
    }

    /// The documents that `apply` takes, by the name on the command line, or why one cannot be read; `None` = this kind has
    /// none. They are what `-o yaml` shows.
    fn documents(_stores: Stores<'_>) -> Option<Vec<(String, Result<Document, String>)>> {
        None
    }

    /// Whether nothing of that name is an answer too: a group may have no members.
    fn may_be_none(_stores: Stores<'_>, _name: &str) -> bool {
        false
    }
    /// Cells under [`Shown::HEADINGS`]. `now` is for ages.
    fn cells(&self, now: SystemTime) -> Vec<String>;
    /// Cells under [`Shown::WIDE`].
    fn wide_cells(&self) -> Vec<String>;
    /// Whether its objects have variables.
    const HAS_VARIABLES: bool = false;
    /// What a selector on the command line is held against; `None` = this kind has no variables.
    fn variables(&self) -> Option<&BTreeMap<String, String>> {
        None
    }
}

/// `a,b`
pub fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// `http=80,metrics=81`
pub fn pairs<K: ToString, V: ToString>(items: impl IntoIterator<Item = (K, V)>) -> String {
    joined(items.into_iter().map(|(key, value)| format!("{}={}", key.to_string(), value.to_string())))
}

/// How long ago an RFC 3339 time was; empty if it is none. Clocks of hosts differ: what lies ahead was just now.
pub fn age_of(since: &str, now: SystemTime) -> String {
    let then = humantime::parse_rfc3339_weak(since).ok();
    then.map(|then| age(now.duration_since(then).unwrap_or_default().as_secs())).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
