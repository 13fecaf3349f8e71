//! What people and programs read: tables, wide tables and JSON of one small world in which every phase occurs.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::assignment::AssignmentObject;
use super::claim::ClaimObject;
use super::group::GroupObject;
use super::member::MemberObject;
use super::node::NodeObject;
use super::pool::PoolObject;
use super::role::RoleObject;
use super::*;
use crate::cli::get::print::table;
use crate::model::names::Revision;
use crate::store::api::{Key, KeyValue, LeaseId};
use crate::store::keys::Prefix;

const WORLD: &[(&str, &str)] = &[
    (
        "pools/eu",
        r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["10.20.0.0/28"],"exclude":["10.20.0.1"],"selector":"zone=eu-1","reserve":{"edge-9":"10.20.0.9"}}"#,
    ),
    ("pools/six", r#"{"v":1,"kind":"Pool","name":"six","cidrs":["fd00:20::/64"],"priority":5}"#),
    (
        "pools/shared",
        r#"{"v":1,"kind":"Pool","name":"shared","cidrs":["10.30.0.1/32"],"ports":"30000-30009","sharing":"shared","selector":"zone=eu-2"}"#,
    ),
    ("pools/broken", r#"{"v":1,"kind":"Pool","name":"broken","cidrs":["10.40.0.0/24"],"selctor":"zone=eu-1"}"#),
    (
        "nodes/a-registered/label",
        r#"{"v":1,"id":"a-registered","instance":"i","boot":"b","run":"r","temporary":{"ip":"192.0.2.1","port":9},"variables":{"role":"web","zone":"eu-1"},"since":"2026-01-01T00:00:00Z","ports":["http"]}"#,
    ),
    ("nodes/a-registered/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"registered","generation":7}"#),
    (
        "nodes/a-registered/assignment",
        r#"{"v":1,"node":"a-registered","instance":"i","state":"bound","pool":"eu","domain":"default","sharing":"exclusive","addresses":["10.20.0.5"],"ports":{"http":30412},"generation":7,"asked":"0000000000000000","hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[]}"#,
    ),
    ("claims/default/10.20.0.5", r#"{"v":1,"node":"a-registered","state":"bound","pool":"eu"}"#),
    ("claims/default/10.20.0.5/30412", r#"{"v":1,"node":"a-registered","state":"bound","pool":"eu"}"#),
    (
        "claims/default/10.20.0.6",
        r#"{"v":1,"node":"gone","instance":"i","state":"cooling","pool":"eu","since":"2026-01-01T00:59:30Z"}"#,
    ),
    ("claims/default/10.20.0.7", "not JSON"),
    ("nodes/b-new-answer/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"registered","generation":6}"#),
    (
        "nodes/b-new-answer/assignment",
        r#"{"v":1,"node":"b-new-answer","instance":"i","state":"bound","pool":"eu","domain":"default","sharing":"exclusive","addresses":["10.20.0.8"],"ports":{},"generation":8,"asked":"0000000000000000","hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[{"generation":6,"pool":"eu","domain":"default","sharing":"exclusive","addresses":["10.20.0.2"],"ports":{},"hold_s":600,"cooldown_s":60,"on_isolation":"keep"}]}"#,
    ),
    ("nodes/c-waiting/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"joining"}"#),
    (
        "nodes/c-waiting/assignment",
        r#"{"v":1,"node":"c-waiting","instance":"i","state":"waiting","reason":"pool-full","message":"pool eu is full","generation":9,"asked":"0000000000000000","leaving":[]}"#,
    ),
    ("nodes/d-failed/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"failed","message":"hook ended with 3"}"#),
    ("nodes/e-silent/hold", r#"{"v":1,"state":"held","extended":false,"hold_s":600,"since":"2026-01-01T00:00:00Z"}"#),
    ("nodes/e-silent/hold/clock", r#"{"v":1}"#),
    ("nodes/f-stopped/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"stopped"}"#),
    ("nodes/g-left/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"left"}"#),
    ("nodes/h-braked/hold", r#"{"v":1,"state":"held","extended":true,"hold_s":3600,"since":"2026-01-01T00:00:00Z"}"#),
    ("nodes/h-braked/hold/clock", r#"{"v":1}"#),
    ("nodes/i-broken/label", "not JSON"),
    ("nodes/i-broken/status", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"joining"}"#),
    ("groups/frozen", r#"{"v":1,"kind":"Group","name":"frozen","selector":"a in ("}"#),
    ("groups/new", r#"{"v":1,"kind":"Group","name":"new","selector":"zone in (eu-2,eu-1)"}"#),
    ("groups/web", r#"{"v":1,"kind":"Group","name":"web","selector":"role=web","keyed_by":["zone"],"port":"http"}"#),
    (
        "manager/groups/frozen",
        r#"{"v":1,"group":"frozen","selector":"a=b","members":1,"published":1,"condition":{"state":"frozen","message":"selector: position 5: a value is missing"},"revision":6}"#,
    ),
    (
        "manager/groups/web%2Fzone%3Deu-1",
        r#"{"v":1,"group":"web/zone=eu-1","selector":"role=web","members":1,"published":1,"condition":{"state":"ok"},"revision":7}"#,
    ),
    (
        "manager/groups/web%2Fzone%3Deu-1/members/a-registered",
        r#"{"v":1,"node":"a-registered","addresses":["10.20.0.5"],"ports":{"http":30412},"state":"ready","published":true}"#,
    ),
    (
        "manager/groups/old",
        r#"{"v":1,"group":"old","selector":"","members":0,"published":0,"condition":{"state":"ok"},"revision":3}"#,
    ),
    ("leaders/allocator/1", "host-a/1"),
    ("leaders/allocator/2", "host-b/1"),
    (
        "roles/allocator",
        r#"{"v":1,"identity":"host-a/1","version":"0.1.0","revision":40,"brake":"4 of 20 bound nodes are silent","last_pass":"2 changes in 3 ms","findings":1,"counters":{"passes":7}}"#,
    ),
    ("leaders/relay/3", "host-a/1"),
    ("nodes/k-copied/status-on-no-lease", r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"registered","generation":7}"#),
    // All that is left of a node that was back, and then deleted by hand: no node.
    ("nodes/j-bare/hold/clock", r#"{"v":1}"#),
];

/// Puts a key, as one revision more.
pub(in crate::cli) fn put(content: &mut Content, key: &str, value: &str) {
    let (key, revision) = (Key::from(format!("/enlist/{key}")), Revision(content.revision.0 + 1));
    let value = Bytes::copy_from_slice(value.as_bytes());
    let kv =
        KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, version: 1, lease: LeaseId::NONE };
    content.kvs.insert(key, kv);
    content.revision = revision;
}

pub(in crate::cli) fn world() -> Content {
    let mut content = Content::empty(Prefix::default());
    for (at, (key, value)) in (1..).zip(WORLD) {
        // Agents put their statuses on leases.
        let lease = LeaseId(i64::from(key.ends_with("/status")));
        let (key, revision) = (Key::from(format!("/enlist/{}", key.trim_end_matches("-on-no-lease"))), Revision(at));
        let value = Bytes::from_static(value.as_bytes());
        let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, version: 1, lease };
        content.kvs.insert(key, kv);
    }
    content.revision = Revision(WORLD.len() as i64);
    content
}

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-01-01T01:00:00Z").unwrap()
}

fn shown<T: Shown>() -> String {
    let world = world();
    let objects = T::list(Stores { source: Some(&world), manager: Some(&world) });
    format!(
        "{}\n{}\n{}",
        table(&objects, false, now()).render(),
        table(&objects, true, now()).render(),
        serde_json::to_string_pretty(&objects).unwrap()
    )
}

#[test]
fn every_kind_as_people_and_programs_read_it() {
    insta::assert_snapshot!("nodes", shown::<NodeObject>());
    insta::assert_snapshot!("assignments", shown::<AssignmentObject>());
    insta::assert_snapshot!("claims", shown::<ClaimObject>());
    insta::assert_snapshot!("pools", shown::<PoolObject>());
    insta::assert_snapshot!("groups", shown::<GroupObject>());
    insta::assert_snapshot!("members", shown::<MemberObject>());
    insta::assert_snapshot!("roles", shown::<RoleObject>());
}

#[test]
fn every_phase_occurs_and_none_beside_the_documented_ones() {
    let world = world();
    let nodes = NodeObject::list(Stores { source: Some(&world), manager: None });
    let phase = |id: &str| nodes.iter().find(|node| node.id == id).unwrap().phase.clone();
    for (id, expected) in [
        ("a-registered", "registered"),
        ("b-new-answer", "joining"),
        ("c-waiting", "waiting"),
        ("d-failed", "failed"),
        ("e-silent", "silent"),
        ("f-stopped", "stopped"),
        ("g-left", "stopped"),
        ("h-braked", "silent"),
        ("i-broken", "joining"),
    ] {
        assert_eq!(phase(id), expected, "{id}");
    }
    assert!(nodes.iter().all(|node| node.groups.is_none()), "without the manager's store nobody knows the groups");
}

#[test]
fn names_on_the_command_line() {
    let world = world();
    let stores = Stores { source: Some(&world), manager: Some(&world) };
    let claims = |name: &str| ClaimObject::list(stores).iter().filter(|claim| claim.is_called(name)).count();
    assert_eq!((claims("10.20.0.5"), claims("10.20.0.5/30412"), claims("default/10.20.0.5")), (2, 1, 1));
    let members = |name: &str| MemberObject::list(stores).iter().filter(|member| member.is_called(name)).count();
    assert_eq!((members("web"), members("web/zone=eu-1"), members("web/zone=eu-2")), (1, 1, 0));
}

#[test]
fn clocks_that_differ_make_no_nonsense() {
    assert_eq!(age_of("2026-01-01T02:00:00Z", now()), "0s");
    assert_eq!(age_of("yesterday", now()), "");
    assert_eq!(age_of("2025-12-31T01:00:00Z", now() + Duration::from_secs(1)), "1d");
}

#[test]
fn released_nodes_are_hidden_until_they_are_asked_for() {
    let mut world = world();
    put(&mut world, "nodes/r-released/hold", r#"{"v":1,"state":"released","hold_s":600,"since":"2026-01-01T00:00:00Z"}"#);
    let nodes = NodeObject::list(Stores { source: Some(&world), manager: None });
    let node = nodes.iter().find(|node| node.id == "r-released").unwrap();
    assert_eq!((node.phase.as_str(), node.reason.as_str()), ("released", "released"));
    assert_eq!(nodes.iter().filter(|node| node.is_hidden()).count(), 1);
    let shown = |query: crate::cli::get::Query| nodes.iter().filter(|node| query.wants(*node)).count();
    assert_eq!(shown(Default::default()), nodes.len() - 1);
    assert_eq!(shown(crate::cli::get::Query { all: true, ..Default::default() }), nodes.len());
    assert_eq!(shown(crate::cli::get::Query { names: vec!["r-released".into()], ..Default::default() }), 1);
}

#[test]
fn wide_tables_leave_out_the_facts_of_hosts() {
    let mut world = world();
    let label = r#"{"v":1,"id":"f","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1},"variables":{"host/os":"linux","zone":"eu"}}"#;
    put(&mut world, "nodes/f/label", label);
    let nodes = NodeObject::list(Stores { source: Some(&world), manager: None });
    let node = nodes.iter().find(|node| node.id == "f").unwrap();
    assert_eq!(node.wide_cells().last().map(String::as_str), Some("zone=eu"));
    assert_eq!(node.variables.len(), 2, "JSON has all");
}

/// Behaviour 84: whatever a node or another hand wrote, no table gives it to the terminal as it is.
#[test]
fn no_table_leads_a_terminal_astray() {
    let hostile: String = crate::telemetry::escape::testing::hostile().collect();
    let text = serde_json::to_string(&hostile).unwrap();
    let mut world = world();
    let status = format!(r#"{{"v":1,"instance":"i","boot":"b","run":"r","phase":"failed","message":{text}}}"#);
    put(&mut world, "nodes/x/status", &status);
    put(&mut world, "nodes/y/hold", &format!(r#"{{"v":1,"state":"held","hold_s":1,"since":{text}}}"#));
    let assignment = format!(
        r#"{{"v":1,"node":"y","instance":"i","state":"waiting","reason":"pool-full","message":{text},"generation":9,"asked":"0000000000000000","leaving":[]}}"#
    );
    put(&mut world, "nodes/y/assignment", &assignment);
    put(
        &mut world,
        "claims/default/10.20.0.9",
        &format!(r#"{{"v":1,"node":"gone","instance":"i","state":"cooling","pool":"eu","since":{text}}}"#),
    );
    put(&mut world, "pools/x", &hostile);
    put(&mut world, "groups/x", &format!(r#"{{"v":1,"kind":"Group","name":"x","selector":{text}}}"#));
    put(&mut world, &format!("manager/groups/{hostile}"), r#"{"v":1}"#);
    let report = format!(
        r#"{{"v":1,"identity":{text},"version":{text},"revision":1,"brake":{text},"last_pass":{text},"trouble":{text}}}"#
    );
    put(&mut world, "roles/relay", &report);
    fn tables<T: Shown>(world: &Content) -> (String, usize) {
        let objects = T::list(Stores { source: Some(world), manager: Some(world) });
        let both = [false, true].map(|wide| table(&objects, wide, now()).render());
        (both.concat(), 2 * (objects.len() + 1))
    }
    for (shown, lines) in [
        tables::<NodeObject>(&world),
        tables::<AssignmentObject>(&world),
        tables::<ClaimObject>(&world),
        tables::<PoolObject>(&world),
        tables::<GroupObject>(&world),
        tables::<MemberObject>(&world),
        tables::<RoleObject>(&world),
    ] {
        assert_eq!(shown.matches('\n').count(), lines, "a line is forged: {shown:?}");
        let found = shown.chars().find(|c| *c != '\n' && hostile.contains(*c));
        assert_eq!(found, None, "{shown:?}");
    }
}
