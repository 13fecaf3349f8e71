//! What becomes of a document, and which documents are refused for what is stored.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
use bytes::Bytes;

use super::*;
use crate::model::documents::parse;
use crate::store::api::{KeyValue, LeaseId};

fn content(pairs: &[(&str, &str)]) -> Content {
    let mut content = Content::empty(Prefix::default());
    for (at, (key, value)) in (1..).zip(pairs) {
        let key = Key::from(format!("/enlist/{key}"));
        let value = Bytes::copy_from_slice(value.as_bytes());
        let revision = Revision(at);
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: LeaseId::NONE,
        };
        content.kvs.insert(key, kv);
    }
    content
}

const POOL: &str = "{kind: Pool, name: eu, cidrs: [10.20.0.0/30]}";

fn assignment(sharing: &str) -> String {
    format!(
        r#"{{"v":1,"node":"a","instance":"i","state":"bound","pool":"eu","domain":"default","sharing":"{sharing}","addresses":["10.20.0.1"],"ports":{{}},"generation":3,"asked":"0000000000000000","hold_s":1,"cooldown_s":1,"on_isolation":"keep","leaving":[]}}"#
    )
}

#[test]
fn created_changed_unchanged() {
    let document = parse("-", POOL).unwrap().remove(0);
    let check = |there: Option<&str>, expected: Change| {
        let pairs: Vec<(&str, &str)> = there.map(|value| ("pools/eu", value)).into_iter().collect();
        let step = step(&document, &content(&pairs), &content(&[]));
        assert_eq!(step.change, expected, "{there:?}");
        assert_eq!(step.seen.0, i64::from(there.is_some()));
    };
    check(None, Change::Create);
    check(Some(&to_stored(&document)), Change::None);
    check(Some(r#"{"v":1}"#), Change::Update);
}

#[test]
fn sharing_stays_while_nodes_have_addresses() {
    let document = parse("-", POOL).unwrap().remove(0);
    let before = to_stored(&document).replace("exclusive", "shared");
    let with = |sharing: &str| {
        step(&document, &content(&[("pools/eu", &before), ("nodes/a/assignment", &assignment(sharing))]), &content(&[])).change
    };
    assert!(matches!(with("shared"), Change::Refused(why) if why.field == "sharing" && why.message.contains("1 node")));
    assert_eq!(with("exclusive"), Change::Update);
}

/// What becomes of documents on a store with pools, in the order in which they are given here.
fn changes(stored: &[(&str, &str)], given: &str) -> Vec<Change> {
    let stored: Vec<(String, String)> = stored
        .iter()
        .map(|(key, text)| {
            let value = if key.starts_with("pools/") { to_stored(&parse("-", text).unwrap().remove(0)) } else { (*text).into() };
            ((*key).to_owned(), value)
        })
        .collect();
    let pairs: Vec<(&str, &str)> = stored.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let (source, manager) = (content(&pairs), content(&[]));
    let documents = parse("-", given).unwrap();
    let mut steps: Vec<Step> = documents.iter().map(|document| step(document, &source, &manager)).collect();
    effect::refuse_conflicts(&mut steps, &documents, &source);
    steps.into_iter().map(|step| step.change).collect()
}

const PROD: (&str, &str) = ("pools/eu", "{kind: Pool, name: eu, cidrs: [10.20.0.0/24]}");

#[test]
fn a_pool_that_conflicts_with_a_stored_one_is_refused() {
    let in_use = ("nodes/a/assignment", &*assignment("exclusive"));
    let new = "{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.240/30]}";
    for stored in [&[PROD][..], &[PROD, in_use]] {
        let changes = changes(stored, new);
        assert!(
            matches!(&changes[..], [Change::Refused(why)] if why.message.contains("it overlaps pool eu") && why.message.contains("10.20.0.241")),
            "{changes:?}"
        );
    }
    // Two of one kind, another domain, and a common part that is excluded may.
    for fine in [
        "{kind: Pool, name: aaa, cidrs: [10.20.0.240/30]}",
        "{kind: Pool, name: aaa, domain: other, sharing: shared, cidrs: [10.20.0.240/30]}",
        "{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.0/16], exclude: [10.20.0.0/24]}",
        "{kind: Pool, name: eu, cidrs: [10.20.0.0/25]}\n---\n{kind: Pool, name: aaa, sharing: shared, cidrs: [10.20.0.240/30]}",
    ] {
        assert!(changes(&[PROD, in_use], fine).iter().all(|change| matches!(change, Change::Create | Change::Update)), "{fine}");
    }
    let two = format!("{new}\n---\n{{kind: Pool, name: bbb, cidrs: [10.20.0.0/24]}}");
    assert!(matches!(&changes(&[], &two)[..], [Change::Create, Change::Refused(_)]), "two that are new conflict");
}

#[test]
fn an_edit_that_disables_another_pool_is_refused() {
    let younger = ("pools/zz", "{kind: Pool, name: zz, sharing: shared, cidrs: [10.21.0.0/30]}");
    let wider = "{kind: Pool, name: eu, cidrs: [10.20.0.0/15]}";
    let is_refused = |stored: &[(&str, &str)]| {
        let changes = changes(stored, wider);
        matches!(&changes[..], [Change::Refused(why)] if why.message.contains("pool zz would assign nothing new: both would give 10.21.0."))
    };
    assert!(is_refused(&[PROD, younger]));
    // A conflict that is stored already is not the fault of other documents.
    let stored = [PROD, ("pools/zz", "{kind: Pool, name: zz, sharing: shared, cidrs: [10.20.0.0/30]}")];
    assert_eq!(changes(&stored, "{kind: Pool, name: eu, cidrs: [10.20.0.0/24], hold: 1h}"), [Change::Update]);
    assert_eq!(changes(&stored, "{kind: Pool, name: us, cidrs: [10.30.0.0/24]}"), [Change::Create]);
}
