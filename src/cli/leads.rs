//! Which roles lead. Pure.
//!
//! A leader has a key in the election, on its lease. A key on no lease was copied, or put by hand: no instance keeps it. A report alone
//! says nothing: it may outlive its leader for as long as the lease.

use std::collections::BTreeMap;

use super::content::Content;
use crate::store::api::{KeyValue, LeaseId};
use crate::store::keys::{ParsedKey, Role};

/// The folders that have to be read for the question, at the role's own store.
pub const FOLDERS: [&str; 2] = ["leaders", "roles"];

/// Whether anybody leads a role. `content`: of the source for the allocator, of the destination for relay and manager.
pub fn leads(content: &Content, role: Role) -> bool {
    leaders(content).contains_key(&role)
}

/// The instance that leads each role of this store, e.g. `host-a/4711`: the oldest candidate, as in etcd's elections. A key without a
/// lease is nobody's candidacy.
pub fn leaders(content: &Content) -> BTreeMap<Role, String> {
    let mut oldest: BTreeMap<Role, &KeyValue> = BTreeMap::new();
    for (key, kv) in content.parsed() {
        let ParsedKey::Leader(role, _) = key else { continue };
        let is_older = oldest.get(&role).is_none_or(|other| kv.create_revision < other.create_revision);
        if kv.lease != LeaseId::NONE && is_older {
            oldest.insert(role, kv);
        }
    }
    oldest.into_iter().map(|(role, kv)| (role, String::from_utf8_lossy(&kv.value).into_owned())).collect()
}

/// What people should know who look at nodes; `None` = an allocator leads.
pub fn no_allocator(source: &Content) -> Option<&'static str> {
    (!leads(source, Role::Allocator)).then_some("no allocator leads: nobody is given anything, or released, before one does")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Revision;
    use crate::store::api::Key;
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
            ("roles/allocator", 7, false),
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

    #[test]
    fn oldest_candidate_on_a_lease_leads() {
        let mut content = Content::empty(Prefix::default());
        for (key, value, created, lease) in [
            ("relay/9", "second", 7, 3),
            ("relay/a", "first", 5, 4),
            ("relay/1", "by hand", 1, 0),
            ("manager/1", "by hand", 1, 0),
        ] {
            let key = crate::store::api::Key::from(format!("/enlist/leaders/{key}"));
            let revision = Revision(created);
            let (value, lease) = (value.to_owned().into(), LeaseId(lease));
            let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, version: 1, lease };
            content.kvs.insert(key, kv);
        }
        assert_eq!(leaders(&content), BTreeMap::from([(Role::Relay, "first".to_owned())]));
    }
}
