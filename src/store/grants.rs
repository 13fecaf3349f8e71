//! Which etcd user needs which keys: the grants as data. The table in docs/operating.md, `enlist grants` and the test that runs each role
//! with exactly these grants are made from it.
//!
//! Pure. Reading order: [`User`], [`at_source`] and [`at_manager`], then a function for each etcd role. What is written into
//! etcd for them is [`users`](super::users).

use std::fmt;
use std::str::FromStr;

use super::api::KeyRange;
use super::keys::{NodePart, Prefix, Role};
use crate::model::names::NodeId;

/// An etcd user of enlist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// One role in a process of its own.
    Role(Role),
    /// All three roles in one process.
    Roles,
    /// `get`, `describe`, `explain`, `check`.
    Viewer,
    /// Every command.
    Operator,
    /// The agent of one node.
    Node(NodeId),
}

impl User {
    /// All that are not nodes.
    pub const SHARED: [User; 6] = [
        User::Role(Role::Allocator),
        User::Role(Role::Relay),
        User::Role(Role::Manager),
        User::Roles,
        User::Viewer,
        User::Operator,
    ];

    /// The user's name in etcd.
    pub fn name(&self) -> String {
        match self {
            User::Role(role) => format!("enlist-{role}"),
            User::Roles => "enlist-roles".into(),
            User::Viewer => "enlist-viewer".into(),
            User::Operator => "enlist-operator".into(),
            User::Node(node) => node.to_string(),
        }
    }

    /// The user of a node. A node that has the name of another user would share that user's password.
    ///
    /// # Errors
    /// When the name is that of another user.
    pub fn node(node: NodeId) -> Result<User, String> {
        let taken = node.as_str() == "root" || User::SHARED.iter().any(|user| user.name() == node.as_str());
        if taken { Err(format!("node {node} has the name of another etcd user")) } else { Ok(User::Node(node)) }
    }
}

impl FromStr for User {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "roles" => Ok(User::Roles),
            "viewer" => Ok(User::Viewer),
            "operator" => Ok(User::Operator),
            other => other.parse().map(User::Role).map_err(|_| {
                format!("user {text:?} is not one of allocator, relay, manager, roles (all three), viewer, operator")
            }),
        }
    }
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read and watch.
    Read,
    /// Put and delete; enlist grants it never alone.
    Write,
    /// Both.
    ReadWrite,
}

impl Verb {
    /// As etcdctl spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Read => "read",
            Verb::Write => "write",
            Verb::ReadWrite => "readwrite",
        }
    }
}

/// One permission of an etcd role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// On which keys.
    pub range: KeyRange,
    /// What is allowed.
    pub verb: Verb,
}

impl Grant {
    fn read(range: KeyRange) -> Grant {
        Grant { range, verb: Verb::Read }
    }

    fn write(range: KeyRange) -> Grant {
        Grant { range, verb: Verb::ReadWrite }
    }
}

impl fmt::Display for Grant {
    /// `readwrite /enlist/claims/*`, `read /enlist/lineage`, `read /enlist/brakes/ .. /enlist/pools0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.as_str(), keys_text(&self.range))
    }
}

/// A range for people: a key, `prefix*`, or `first .. end` without the end.
pub fn keys_text(range: &KeyRange) -> String {
    match &range.end {
        None => range.start.to_string(),
        Some(_) if range.is_prefix() => format!("{}*", range.start),
        Some(end) => format!("{} .. {end}", range.start),
    }
}

/// An etcd role with all its grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleGrants {
    /// The role's name.
    pub name: String,
    /// In the order in which they are explained.
    pub grants: Vec<Grant>,
}

/// An etcd user with the roles that enlist gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRoles {
    /// The user's name.
    pub name: String,
    /// Names of roles.
    pub roles: Vec<String>,
}

/// What one store needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// The roles, each once.
    pub roles: Vec<RoleGrants>,
    /// The users, each once.
    pub users: Vec<UserRoles>,
    /// Everything below the prefixes that this is about. A role may have more elsewhere: that of another installation in the same etcd,
    /// whose roles have the same names.
    pub within: Vec<KeyRange>,
}

impl Grants {
    fn of(prefix: &Prefix, users: &[User], roles: impl Fn(&User) -> Vec<RoleGrants>) -> Grants {
        let mut all = Grants { within: vec![prefix.range()], ..Grants::default() };
        for user in users {
            let roles = roles(user);
            if !roles.is_empty() {
                let names = roles.iter().map(|role| role.name.clone()).collect();
                let users = vec![UserRoles { name: user.name(), roles: names }];
                all = all.merge(Grants { roles, users, within: Vec::new() });
            }
        }
        all
    }

    /// Both together: for a source and a manager's store that are one etcd. Roles and users of one name become one.
    #[must_use]
    pub fn merge(mut self, other: Grants) -> Grants {
        for role in other.roles {
            match self.roles.iter_mut().find(|known| known.name == role.name) {
                Some(known) => add_missing(&mut known.grants, role.grants),
                None => self.roles.push(role),
            }
        }
        for user in other.users {
            match self.users.iter_mut().find(|known| known.name == user.name) {
                Some(known) => add_missing(&mut known.roles, user.roles),
                None => self.users.push(user),
            }
        }
        add_missing(&mut self.within, other.within);
        self
    }
}

fn add_missing<T: PartialEq>(known: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !known.contains(&item) {
            known.push(item);
        }
    }
}

/// What these users need where nodes register.
pub fn at_source(prefix: &Prefix, users: &[User]) -> Grants {
    Grants::of(prefix, users, |user| match user {
        User::Role(Role::Allocator) => vec![allocator(prefix)],
        User::Role(Role::Relay) => vec![relay_source(prefix)],
        User::Role(Role::Manager) => Vec::new(),
        User::Roles => vec![allocator(prefix), relay_source(prefix)],
        User::Viewer => vec![viewer(prefix)],
        User::Operator => vec![operator(prefix)],
        User::Node(node) => vec![of_node(prefix, node)],
    })
}

/// What these users need in the manager's store.
pub fn at_manager(prefix: &Prefix, users: &[User]) -> Grants {
    Grants::of(prefix, users, |user| match user {
        User::Role(Role::Relay) => vec![relay(prefix)],
        User::Role(Role::Manager) => vec![manager(prefix)],
        User::Roles => vec![relay(prefix), manager(prefix)],
        User::Viewer => vec![viewer(prefix)],
        User::Operator => vec![operator(prefix)],
        User::Role(Role::Allocator) | User::Node(_) => Vec::new(),
    })
}

fn named(name: &str, grants: Vec<Grant>) -> RoleGrants {
    RoleGrants { name: name.into(), grants }
}

/// The grants that each leading role needs for its own keys.
fn leads(prefix: &Prefix, role: Role) -> [Grant; 2] {
    [Grant::write(prefix.leaders(role)), Grant::write(KeyRange::one(prefix.role(role)))]
}

fn allocator(prefix: &Prefix) -> RoleGrants {
    // One listing and one watch from the first folder that it reads to the last: brakes, claims, lineage, nodes, pools.
    let all = KeyRange::between(prefix.key("brakes/"), prefix.key("pools0"));
    let mut grants = vec![
        Grant::read(all),
        Grant::write(prefix.folder("claims")),
        Grant::write(prefix.folder("nodes")),
        Grant::write(KeyRange::one(prefix.key("lineage"))),
    ];
    grants.extend(leads(prefix, Role::Allocator));
    named("enlist-allocator", grants)
}

fn relay_source(prefix: &Prefix) -> RoleGrants {
    let grants = vec![Grant::read(prefix.folder("nodes")), Grant::read(KeyRange::one(prefix.key("lineage")))];
    named("enlist-relay-source", grants)
}

fn relay(prefix: &Prefix) -> RoleGrants {
    // One listing from the checkpoint over the groups to the copies.
    let copies = KeyRange::between(prefix.checkpoint(), prefix.key("manager/nodes0"));
    let mut grants = vec![
        Grant::read(copies),
        Grant::write(KeyRange::one(prefix.checkpoint())),
        Grant::write(prefix.folder("manager/nodes")),
        Grant::read(KeyRange::one(prefix.brake(Role::Relay))),
    ];
    grants.extend(leads(prefix, Role::Relay));
    named("enlist-relay", grants)
}

fn manager(prefix: &Prefix) -> RoleGrants {
    let mut grants = vec![
        Grant::read(prefix.folder("manager")),
        Grant::write(prefix.folder("manager/groups")),
        Grant::read(prefix.folder("groups")),
        Grant::read(KeyRange::one(prefix.brake(Role::Manager))),
    ];
    grants.extend(leads(prefix, Role::Manager));
    named("enlist-manager", grants)
}

fn viewer(prefix: &Prefix) -> RoleGrants {
    named("enlist-viewer", vec![Grant::read(prefix.range())])
}

fn operator(prefix: &Prefix) -> RoleGrants {
    named("enlist-operator", vec![Grant::write(prefix.range())])
}

fn of_node(prefix: &Prefix, node: &NodeId) -> RoleGrants {
    let own = [NodePart::Label, NodePart::Status, NodePart::Hold];
    let mut grants = vec![Grant::read(prefix.node_range(node)), Grant::read(KeyRange::one(prefix.key("lineage")))];
    grants.extend(own.map(|part| Grant::write(KeyRange::one(prefix.node(node, part)))));
    RoleGrants { name: format!("enlist-node-{node}"), grants }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::store::api::Key;

    fn node(id: &str) -> User {
        User::node(id.parse().unwrap()).unwrap()
    }

    fn may(grants: &Grants, user: &str, verb: Verb, key: &str) -> bool {
        let roles = grants.users.iter().filter(|found| found.name == user).flat_map(|found| &found.roles);
        let held = roles.flat_map(|name| grants.roles.iter().filter(move |role| role.name == *name));
        held.flat_map(|role| &role.grants)
            .any(|grant| (grant.verb == verb || grant.verb == Verb::ReadWrite) && grant.range.contains(&Key::from(key)))
    }

    #[test]
    fn only_the_allocator_writes_the_lineage() {
        let mut users = User::SHARED.to_vec();
        users.push(node("edge-7"));
        let grants = at_source(&Prefix::default(), &users);
        let writers = |verb| {
            let names = grants.users.iter().map(|user| user.name.as_str());
            names.filter(|user| may(&grants, user, verb, "/enlist/lineage")).collect::<Vec<_>>()
        };
        assert_eq!(writers(Verb::Write), ["enlist-allocator", "enlist-roles", "enlist-operator"]);
        let readers = ["enlist-allocator", "enlist-relay", "enlist-roles", "enlist-viewer", "enlist-operator", "edge-7"];
        assert_eq!(writers(Verb::Read), readers);
    }

    #[test]
    fn node_writes_three_keys_and_reads_its_folder() {
        let grants = at_source(&Prefix::default(), &[node("edge-7")]);
        for part in ["label", "status", "hold"] {
            assert!(may(&grants, "edge-7", Verb::Write, &format!("/enlist/nodes/edge-7/{part}")));
        }
        for key in ["nodes/edge-7/assignment", "nodes/edge-7/hold/clock", "nodes/edge-70/label", "lineage", "pools/eu"] {
            assert!(!may(&grants, "edge-7", Verb::Write, &format!("/enlist/{key}")), "{key}");
        }
        assert!(may(&grants, "edge-7", Verb::Read, "/enlist/nodes/edge-7/assignment"));
        assert!(!may(&grants, "edge-7", Verb::Read, "/enlist/nodes/edge-70/label"));
        let there = at_manager(&Prefix::default(), &[node("edge-7")]);
        assert!(there.roles.is_empty() && there.users.is_empty(), "{there:?}");
    }

    #[test]
    fn one_store_merges_the_roles_of_both_prefixes() {
        let (here, there): (Prefix, Prefix) = ("/a".parse().unwrap(), "/b".parse().unwrap());
        let users = [User::Operator, User::Role(Role::Relay)];
        let merged = at_source(&here, &users).merge(at_manager(&there, &users));
        let texts = |at: usize| merged.roles[at].grants.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(0), ["readwrite /a/*", "readwrite /b/*"]);
        assert_eq!(texts(1), ["read /a/nodes/*", "read /a/lineage"]);
        assert_eq!(merged.users[1].roles, ["enlist-relay-source", "enlist-relay"]);
        assert_eq!(merged.clone().merge(at_manager(&there, &users)), merged);
    }

    #[test]
    fn node_with_a_users_name_is_refused() {
        for taken in ["root", "enlist-allocator", "enlist-roles", "enlist-operator"] {
            assert!(User::node(taken.parse().unwrap()).is_err(), "{taken}");
        }
        assert_eq!(node("enlist-1").name(), "enlist-1");
        assert!("allocators".parse::<User>().is_err() && "roles".parse() == Ok(User::Roles));
    }
}
