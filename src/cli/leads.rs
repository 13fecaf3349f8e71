//! Which roles lead. Pure.
//!
//! A leader's report and its key in the election are on its lease, so either says that somebody is there. On no lease they were
//! copied, or put by hand: nobody stands behind them.

use super::content::Content;
use crate::store::api::LeaseId;
use crate::store::keys::{ParsedKey, Role};

/// The folders that have to be read for the question, at the role's own store.
pub const FOLDERS: [&str; 2] = ["leaders", "roles"];

/// Whether anybody leads a role. `content`: of the source for the allocator, of the destination for relay and manager.
pub fn leads(content: &Content, role: Role) -> bool {
    let is_of_role = |key: &ParsedKey| matches!(key, ParsedKey::Role(of) | ParsedKey::Leader(of, _) if *of == role);
    content.parsed().any(|(key, kv)| is_of_role(&key) && kv.lease != LeaseId::NONE)
}

/// What people should know who look at nodes; `None` = an allocator leads.
pub fn no_allocator(source: &Content) -> Option<&'static str> {
    (!leads(source, Role::Allocator)).then_some("no allocator leads: nobody is given anything, or released, before one does")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Revision;
    use crate::store::api::{Key, KeyValue};
    use crate::store::keys::Prefix;

    fn content(key: &str, lease: i64) -> Content {
        let mut content = Content::empty(Prefix::default());
        let key = Key::from(format!("/enlist/{key}"));
        let revision = Revision(1);
        let (value, lease) = ("{}".into(), LeaseId(lease));
        let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, version: 1, lease };
        content.kvs.insert(key, kv);
        content
    }

    #[test]
    fn somebody_leads_whose_key_is_on_a_lease() {
        for (key, lease, expected) in [
            ("leaders/allocator/1", 7, true),
            ("roles/allocator", 7, true),
            ("leaders/allocator/1", 0, false),
            ("roles/allocator", 0, false),
            ("leaders/relay/1", 7, false),
            ("nodes/a/status", 7, false),
        ] {
            let content = content(key, lease);
            assert_eq!(leads(&content, Role::Allocator), expected, "{key} {lease}");
            assert_eq!(no_allocator(&content).is_none(), expected, "{key} {lease}");
        }
    }
}
