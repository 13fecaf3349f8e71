//! Tests of the history checks: each history here holds one violation, and the check finds it. Needs nothing.

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyValue, LeaseId};
use enlist::store::keys::Prefix;

use crate::history::copies::Copies;
use crate::history::source::Walk;
use crate::history::steps::{Allowed, Times};
use crate::support::roles::{bound, label, status};

type History = Vec<(Revision, Vec<Event>)>;

fn put(key: &str, value: impl Into<String>) -> Event {
    let lease = LeaseId(i64::from(key.ends_with("/status")));
    let (key, value) = (Key::from(format!("/enlist/{key}")), Bytes::from(value.into()));
    let revision = Revision::NONE;
    Event::Put(KeyValue { key, value, create_revision: revision, mod_revision: revision, version: 1, lease })
}

fn delete(key: &str) -> Event {
    Event::Delete { key: Key::from(format!("/enlist/{key}")), mod_revision: Revision::NONE }
}

/// One revision after the other, from 2 on.
fn history(revisions: Vec<Vec<Event>>) -> History {
    (2..).map(Revision).zip(revisions).collect()
}

fn claim(node: &str) -> String {
    format!(r#"{{"v":1,"node":"{node}","state":"bound","pool":"p"}}"#)
}

/// A node that joins and is assigned an address.
fn registered(node: &str, ip: &str) -> Vec<Vec<Event>> {
    vec![
        vec![put(&format!("nodes/{node}/label"), label(node, &[], "")), put(&format!("nodes/{node}/status"), status("joining"))],
        vec![
            put(&format!("nodes/{node}/assignment"), bound(node, ip)),
            put(&format!("claims/default/{ip}"), claim(node)),
            put(&format!("claims/default/{ip}/8000"), claim(node)),
        ],
        vec![put(&format!("nodes/{node}/status"), status("registered"))],
    ]
}

fn wrong(revisions: Vec<Vec<Event>>) -> String {
    let mut walk = Walk::new(Prefix::default(), Allowed::default(), Times::default());
    history(revisions).into_iter().flat_map(|(revision, events)| walk.take(revision, events)).collect::<Vec<_>>().join("\n")
}

fn after(node: &str, ip: &str, then: Vec<Event>) -> String {
    let mut revisions = registered(node, ip);
    revisions.push(then);
    wrong(revisions)
}

#[test]
fn registration_has_no_violation() {
    assert_eq!(wrong(registered("a", "10.0.0.1")), "");
}

#[test]
fn address_of_two_nodes_in_one_revision_is_found() {
    let mut revisions = registered("a", "10.0.0.1");
    revisions.extend(registered("b", "10.0.0.1"));
    // The violation lasts for one revision only: the end state is valid.
    revisions.push(vec![delete("nodes/a/assignment"), put("nodes/a/status", status("left"))]);
    let wrong = wrong(revisions);
    assert!(wrong.contains("at r6: double-grant"), "{wrong}");
}

#[test]
fn missing_claim_is_found_and_reported_once() {
    let mut revisions = registered("a", "10.0.0.1");
    revisions.push(vec![delete("claims/default/10.0.0.1")]);
    revisions.push(vec![put("nodes/b/label", label("b", &[], ""))]);
    let wrong = wrong(revisions);
    assert_eq!(wrong.matches("claim-missing").count(), 1, "{wrong}");
}

#[test]
fn claim_without_an_assignment_is_found() {
    let wrong = wrong(vec![vec![put("claims/default/10.0.0.9", claim("nobody"))]]);
    assert!(wrong.contains("claim-orphan"), "{wrong}");
}

fn claims_deleted(ip: &str) -> Vec<Event> {
    vec![delete(&format!("claims/default/{ip}")), delete(&format!("claims/default/{ip}/8000"))]
}

#[test]
fn vanished_registration_is_found() {
    let mut then = claims_deleted("10.0.0.1");
    then.push(delete("nodes/a/assignment"));
    assert!(after("a", "10.0.0.1", then).contains("was released while it is alive or held"));
}

#[test]
fn move_without_a_reason_is_found() {
    let moved = |assignment: String| {
        let mut then = claims_deleted("10.0.0.1");
        then.push(put("nodes/a/assignment", assignment));
        then.push(put("claims/default/10.0.0.2", claim("a")));
        then.push(put("claims/default/10.0.0.2/8000", claim("a")));
        after("a", "10.0.0.1", then)
    };
    let anew = bound("a", "10.0.0.2").replace(r#""generation":5"#, r#""generation":6"#);
    for (assignment, why) in [(bound("a", "10.0.0.2"), "without a higher generation"), (anew, "moved without a reason")] {
        let wrong = moved(assignment);
        assert!(wrong.contains(why), "{wrong}");
        assert!(!wrong.contains("claim-"), "{wrong}");
    }
}

fn checkpoint(revision: u64, partial: bool) -> Event {
    let partial = if partial { r#","partial":{"to":9,"part":1}"# } else { "" };
    put("manager/checkpoint", format!(r#"{{"v":1,"source":"default","cluster":"1","revision":{revision}{partial}}}"#))
}

fn copies(destination: Vec<Vec<Event>>) -> (Vec<String>, u64) {
    let source = history(registered("a", "10.0.0.1"));
    let mut copies = Copies::new(Prefix::default(), source.into_iter());
    let wrong = history(destination).into_iter().filter_map(|(revision, events)| copies.take(revision, events)).collect();
    (wrong, copies.states())
}

/// The writes of a relay that copies the first revision of the source.
fn first_cut() -> Vec<Event> {
    vec![
        put("manager/nodes/a/label", label("a", &[], "")),
        put("manager/nodes/a/status", status("joining")),
        checkpoint(2, false),
    ]
}

#[test]
fn copies_equal_to_the_source_have_no_violation() {
    let second = vec![put("manager/nodes/a/assignment", bound("a", "10.0.0.1")), checkpoint(3, false)];
    assert_eq!(copies(vec![first_cut(), second]), (Vec::new(), 2));
}

#[test]
fn copies_of_no_state_of_the_source_are_found() {
    let half = vec![put("manager/nodes/a/label", label("a", &[], "")), checkpoint(2, false)];
    let (wrong, _) = copies(vec![half]);
    assert!(wrong[0].contains("/enlist/manager/nodes/a/status"), "{wrong:?}");
    let partial = vec![put("manager/nodes/a/label", label("a", &[], "")), checkpoint(2, true)];
    assert_eq!(copies(vec![partial]), (Vec::new(), 0));
}

#[test]
fn copies_without_a_checkpoint_or_from_the_past_are_found() {
    let (wrong, _) = copies(vec![first_cut(), vec![delete("manager/nodes/a/status")]]);
    assert!(wrong[0].contains("are not the source"), "{wrong:?}");
    let second = vec![put("manager/nodes/a/assignment", bound("a", "10.0.0.1")), checkpoint(3, false)];
    let (wrong, _) = copies(vec![first_cut(), second, first_cut()]);
    assert!(wrong[0].contains("went back"), "{wrong:?}");
}
