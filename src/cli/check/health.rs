//! What is in order in the store and yet not well: nobody leads, a pool is full, nodes wait, failed or are silent. Pure.
//!
//! These are warnings: nothing stored contradicts anything else, and `--repair` has nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Severity};
use crate::cli::content::{Content, decoded};
use crate::cli::leads::leaders;
use crate::cli::show::node::{NodeObject, node};
use crate::cli::show::pool::{FULL, NEARLY_FULL, pool_object};
use crate::cli::show::role::LATE_S;
use crate::model::assignment::{Answer, Assignment};
use crate::plan::brake::BrakeState;
use crate::store::api::MemberInfo;
use crate::store::keys::Role;
use crate::store::wire::RoleReport;

/// So many nodes are named in one finding; of the others only the count is told.
const NAMED_MAX: usize = 20;

/// What is not well at the source: nodes, pools, the allocator.
pub(super) fn source(source: &Content) -> Vec<Found> {
    if source.kvs.is_empty() {
        return vec![empty("source", source)];
    }
    let mut found = roles("source", source, &[Role::Allocator]);
    found.extend(pools(source));
    found.extend(nodes(source));
    found
}

/// What is not well at the manager's store: relay and manager. `source` = what the source holds, if it is the same place: an empty
/// prefix is then told of there.
pub(super) fn manager(manager: &Content, source: Option<&Content>) -> Vec<Found> {
    match source {
        None if manager.kvs.is_empty() => vec![empty("manager", manager)],
        Some(source) if manager.kvs.is_empty() && source.kvs.is_empty() => Vec::new(),
        _ => roles("manager", manager, &[Role::Relay, Role::Manager]),
    }
}

/// What etcd says is wrong with itself.
pub(super) fn member(store: &'static str, member: &MemberInfo) -> Vec<Found> {
    let found = member.alarms.iter().map(|alarm| {
        let what = match alarm.contains("NOSPACE") {
            true => "etcd is out of space and refuses writes: raise --quota-backend-bytes, or compact, defragment and disarm the alarm",
            false => "etcd is not in order",
        };
        warning(store, "etcd-alarm", Vec::new(), format!("{what} ({})", alarm.trim()))
    });
    found.collect()
}

fn warning(store: &'static str, code: &'static str, keys: Vec<String>, message: String) -> Found {
    Found { store, code, keys, message, severity: Severity::Warning }
}

fn empty(store: &'static str, content: &Content) -> Found {
    let message = format!("nothing is stored below {}/: check the prefix, or apply pools and start the roles", content.prefix);
    warning(store, "prefix-empty", Vec::new(), message)
}

fn roles(store: &'static str, content: &Content, roles: &[Role]) -> Vec<Found> {
    let leads = leaders(content);
    let mut found = Vec::new();
    for role in roles {
        let report = content.get(&content.prefix.role(*role)).and_then(|kv| decoded::<RoleReport>(kv).ok());
        let Some(leader) = leads.get(role) else {
            let missed = match role {
                Role::Allocator => "nodes that come get no address, and nothing is released",
                Role::Relay => "the copies that groups rest on are not renewed",
                Role::Manager => "groups are not renewed",
            };
            let message = format!("no {role} leads: {missed}; start `enlist run`");
            found.push(warning(store, "no-leader", vec![format!("leaders/{role}/")], message));
            continue;
        };
        let key = || vec![format!("roles/{role}")];
        let Some(report) = report else { continue };
        if !report.brake.is_empty() {
            let state = if report.brake_state == Some(BrakeState::Released) { "was released" } else { "is on" };
            let message = format!("the brake of the {role} {state}: {} (`enlist brake` shows and releases it)", report.brake);
            found.push(warning(store, "brake-on", key(), message));
        }
        if !report.trouble.is_empty() {
            found.push(warning(store, "role-in-trouble", key(), format!("{role} {leader}: {}", report.trouble)));
        }
        let late = report.counters.get("lag_s").copied().unwrap_or_default();
        if *role == Role::Relay && late >= LATE_S {
            found.push(warning(store, "copies-late", key(), format!("the copies are {late} s behind the source")));
        }
    }
    found
}

fn pools(source: &Content) -> Vec<Found> {
    let snapshot = source.snapshot();
    let mut found = Vec::new();
    for (name, stored) in &snapshot.pools {
        let pool = pool_object(&snapshot, name, stored);
        let code = match pool.condition.as_str() {
            FULL => "pool-full",
            NEARLY_FULL => "pool-nearly-full",
            _ => continue,
        };
        found.push(warning("source", code, vec![format!("pools/{name}")], format!("pool {name}: {}", pool.message)));
    }
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, record) in &snapshot.nodes {
        let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
        let gone = assignment.and_then(Assignment::bound).filter(|bound| !snapshot.pools.contains_key(&bound.terms.pool));
        if let Some(bound) = gone {
            kept.entry(bound.terms.pool.to_string()).or_default().push(format!("nodes/{id}/assignment"));
        }
    }
    found.extend(kept.into_iter().map(|(pool, keys)| {
        let message = format!("pool {pool} is deleted and still in use: {} bound to it until they leave", bound_to(keys.len()));
        warning("source", "pool-deleted-in-use", first(keys), message)
    }));
    found
}

fn bound_to(nodes: usize) -> String {
    if nodes == 1 { "1 node is".into() } else { format!("{nodes} nodes are") }
}

fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn first(mut keys: Vec<String>) -> Vec<String> {
    keys.truncate(NAMED_MAX);
    keys
}

/// Nodes that are not served, by what is the matter with them.
fn nodes(source: &Content) -> Vec<Found> {
    let mut of: BTreeMap<(&'static str, String), Vec<String>> = BTreeMap::new();
    let mut bound: BTreeSet<String> = BTreeSet::new();
    for (id, record) in source.nodes() {
        let shown: NodeObject = node(&id, &record, None);
        if shown.pool.is_some() {
            bound.insert(shown.id.clone());
        }
        let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
        match (shown.phase.as_str(), assignment.map(|assignment| &assignment.answer)) {
            ("waiting", Some(Answer::Waiting(waiting))) => {
                of.entry(("nodes-waiting", waiting.reason.to_string())).or_default().push(format!("nodes/{id}/assignment"));
            }
            ("failed", _) => of.entry(("nodes-failed", String::new())).or_default().push(format!("nodes/{id}/status")),
            ("silent", _) if shown.pool.is_some() => {
                of.entry(("nodes-silent", String::new())).or_default().push(format!("nodes/{id}/hold"));
            }
            _ => {}
        }
    }
    let found = of.into_iter().map(|((code, why), keys)| {
        let count = keys.len();
        let message = match code {
            "nodes-waiting" => format!("{}: {} (`enlist explain node` says why of each)", count_of(count, "wait"), why),
            "nodes-failed" => format!("{} (`enlist get nodes -o wide` shows why)", count_of(count, "failed")),
            _ => format!("{count} of {} bound nodes are silent: their addresses are held until their hold is over", bound.len()),
        };
        warning("source", code, first(keys), message)
    });
    found.collect()
}

fn count_of(count: usize, what: &str) -> String {
    match (count, what) {
        (1, "wait") => "1 node waits".into(),
        _ => format!("{} {what}", counted(count)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::cli::show::tests::{put, world};
    use crate::store::keys::Prefix;

    fn codes(found: &[Found]) -> Vec<&'static str> {
        found.iter().map(|found| found.code).collect()
    }

    #[test]
    fn mistyped_prefix_is_told() {
        let nothing = Content::empty("/enlst".parse::<Prefix>().unwrap());
        let found = source(&nothing);
        assert_eq!(codes(&found), ["prefix-empty"]);
        assert!(found[0].message.contains("below /enlst/"), "{found:?}");
        assert_eq!(codes(&manager(&nothing, Some(&nothing))), [""; 0]);
        assert_eq!(codes(&manager(&nothing, None)), ["prefix-empty"]);
    }

    #[test]
    fn full_store_is_told_as_etcd_tells_it() {
        let member = MemberInfo { alarms: vec!["memberID:7 alarm:NOSPACE ".into()], ..MemberInfo::default() };
        let found = super::member("source", &member);
        assert_eq!(codes(&found), ["etcd-alarm"]);
        assert!(found[0].message.starts_with("etcd is out of space and refuses writes"), "{found:?}");
    }

    #[test]
    fn missing_leaders_are_told_by_role() {
        let mut content = Content::empty(Prefix::default());
        put(&mut content, "pools/eu", r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["10.0.0.0/29"]}"#);
        assert!(source(&content)[0].message.starts_with("no allocator leads: nodes that come get no address"));
        let nothing = Content::empty(Prefix::default());
        for at_the_manager in [&content, &nothing] {
            assert_eq!(codes(&manager(at_the_manager, Some(&content))), ["no-leader", "no-leader"]);
        }
    }

    #[test]
    fn nodes_that_are_not_served_are_counted() {
        let mut content = world();
        let bound = content.get(&"/enlist/nodes/a-registered/assignment".into()).unwrap().value.clone();
        let bound = String::from_utf8(bound.to_vec()).unwrap().replace("a-registered", "e-silent");
        put(&mut content, "nodes/e-silent/assignment", &bound);
        let found = source(&content);
        let told = |code: &str| found.iter().find(|found| found.code == code).map(|found| found.message.clone());
        assert!(told("nodes-waiting").unwrap().starts_with("1 node waits: "), "{found:?}");
        assert!(told("nodes-failed").unwrap().starts_with("1 node failed"), "{found:?}");
        assert!(told("nodes-silent").unwrap().contains(" bound nodes are silent"), "{found:?}");
        assert!(found.iter().all(|found| found.severity == Severity::Warning));
    }

    #[test]
    fn deleted_pool_in_use_is_told() {
        let mut content = world();
        let pools = content.prefix.folder("pools");
        content.kvs.retain(|key, _| !pools.contains(key));
        assert!(codes(&source(&content)).contains(&"pool-deleted-in-use"));
    }
}
