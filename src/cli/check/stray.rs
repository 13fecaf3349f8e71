//! What nobody can make anything of: keys that are no key of enlist's, values that no reader understands, and keys in an
//! election that no candidate stands behind. Nobody is in its way, but somebody may have meant something by it.

use std::collections::BTreeSet;

use crate::cli::content::Content;
use crate::model::finding::Finding;
use crate::model::group::Member;
use crate::model::names::NodeId;
use crate::model::status::Status;
use crate::plan::snapshot::Unreadable;
use crate::store::api::{KeyValue, LeaseId};
use crate::store::keys::{NodePart, ParsedKey};
use crate::store::wire::{RoleReport, Stored, Summary};
use crate::{Assignment, Label};

/// What is said of a key that is of no known form.
pub(super) const FOREIGN: &str = "is no key of enlist's: it is left alone; delete it if nobody needs it";

/// Everything of that kind about keys that nothing was said of yet (`told`: relative to the prefix).
pub(in crate::cli) fn stray(content: &Content, told: &BTreeSet<String>) -> Vec<Finding> {
    let prefix = &content.prefix;
    let new = content.parsed().filter(|(_, kv)| !told.contains(&prefix.relative(&kv.key)));
    new.filter_map(|(key, kv)| {
        let (code, message) = about(&key, kv)?;
        Some(Finding::about(code, prefix.relative(&kv.key), message))
    })
    .collect()
}

fn about(key: &ParsedKey, kv: &KeyValue) -> Option<(&'static str, String)> {
    let fault = |code, error: Option<Unreadable>| error.map(|error| (code, error.to_string()));
    match key {
        ParsedKey::Foreign => Some(("foreign-key", FOREIGN.to_owned())),
        ParsedKey::Leader(..) if kv.lease == LeaseId::NONE => {
            let message = "is on no lease: no candidate stands behind it, and it does not count; delete it";
            Some(("candidate-foreign", message.to_owned()))
        }
        ParsedKey::Role(_) => fault("role-unreadable", RoleReport::decode(&kv.value).err()),
        ParsedKey::Copy(node, NodePart::Label) => fault("copy-unreadable", of(node, Label::decode(&kv.value), |label| &label.id)),
        ParsedKey::Copy(node, NodePart::Assignment) => {
            fault("copy-unreadable", of(node, Assignment::decode(&kv.value), |assignment| &assignment.node))
        }
        ParsedKey::Copy(_, NodePart::Status) => fault("copy-unreadable", Status::decode(&kv.value).err()),
        ParsedKey::Summary(_) => fault("summary-unreadable", Summary::decode(&kv.value).err()),
        ParsedKey::Member(..) => fault("member-unreadable", Member::decode(&kv.value).err()),
        _ => None,
    }
}

/// What is wrong with a value that says of which node it is.
fn of<T>(node: &NodeId, value: Result<T, Unreadable>, named: impl Fn(&T) -> &NodeId) -> Option<Unreadable> {
    match value {
        Ok(value) if named(&value) == node => None,
        Ok(value) => Some(Unreadable::Invalid(format!("it says that it is about {}", named(&value)))),
        Err(error) => Some(error),
    }
}
