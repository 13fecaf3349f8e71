//! Whatever stands in the store: it is read without a panic, planned from without one, and plans come to rest.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::View;
use crate::model::names::Revision;
use crate::plan::check::check;
use crate::plan::testing::apply::apply;
use crate::plan::{Pass, plan};
use crate::store::api::{KeyValue, LeaseId};

const KEYS: [&str; 14] = [
    "nodes/a/label",
    "nodes/a/status",
    "nodes/a/assignment",
    "nodes/a/hold",
    "nodes/a/hold/clock",
    "nodes/b/label",
    "nodes/b/status",
    "nodes/b/assignment",
    "pools/eu",
    "claims/default/10.0.0.1",
    "claims/default/10.0.0.1/30000",
    "claims/default/10.0.0.1/x",
    "claims/default/fd00::1/30000",
    "brakes/allocator",
];

const VALUES: [&str; 12] = [
    r#"{"v":1,"id":"a","instance":"i","boot":"b","run":"r","temporary":{"ip":"10.0.0.1","port":1},"ports":["http","metrics"],"want":{"addresses":["10.0.0.1"],"ports":{"http":30000}}}"#,
    r#"{"v":1,"id":"b","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1},"holding":{"generation":9,"addresses":["10.0.0.1","fd00::1"],"ports":{"main":30000}}}"#,
    r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"registered","generation":812,"refused":[{"ip":"10.0.0.1","port":30000}]}"#,
    r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"left"}"#,
    r#"{"v":1,"node":"a","instance":"i","state":"bound","pool":"eu","domain":"default","sharing":"exclusive","addresses":["10.0.0.1"],"ports":{"http":30000},"generation":8,"asked":"9f86d081884c7d65","hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[{"generation":7,"pool":"eu","domain":"default","sharing":"shared","addresses":["fd00::1"],"ports":{"http":30000},"hold_s":600,"cooldown_s":60,"on_isolation":"keep"}]}"#,
    r#"{"v":1,"node":"b","instance":"i","state":"waiting","reason":"pool-full","generation":930,"asked":"60303ae22b998861"}"#,
    r#"{"v":1,"state":"held","hold_s":600}"#,
    r#"{"v":1,"node":"a","state":"bound","pool":"eu"}"#,
    r#"{"v":1,"node":"b","instance":"i","state":"cooling","pool":"eu"}"#,
    r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["10.0.0.0/30","fd00::/64"],"ports":"30000-30001","sharing":"shared"}"#,
    r#"{"v":1,"kind":"Pool","name":"eu","cidrs":["0.0.0.0/0","::/0"],"exclude":["8000::/1","128.0.0.0/1"],"on_mismatch":"move","reserve":{"a":"10.0.0.1"}}"#,
    r#"{"v":1,"kind":"Pool","name":"eu","sharing":"host","ports":"1-65535","hold":"1s","cooldown":"0s"}"#,
];

/// Words of the values, to be put in place of each other.
const WORDS: [&str; 14] =
    ["0", "18446744073709551615", "-1", "65535", "1", "null", "[]", "{}", "\"\"", "exclusive", "shared", "host", "::", "ffff"];

/// The values that belong under a key.
fn fitting(key: usize) -> &'static [usize] {
    match KEYS[key] {
        "nodes/a/label" => &[0],
        "nodes/b/label" => &[1],
        "nodes/a/status" | "nodes/b/status" => &[2, 3],
        "nodes/a/assignment" => &[4],
        "nodes/b/assignment" => &[5],
        "nodes/a/hold" | "nodes/a/hold/clock" => &[6],
        "pools/eu" => &[9, 10, 11],
        _ => &[7, 8],
    }
}

/// A key with a value: mostly one that belongs there, often spoiled, seldom another's or rubbish.
fn entry() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let spoil = (any::<prop::sample::Index>(), 0..12usize, prop::sample::select(WORDS.to_vec()));
    let which = (0..KEYS.len(), any::<prop::sample::Index>(), 0..10u8, spoil, prop::collection::vec(any::<u8>(), 0..20));
    which.prop_map(|(key, at, kind, (from, length, word), rubbish)| {
        let own = fitting(key);
        let mut text = VALUES[own[at.index(own.len())]].as_bytes().to_vec();
        match kind {
            0..6 => {}
            6..8 => {
                let from = from.index(text.len());
                let to = (from + length).min(text.len());
                text.splice(from..to, word.bytes());
            }
            8 => text = VALUES[at.index(VALUES.len())].as_bytes().to_vec(),
            _ => text = rubbish,
        }
        (key, text)
    })
}

#[test]
fn what_belongs_under_a_key_can_be_read_there() {
    for (key, name) in KEYS.iter().enumerate() {
        for value in fitting(key) {
            let kv = kv(key, VALUES[*value].as_bytes().to_vec(), 1, false);
            let findings = plan(&View::of("/enlist".parse().unwrap(), Revision(1), &[kv]), &Pass::default()).findings;
            let unreadable = findings.iter().filter(|finding| finding.code.ends_with("unreadable")).count();
            assert_eq!(unreadable, usize::from(name.ends_with("/x")), "{}: {findings:?}", name);
        }
    }
}

fn kv(key: usize, value: Vec<u8>, revision: i64, leased: bool) -> KeyValue {
    KeyValue {
        key: format!("/enlist/{}", KEYS[key]).as_str().into(),
        value: value.into(),
        create_revision: Revision(revision),
        mod_revision: Revision(revision),
        version: 1,
        lease: LeaseId(i64::from(leased)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_stored_is_planned_from_without_a_panic_and_comes_to_rest(
        stored in prop::collection::vec((entry(), 1..40i64, any::<bool>()), 0..16),
        held_only in any::<bool>(),
    ) {
        let kvs: BTreeMap<_, KeyValue> = stored
            .into_iter()
            .map(|((key, value), revision, leased)| kv(key, value, revision, leased))
            .map(|kv| (kv.key.clone(), kv))
            .collect();
        let mut snapshot = View::of("/enlist".parse().unwrap(), Revision(40), kvs.values());
        let pass = Pass { held_only, ..Pass::default() };
        let before = check(&snapshot).len();
        for round in 0.. {
            let plan = plan(&snapshot, &pass);
            if plan.changes.is_empty() {
                break;
            }
            prop_assert!(round < 30, "passes do not come to rest: {:#?}", plan.changes);
            let (next, lost) = apply(&snapshot, &plan);
            prop_assert!(lost.is_empty(), "{lost:#?}");
            snapshot = next;
        }
        prop_assert!(check(&snapshot).len() <= before, "{:#?}", check(&snapshot));
    }
}
