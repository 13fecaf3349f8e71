//! The grants for people, programs and operators: a table, JSON, etcdctl commands. Pure.

use serde_json::{Value as Json, json};

use super::super::output::Table;
use crate::store::api::KeyRange;
use crate::store::grants::{Grant, Grants, keys_text};
use crate::store::users::{Change, Found, Login, changes};

/// Two tables: users with their roles, roles with their permissions.
pub fn table(parts: &[(&str, &Grants)]) -> String {
    let mut users = Table { headings: vec!["USER", "STORE", "ROLES"], rows: Vec::new() };
    let mut roles = Table { headings: vec!["ROLE", "STORE", "MAY", "KEYS"], rows: Vec::new() };
    for (store, grants) in parts {
        users.rows.extend(grants.users.iter().map(|user| vec![user.name.clone(), (*store).into(), user.roles.join(" ")]));
        let permissions = grants.roles.iter().flat_map(|role| role.grants.iter().map(move |grant| (&role.name, grant)));
        roles.rows.extend(
            permissions
                .map(|(role, grant)| vec![role.clone(), (*store).into(), grant.verb.as_str().into(), keys_text(&grant.range)]),
        );
    }
    format!("{}\n{}", users.render(), roles.render())
}

/// One object: `users` and `roles`.
pub fn json(parts: &[(&str, &Grants)]) -> Json {
    let users = parts.iter().flat_map(|(store, grants)| {
        grants.users.iter().map(move |user| json!({"name": user.name, "store": store, "roles": user.roles}))
    });
    let roles = parts.iter().flat_map(|(store, grants)| {
        grants.roles.iter().map(move |role| {
            let grants: Vec<Json> = role.grants.iter().map(grant).collect();
            json!({"name": role.name, "store": store, "grants": grants})
        })
    });
    json!({"users": users.collect::<Vec<_>>(), "roles": roles.collect::<Vec<_>>()})
}

/// `range_end` as in etcd's API: `null` for one key, the first key after the range otherwise.
fn grant(grant: &Grant) -> Json {
    let end = grant.range.end.as_ref().map(ToString::to_string);
    json!({"may": grant.verb.as_str(), "key": grant.range.start.to_string(), "range_end": end})
}

/// The commands that make everything in empty stores. `etcdctl user add` asks for the password.
pub fn script<'a>(sites: impl Iterator<Item = (&'a str, Grants)>) -> String {
    let parts: Vec<String> =
        sites.map(|(title, grants)| format!("# {title}\n{}", lines(&changes(&grants, &Found::default())))).collect();
    parts.join("\n")
}

/// Changes as commands, one a line.
pub fn lines(changes: &[Change]) -> String {
    changes.iter().map(|change| line(change, None) + "\n").collect()
}

/// A change as the command that makes it. A password is left out.
pub fn line(change: &Change, login: Option<&Login>) -> String {
    let words: Vec<String> = match change {
        Change::AddRole(role) => vec!["role add".into(), quoted(role)],
        Change::Grant(role, grant) => {
            vec!["role grant-permission".into(), quoted(role), grant.verb.as_str().into(), keys(&grant.range)]
        }
        Change::Revoke(role, range) => vec!["role revoke-permission".into(), quoted(role), keys(range)],
        Change::AddUser(user) if login == Some(&Login::Certificate) => vec!["user add --no-password".into(), quoted(user)],
        Change::AddUser(user) => vec!["user add".into(), quoted(user)],
        Change::GiveRole { user, role } => vec!["user grant-role".into(), quoted(user), quoted(role)],
    };
    format!("etcdctl {}", words.join(" "))
}

fn keys(range: &KeyRange) -> String {
    let start = quoted(&range.start.to_string());
    match &range.end {
        None => start,
        Some(_) if range.is_prefix() => format!("--prefix=true {start}"),
        Some(end) if end.as_bytes() == [0] => format!("--from-key=true {start}"),
        Some(end) => format!("{start} {}", quoted(&end.to_string())),
    }
}

/// A word that a shell takes as it is: a prefix may contain `$`, quotes and the like.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.,:=@%+-".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::store::grants::{User, at_source};

    fn node(prefix: &str) -> Grants {
        at_source(&prefix.parse().unwrap(), &[User::node("edge-7".parse().unwrap()).unwrap()])
    }

    #[test]
    fn script_is_what_etcdctl_takes() {
        let expected = "# the source\n\
            etcdctl role add enlist-node-edge-7\n\
            etcdctl role grant-permission enlist-node-edge-7 read --prefix=true /enlist/nodes/edge-7/\n\
            etcdctl role grant-permission enlist-node-edge-7 read /enlist/lineage\n\
            etcdctl role grant-permission enlist-node-edge-7 readwrite /enlist/nodes/edge-7/label\n\
            etcdctl role grant-permission enlist-node-edge-7 readwrite /enlist/nodes/edge-7/status\n\
            etcdctl role grant-permission enlist-node-edge-7 readwrite /enlist/nodes/edge-7/hold\n\
            etcdctl user add edge-7\n\
            etcdctl user grant-role edge-7 enlist-node-edge-7\n";
        assert_eq!(script([("the source", node("/enlist"))].into_iter()), expected);
    }

    #[test]
    fn prefix_with_shell_characters_is_quoted() {
        let text = script([("the source", node("/$(reboot)'x"))].into_iter());
        assert!(text.contains(" '/$(reboot)'\\''x/nodes/edge-7/label'\n"), "{text}");
        let revoked = Change::Revoke("r".into(), KeyRange::between("/a", "\0"));
        assert_eq!(line(&revoked, None), "etcdctl role revoke-permission r --from-key=true /a");
        let added = Change::AddUser("edge-7".into());
        assert_eq!(line(&added, Some(&Login::Certificate)), "etcdctl user add --no-password edge-7");
        assert_eq!(line(&added, Some(&Login::Password("x".into()))), "etcdctl user add edge-7");
    }

    #[test]
    fn json_has_a_range_end_for_ranges_only() {
        let grants = node("/enlist");
        let shown = json(&[("source", &grants)]);
        assert_eq!(shown["roles"][0]["grants"][0]["range_end"], "/enlist/nodes/edge-70");
        assert_eq!(shown["roles"][0]["grants"][1], json!({"may": "read", "key": "/enlist/lineage", "range_end": null}));
        assert_eq!(shown["users"][0], json!({"name": "edge-7", "store": "source", "roles": ["enlist-node-edge-7"]}));
        let lines = table(&[("source", &grants)]);
        assert!(lines.contains("enlist-node-edge-7   source   read        /enlist/nodes/edge-7/*\n"), "{lines}");
    }
}
