//! What kind of member a node is.

use super::*;
use crate::manager::copies::Copies;
use crate::manager::state::{Caution, WrittenMember, member};
use crate::plan::snapshot::NodeRecord;

fn record(label: Option<&str>, status: Option<&str>, assignment: Option<&str>) -> NodeRecord {
    let mut copies = Copies::new(prefix());
    let mut kvs = vec![put("/enlist/manager/checkpoint", checkpoint(1, false), 9)];
    for (part, value) in [("label", label), ("status", status), ("assignment", assignment)] {
        if let Some(value) = value {
            kvs.push(put(&format!("/enlist/manager/nodes/a/{part}"), value.to_owned(), 9));
        }
    }
    copies.reset(Revision(9), &kvs, false);
    copies.settle();
    copies.nodes().get(&"a".parse().unwrap()).cloned().unwrap_or_default()
}

fn line(record: &NodeRecord, caution: Caution, written: Option<&WrittenMember>) -> String {
    member(&"a".parse().unwrap(), record, None, caution, written).map_or("none".into(), |m| {
        let published = if m.published { ", published" } else { "" };
        format!("{}{published}{}", m.state, m.addresses.first().map_or(String::new(), |ip| format!(" at {ip}")))
    })
}

#[test]
fn the_table_of_states() {
    let label = label("a", &[]);
    let label = Some(label.as_str());
    let bound = bound("a", 5, "10.0.0.1");
    let waiting = waiting("a");
    for (phase, generation, with_bound, with_waiting, with_none) in [
        ("registered", 5, "ready, published at 10.0.0.1", "joining", "joining"),
        ("registered", 4, "joining at 10.0.0.1", "joining", "joining"),
        ("registered", 6, "joining at 10.0.0.1", "joining", "joining"),
        ("joining", 0, "joining at 10.0.0.1", "joining", "joining"),
        ("failed", 5, "failed at 10.0.0.1", "failed", "failed"),
        ("draining", 5, "draining at 10.0.0.1", "draining", "draining"),
        ("stopped", 5, "stopped at 10.0.0.1", "none", "none"),
        ("left", 5, "none", "none", "none"),
        ("", 0, "suspect at 10.0.0.1", "none", "none"),
    ] {
        let status = status(phase, generation);
        let status = (!phase.is_empty()).then_some(status.as_str());
        let is = |assignment| line(&record(label, status, assignment), Caution::default(), None);
        assert_eq!(is(Some(&bound)), with_bound, "{phase}, bound");
        assert_eq!(is(Some(&waiting)), with_waiting, "{phase}, waiting");
        assert_eq!(is(None), with_none, "{phase}, no assignment");
        assert_eq!(line(&record(None, status, Some(&bound)), Caution::default(), None), "none", "{phase}, no label");
    }
}

#[test]
fn what_cannot_be_read_leaves_a_member_as_it_was() {
    let (label, bound) = (label("a", &[]), bound("a", 5, "10.0.0.1"));
    let was = WrittenMember {
        member: member(
            &"a".parse().unwrap(),
            &record(Some(&label), Some(&status("registered", 5)), Some(&bound)),
            None,
            Caution::default(),
            None,
        ),
        mod_revision: Revision(3),
    };
    for (status_text, assignment) in [(r#"{"v":2}"#, bound.as_str()), (&status("failed", 5), "{")] {
        let record = record(Some(&label), Some(status_text), Some(assignment));
        assert_eq!(line(&record, Caution::default(), Some(&was)), "ready, published at 10.0.0.1");
        assert_eq!(line(&record, Caution::default(), None), "joining");
    }
    // Of a label nothing is needed here but that it is there.
    let record = record(Some("{"), Some(&status("failed", 5)), Some(&bound));
    assert_eq!(line(&record, Caution::default(), Some(&was)), "failed at 10.0.0.1");
}

#[test]
fn suspects_stay_published_while_the_brake_is_on_and_not_released() {
    let silent = record(Some(&label("a", &[])), None, Some(&bound("a", 5, "10.0.0.1")));
    let as_written = |published: bool, state: &str, at: i64| {
        let json = format!(r#"{{"v":1,"node":"a","state":"{state}","published":{published}}}"#);
        WrittenMember { member: Some(Member::decode(json.as_bytes()).unwrap()), mod_revision: Revision(at) }
    };
    for (brake, released, written, published) in [
        (false, 0, None, false),
        (true, 0, None, true),
        (true, 0, Some(as_written(false, "suspect", 9)), true),
        (true, 10, Some(as_written(true, "suspect", 9)), false),
        // It was let go just now.
        (true, 10, Some(as_written(false, "suspect", 11)), false),
        // It fell silent after the release: a new loss.
        (true, 10, Some(as_written(true, "ready", 9)), true),
        (true, 10, Some(as_written(true, "suspect", 11)), true),
        (false, 10, Some(as_written(true, "suspect", 11)), false),
    ] {
        let caution = Caution { brake, released: Revision(released) };
        let is = member(&"a".parse().unwrap(), &silent, None, caution, written.as_ref()).unwrap();
        assert_eq!(is.published, published, "brake {brake}, released at {released}, {written:?}");
    }
}
