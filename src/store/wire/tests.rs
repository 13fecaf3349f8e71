//! The stored forms of the design, read and written again.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::model::assignment::{Answer, Assignment};
use crate::model::claim::Claim;
use crate::model::group::Member;
use crate::model::hold::Hold;
use crate::model::label::Label;
use crate::model::status::Status;

fn round_trip<T: Stored + PartialEq + std::fmt::Debug>(json: &str) -> T {
    let value = T::decode(json.as_bytes()).unwrap();
    assert_eq!(T::decode(&value.encode()).unwrap(), value);
    // A newer one that happens to parse is not read as ours.
    for (version, expected) in [("2", "v2"), ("0", "must be 1"), ("-1", "\"v\"")] {
        let other = json.replacen("\"v\":1", &format!("\"v\":{version}"), 1);
        let refused = T::decode(other.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains(expected), "{other}: {refused}");
    }
    let before: serde_json::Value = serde_json::from_str(json).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&value.encode()).unwrap();
    for (key, was) in before.as_object().unwrap() {
        let dropped_default = after.get(key).is_none()
            && (*was == serde_json::json!(false) || *was == serde_json::json!("") || *was == serde_json::json!({}));
        assert!(after.get(key) == Some(was) || dropped_default, "{key}: {was} became {:?}", after.get(key));
    }
    value
}

const LABEL: &str = r#"{"v":1,"id":"edge-7","instance":"0b7e","boot":"5f1c","run":"a91c","temporary":{"ip":"192.0.2.17","port":49311},
 "variables":{"zone":"eu-1","role":"web","gpu":"2"},"description":"video cache","since":"2026-01-01T00:00:00Z",
 "ports":["http","metrics"],"want":{"addresses":["10.20.4.17"],"ports":{"http":8080}},
 "holding":{"generation":812,"addresses":["10.20.4.17"],"ports":{"http":30412}},"ephemeral":false,"annotations":{"serial":"free text"}}"#;

#[test]
fn a_label_round_trips() {
    let label: Label = round_trip(LABEL);
    assert_eq!(label.ports.len(), 2);
    assert_eq!(label.holding.unwrap().generation.0, 812);
}

#[test]
fn a_label_without_ports_asks_for_one_called_main() {
    let label =
        Label::decode(br#"{"v":1,"id":"a","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1}}"#).unwrap();
    assert_eq!(label.ports, ["main".parse().unwrap()]);
}

#[test]
fn a_status_round_trips() {
    let status: Status = round_trip(
        r#"{"v":1,"instance":"0b7e","boot":"5f1c","run":"a91c","phase":"registered","generation":812,"message":"","refused":[{"ip":"10.0.0.1","port":80}]}"#,
    );
    assert!(status.phase.is_live());
}

#[test]
fn assignments_round_trip() {
    let bound: Assignment = round_trip(
        r#"{"v":1,"node":"edge-7","instance":"0b7e","state":"bound","pool":"eu","domain":"default","sharing":"exclusive",
 "addresses":["10.20.4.17"],"ports":{"http":30412,"metrics":30413},"generation":812,"asked":"9f86d081884c7d65",
 "hold_s":600,"cooldown_s":60,"on_isolation":"keep","leaving":[{"generation":7,"pool":"eu","domain":"default","sharing":"exclusive",
 "addresses":["10.20.4.18"],"ports":{"http":30412},"hold_s":600,"cooldown_s":60,"on_isolation":"keep"}]}"#,
    );
    assert_eq!(bound.claims().len(), 5);
    let waiting: Assignment = round_trip(
        r#"{"v":1,"node":"edge-9","instance":"77aa","state":"waiting","reason":"pool-full","message":"pool eu is full","generation":930,"asked":"60303ae22b998861","leaving":[]}"#,
    );
    assert!(matches!(waiting.answer, Answer::Waiting(_)));
}

#[test]
fn claims_holds_and_members_round_trip() {
    let _: Claim = round_trip(r#"{"v":1,"node":"edge-7","state":"bound","pool":"eu"}"#);
    let _: Claim =
        round_trip(r#"{"v":1,"node":"edge-7","instance":"0b7e","state":"cooling","pool":"eu","since":"2026-01-01T00:00:00Z"}"#);
    let _: Hold = round_trip(r#"{"v":1,"state":"held","extended":true,"hold_s":600,"since":"2026-01-01T00:00:00Z"}"#);
    let _: Member = round_trip(
        r#"{"v":1,"node":"edge-7","addresses":["10.20.4.17"],"ports":{"http":30412},"state":"ready","published":true}"#,
    );
    let _: RoleReport = round_trip(
        r#"{"v":1,"identity":"a/1","version":"0.1.0","revision":9,"lag":0,"brake":"","last_pass":"","findings":0,"counters":{"assigned":2}}"#,
    );
    let _: Checkpoint =
        round_trip(r#"{"v":1,"source":"edge","cluster":"cdf818194e3a8c32","revision":812,"partial":{"to":900,"part":2}}"#);
    let _: Summary = round_trip(
        r#"{"v":1,"group":"web","selector":"role=web","members":2,"published":1,"condition":{"state":"frozen","message":"x"},"revision":9}"#,
    );
}

#[test]
fn a_label_that_breaks_a_rule_can_be_read_and_says_so() {
    let label = Label::decode(LABEL.replace("\"metrics\"]", "\"http\"]").as_bytes()).unwrap();
    assert!(label.fault().unwrap().contains("twice"));
}

#[test]
fn a_newer_version_is_said_and_what_does_not_parse_says_where() {
    assert_eq!(Label::decode(br#"{"v":2,"new":[]}"#), Err(Unreadable::Newer(2)));
    for (bad, word) in [
        ("", "JSON"),
        ("{}", "\"v\""),
        ("[1]", "\"v\""),
        (r#"{"v":0}"#, "\"v\""),
        (r#"{"v":1}"#, "id"),
        (&LABEL.replace("edge-7", "Edge 7"), "id"),
        (&LABEL.replace("eu-1", "e u"), "variable \"zone\""),
        (&LABEL.replace("8080", "0"), "port"),
        (&LABEL.replace("video cache", &"x".repeat(70_000)), "at most"),
    ] {
        match Label::decode(bad.as_bytes()) {
            Err(Unreadable::Invalid(message)) => assert!(message.contains(word), "{bad}: {message}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn a_lineage_has_one_form_and_a_mark_that_cannot_be_read_spoils_nothing() {
    use crate::model::lineage::{Chain, Nonce};
    let chain = Chain::default().begin(Nonce(255)).count(3).begin(Nonce(1));
    let stored = r#"{"v":1,"epochs":["2.0000000000000001.0","1.00000000000000ff.3"]}"#;
    assert_eq!(chain.encode(), stored);
    assert_eq!(Chain::decode(stored.as_bytes()).unwrap(), chain);
    for bad in [r#"{"v":1,"epochs":[]}"#, r#"{"v":1,"epochs":["x"]}"#, r#"{"v":1}"#, "[]"] {
        assert!(matches!(Chain::decode(bad.as_bytes()), Err(Unreadable::Invalid(_))), "{bad}");
    }
    assert_eq!(Chain::decode(br#"{"v":2}"#), Err(Unreadable::Newer(2)));
    let answer = |mark: &str| {
        let fields =
            r#""v":1,"node":"a","instance":"i","state":"waiting","reason":"pool-full","generation":8,"asked":"0000000000000001""#;
        crate::Assignment::decode(format!("{{{fields}{mark}}}").as_bytes()).unwrap().mark
    };
    assert_eq!(answer(r#","mark":"1.00000000000000ff.3""#), chain.epochs().last().copied());
    for absent in ["", r#","mark":"later""#, r#","mark":{"seq":1}"#, r#","mark":null"#] {
        assert_eq!(answer(absent), None, "{absent}");
    }
}
