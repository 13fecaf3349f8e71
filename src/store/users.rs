//! What has to be written into etcd's users and roles so that they hold the [`grants`](super::grants): pure, and idempotent.
//!
//! Each write makes etcd rebuild the permissions of all users and makes tokens old, so there is one [`Change`] for each real
//! difference. Roles of enlist are made exact: a permission that is not in the data is revoked, after the others were granted.
//! Users are only added to: what an operator gave them besides stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures::future::BoxFuture;

use super::api::{KeyRange, StoreError};
use super::grants::{Grant, Grants};

/// The roles and users that a store has, as far as they are of interest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Of the roles asked for, those that exist, with their permissions.
    pub roles: BTreeMap<String, Vec<Grant>>,
    /// Of the users asked for, those that exist, with their roles.
    pub users: BTreeMap<String, BTreeSet<String>>,
    /// How many users there are at all.
    pub user_count: usize,
}

/// One write to etcd's users and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make a role without permissions.
    AddRole(String),
    /// Give a role a permission; one on the very same range is replaced.
    Grant(String, Grant),
    /// Take a permission from a role.
    Revoke(String, KeyRange),
    /// Make a user without roles.
    AddUser(String),
    /// Give a user a role.
    GiveRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
}

/// How a new user logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// With this password.
    Password(String),
    /// Only with a client certificate that has its name as common name.
    Certificate,
}

impl fmt::Debug for Login {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::Password(_) => "Password",
            Login::Certificate => "Certificate",
        })
    }
}

/// etcd's users and roles, read and written.
pub trait UserAdmin: Send + Sync {
    /// Reads what exists of the roles and users that `wanted` names.
    fn read<'a>(&'a self, wanted: &'a Grants) -> BoxFuture<'a, Result<Found, StoreError>>;
    /// Makes one change; `login` is for [`Change::AddUser`], where `None` means a certificate.
    fn write<'a>(&'a self, change: &'a Change, login: Option<&'a Login>) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// Whether a range holds all of another one, which is more than one key.
fn covers(range: &KeyRange, own: &KeyRange) -> bool {
    let ends_later = match (&range.end, &own.end) {
        (Some(end), Some(own)) => end.as_bytes() == [0] || end >= own,
        _ => false,
    };
    range.start <= own.start && ends_later
}

/// The changes that are missing, in an order in which no user lacks a permission meanwhile. What a role may do below other prefixes is
/// left alone.
pub fn changes(wanted: &Grants, found: &Found) -> Vec<Change> {
    let mut changes = Vec::new();
    for role in &wanted.roles {
        let held = found.roles.get(&role.name);
        if held.is_none() {
            changes.push(Change::AddRole(role.name.clone()));
        }
        let held = held.map(Vec::as_slice).unwrap_or_default();
        let missing = role.grants.iter().filter(|grant| !held.contains(grant));
        changes.extend(missing.map(|grant| Change::Grant(role.name.clone(), grant.clone())));
    }
    for user in &wanted.users {
        let held = found.users.get(&user.name);
        if held.is_none() {
            changes.push(Change::AddUser(user.name.clone()));
        }
        let missing = user.roles.iter().filter(|role| held.is_none_or(|held| !held.contains(*role)));
        changes.extend(missing.map(|role| Change::GiveRole { user: user.name.clone(), role: role.clone() }));
    }
    for role in &wanted.roles {
        let held = found.roles.get(&role.name).map(Vec::as_slice).unwrap_or_default();
        let is_ours = |range: &KeyRange| wanted.within.iter().any(|own| own.contains(&range.start) || covers(range, own));
        let extra = held.iter().filter(|grant| is_ours(&grant.range));
        let extra = extra.filter(|grant| !role.grants.iter().any(|wanted| wanted.range == grant.range));
        changes.extend(extra.map(|grant| Change::Revoke(role.name.clone(), grant.range.clone())));
    }
    changes
}

/// Takes out the users that cannot be made, because nobody said how they log in, and answers their names.
pub fn without_login(changes: &mut Vec<Change>, logins: &BTreeMap<String, Login>) -> Vec<String> {
    let added = changes.iter().filter_map(|change| match change {
        Change::AddUser(user) if !logins.contains_key(user) => Some(user.clone()),
        _ => None,
    });
    let missing: Vec<String> = added.collect();
    changes.retain(|change| match change {
        Change::AddUser(user) | Change::GiveRole { user, .. } => !missing.contains(user),
        _ => true,
    });
    missing
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::store::grants::{User, Verb, at_source};
    use crate::store::keys::{Prefix, Role};

    fn wanted() -> Grants {
        let node = User::node("edge-7".parse().unwrap()).unwrap();
        at_source(&Prefix::default(), &[User::Viewer, node])
    }

    /// The store after these changes.
    fn after(mut found: Found, changes: &[Change]) -> Found {
        for change in changes.iter().cloned() {
            match change {
                Change::AddRole(role) => assert!(found.roles.insert(role, Vec::new()).is_none()),
                Change::AddUser(user) => assert!(found.users.insert(user, BTreeSet::new()).is_none()),
                Change::GiveRole { user, role } => assert!(found.users.get_mut(&user).unwrap().insert(role)),
                Change::Revoke(role, range) => found.roles.get_mut(&role).unwrap().retain(|grant| grant.range != range),
                Change::Grant(role, grant) => {
                    let held = found.roles.get_mut(&role).unwrap();
                    held.retain(|held| held.range != grant.range);
                    held.push(grant);
                }
            }
        }
        found
    }

    #[test]
    fn second_run_changes_nothing() {
        let all = changes(&wanted(), &Found::default());
        // Two roles with six permissions, two users with one role each.
        assert_eq!(all.len(), 2 + 6 + 2 + 2, "{all:?}");
        assert_eq!(changes(&wanted(), &after(Found::default(), &all)), []);
    }

    #[test]
    fn each_difference_is_one_change() {
        let full = after(Found::default(), &changes(&wanted(), &Found::default()));
        let whole = Prefix::default().range();
        let mut found = full.clone();
        found.roles.insert("enlist-viewer".into(), vec![Grant { range: whole.clone(), verb: Verb::ReadWrite }]);
        let viewer = Grant { range: whole.clone(), verb: Verb::Read };
        assert_eq!(changes(&wanted(), &found), [Change::Grant("enlist-viewer".into(), viewer)]);
        let mut found = full.clone();
        found.roles.get_mut("enlist-node-edge-7").unwrap().push(Grant { range: whole.clone(), verb: Verb::Read });
        assert_eq!(changes(&wanted(), &found), [Change::Revoke("enlist-node-edge-7".into(), whole)]);
        let mut found = full;
        found.users.get_mut("edge-7").unwrap().insert("of-the-operator".into());
        assert_eq!(changes(&wanted(), &found), []);
        found.users.get_mut("edge-7").unwrap().remove("enlist-node-edge-7");
        let given = Change::GiveRole { user: "edge-7".into(), role: "enlist-node-edge-7".into() };
        assert_eq!(changes(&wanted(), &found), [given]);
    }

    #[test]
    fn grants_of_another_installation_stay() {
        let of = |prefix: &str| at_source(&prefix.parse().unwrap(), &[User::Role(Role::Allocator), User::Viewer]);
        let first = after(Found::default(), &changes(&of("/enlist"), &Found::default()));
        let both = after(first.clone(), &changes(&of("/enlist-b"), &first));
        assert_eq!(changes(&of("/enlist"), &both), []);
        assert_eq!(changes(&of("/enlist-b"), &both), []);
        // A range that holds both prefixes is too wide for either.
        let mut wide = both;
        let all = KeyRange::between("/", "\0");
        wide.roles.get_mut("enlist-viewer").unwrap().push(Grant { range: all.clone(), verb: Verb::Read });
        assert_eq!(changes(&of("/enlist"), &wide), [Change::Revoke("enlist-viewer".into(), all)]);
    }

    #[test]
    fn user_without_a_login_is_left_out_with_its_roles() {
        let mut all = changes(&wanted(), &Found::default());
        let logins = BTreeMap::from([("edge-7".to_owned(), Login::Certificate)]);
        assert_eq!(without_login(&mut all, &logins), ["enlist-viewer"]);
        assert!(all.contains(&Change::AddUser("edge-7".into())) && all.contains(&Change::AddRole("enlist-viewer".into())));
        assert!(!format!("{all:?}").contains("user: \"enlist-viewer\""));
    }
}
