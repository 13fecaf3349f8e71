//! Reading and writing of definitions.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::pool::{AtOnce, OnIsolation, OnMismatch, PortRange, Sharing};

const EVERYTHING: &str = r#"
# Everything that may be said.
kind: Pool
name: eu
domain: lab
cidrs: [10.20.0.0/16, "fd00:20::/64"]
exclude: [10.20.0.0/24, 10.20.1.5]
ports: 30000-32767
sharing: shared
selector: zone in (eu-2, eu-1)
priority: 10
reserve:
  edge-7: 10.20.9.9
  edge-8: [10.20.9.10, "fd00:20::10"]
hold: 10m
cooldown: 60s
on_mismatch: move
move_at_once: 5
on_isolation: withdraw
---
kind: Group
name: web
selector: role=web,zone in (eu-1,eu-2)
keyed_by: [zone, example.com/rack]
port: http
"#;

fn errors(text: &str) -> Vec<String> {
    parse("f.yaml", text).map(|d| d.len()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(errors(text), expected, "{text}");
}

fn pool(text: &str) -> Pool {
    match parse("f.yaml", text).unwrap().remove(0) {
        Document::Pool(pool) => pool,
        Document::Group(_) => panic!("a group"),
    }
}

#[test]
fn everything_is_read() {
    let documents = parse("f.yaml", EVERYTHING).unwrap();
    let (Document::Pool(pool), Document::Group(group)) = (&documents[0], &documents[1]) else { panic!() };
    let mut expected = Pool::named("eu".parse().unwrap(), "lab".parse().unwrap());
    expected.cidrs = vec!["10.20.0.0/16".parse().unwrap(), "fd00:20::/64".parse().unwrap()];
    expected.exclude = vec!["10.20.0.0/24".parse().unwrap(), "10.20.1.5/32".parse().unwrap()];
    expected.ports = PortRange { first: 30000, last: 32767 };
    expected.sharing = Sharing::Shared;
    expected.selector = "zone in (eu-1,eu-2)".parse().unwrap();
    expected.priority = 10;
    expected.reserve.insert("edge-7".parse().unwrap(), vec!["10.20.9.9".parse().unwrap()]);
    let both = vec!["10.20.9.10".parse().unwrap(), "fd00:20::10".parse().unwrap()];
    expected.reserve.insert("edge-8".parse().unwrap(), both);
    expected.hold = Duration::from_secs(600);
    expected.cooldown = Duration::from_secs(60);
    expected.on_mismatch = OnMismatch::Move;
    expected.move_at_once = AtOnce::Count(5);
    expected.on_isolation = OnIsolation::Withdraw;
    assert_eq!(*pool, expected);
    assert_eq!(group.selector, "role=web,zone in (eu-1,eu-2)".parse().unwrap());
    assert_eq!(group.keyed_by, ["zone", "example.com/rack"]);
    assert_eq!(group.port.as_ref().unwrap().as_str(), "http");
}

#[test]
fn what_is_left_out_or_empty_has_its_default() {
    let short = pool("{kind: Pool, name: eu, cidrs: [10.0.0.0/24]}");
    let mut expected = Pool::named("eu".parse().unwrap(), "default".parse().unwrap());
    expected.cidrs = vec!["10.0.0.0/24".parse().unwrap()];
    assert_eq!(short, expected);
    let fields = ["domain", "exclude", "ports", "sharing", "selector", "priority", "reserve", "hold", "cooldown"];
    let empty: String = fields.iter().map(|field| format!("{field}:\n")).collect();
    assert_eq!(pool(&format!("kind: Pool\nname: eu\ncidrs: [10.0.0.0/24]\n{empty}on_mismatch: ~\n")), expected);
    assert_eq!(parse("f", "").unwrap(), []);
    assert_eq!(parse("f", "---\n# nothing\n---\n").unwrap(), []);
}

#[test]
fn json_is_read_in_every_form() {
    let one = r#"{"kind":"Group","name":"a","selector":""}"#;
    let two = "{\n\t\"kind\": \"Group\",\n\t\"name\": \"b\"\n}";
    let names = |text: &str| {
        let documents = parse("f.json", text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        documents.iter().map(|d| d.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(one), ["a"]);
    assert_eq!(names(&format!("[{one},{two}]")), ["a", "b"]);
    assert_eq!(names(&format!("{one}{two}")), ["a", "b"], "a stream");
    assert_eq!(names(&format!("\n{one}\n\n[{two}]\n")), ["a", "b"], "a stream");
    assert_eq!(names(&format!("- {one}\n---\n{two}")), ["a", "b"], "YAML with a list in it");
    check(
        &format!("{one}\n\n{{\"kind\":\"Group\",\n\"nam\":\"b\"}}\n"),
        &[
            "f.yaml:3: Group: name: it is missing",
            "f.yaml:4: Group: nam: unknown field, did you mean name? (known are kind, name, selector, keyed_by, port, v)",
        ],
    );
}

#[test]
fn every_error_has_its_line_and_field() {
    let text = "kind: Pool\nname: EU\ncidrs:\n- 10.0.0.0/24\n- 10.0.1.0\n- 10.0.0.0/33\nhold: 60\npriority: high\nsharing: all\n";
    check(
        text,
        &[
            "f.yaml:2: Pool EU: name: pool name \"EU\" is not valid: lower-case letters, digits, '-' and '.', each part \
         starting and ending with a letter or digit, at most 253 characters (RFC 1123)",
            "f.yaml:5: Pool EU: cidrs[1]: 10.0.1.0 has no prefix length: 10.0.1.0/32 is one address",
            "f.yaml:6: Pool EU: cidrs[2]: \"10.0.0.0/33\" is not ADDRESS/PREFIX, e.g. 10.20.0.0/16 or fd00:20::/64",
            "f.yaml:7: Pool EU: hold: \"60\" is not a duration (it has no unit: 60s?); allowed are numbers with a unit, s, m, h \
         or d: 90s, 10m, 1h 30m",
            "f.yaml:8: Pool EU: priority: it must be a whole number from -2147483648 to 2147483647",
            "f.yaml:9: Pool EU: sharing: \"all\" is not one of exclusive, shared, host",
        ],
    );
    check(
        "kind: Group\nname: web\nselector: role=web,,x\nport: HTTP\nkeyed_by: zone\n",
        &[
            "f.yaml:3: Group web: selector: at byte 9: found \",\", expected a key, or '!' and a key",
            "f.yaml:4: Group web: port: port name \"HTTP\" is not valid: at most 15 lower-case letters, digits and single '-', \
         with at least one letter, not starting or ending with '-' (RFC 6335)",
            "f.yaml:5: Group web: keyed_by: it must be a list, e.g. keyed_by: [ … ], this is text",
        ],
    );
}

#[test]
fn faults_are_told_at_their_field() {
    check(
        "kind: Pool\nname: eu\ncidrs: [10.0.0.0/24]\nreserve:\n  a: 10.1.0.1\nhold: 0s\n",
        &[
            "f.yaml:4: Pool eu: reserve: a: 10.1.0.1 is not in cidrs",
            "f.yaml:6: Pool eu: hold: 0s is too short, at least 1s is needed",
        ],
    );
    check(
        "kind: Pool\nname: eu\n",
        &["f.yaml:1: Pool eu: cidrs: with sharing exclusive at least one is needed, e.g. [10.20.0.0/16]"],
    );
    check(
        "kind: Pool\nname: eu\ncidrs: [10.0.0.0/24]\nreserve: {A: 10.0.0.1, b: [x, 7], 7: 10.0.0.7}\n",
        &[
            "f.yaml:4: Pool eu: reserve: a key is a number, it must be text: put quotes round it",
            "f.yaml:4: Pool eu: reserve: node id \"A\" is not valid: lower-case letters, digits, '-' and '.', each part starting \
         and ending with a letter or digit, at most 253 characters (RFC 1123)",
            "f.yaml:4: Pool eu: reserve.b: \"x\" is not an address, e.g. 10.20.9.9 or fd00:20::9",
            "f.yaml:4: Pool eu: reserve.b: it must be text, this is a number: put quotes round it",
        ],
    );
}

#[test]
fn an_unknown_field_names_the_nearest() {
    let known = "(known are kind, name, selector, keyed_by, port, v)";
    let unknown = |field: &str, hint: &str| {
        check(
            &format!("kind: Group\nname: web\n{field}: x\n"),
            &[&format!("f.yaml:3: Group web: {field}: unknown field{hint} {known}")],
        );
    };
    unknown("selctor", ", did you mean selector?");
    unknown("Selector", ", did you mean selector?");
    unknown("keyedby", ", did you mean keyed_by?");
    unknown("annotations", "");
}

#[test]
fn kinds_and_shapes_are_checked() {
    check("kind: pool\nname: eu\n", &["f.yaml:1: pool eu: kind: \"pool\" is not one of Pool, Group, did you mean Pool?"]);
    check("name: eu\n", &["f.yaml:1: eu: kind: it is missing"]);
    check("kind: Group\n", &["f.yaml:1: Group: name: it is missing"]);
    check("just text", &["f.yaml:1: a document is a map with kind and name, this is text"]);
    check(
        "- 7\n- []\n",
        &[
            "f.yaml:1: a document is a map with kind and name, this is a number",
            "f.yaml:2: a document is a map with kind and name, this is a list",
        ],
    );
    check("kind: Group\nname: 7\n", &["f.yaml:2: Group: name: it must be text, this is a number: put quotes round it"]);
    check(
        "kind: Group\nname: a\nv: 2\nlater: x\n",
        &["f.yaml:3: Group a: v: format v2 is newer than this enlist reads, which is v1"],
    );
    check("kind: Group\nname: a\nv: x\n", &["f.yaml:3: Group a: v: it must be 1, or left out"]);
    assert_eq!(pool("{v: 1, kind: Pool, name: eu, sharing: host}").sharing, Sharing::Host);
    assert_eq!(pool("{kind: Pool, name: eu, sharing: host, ports: 8080}").ports, PortRange { first: 8080, last: 8080 });
}

#[test]
fn broken_yaml_has_a_line() {
    check("kind: Group\nname: [a\n", &["f.yaml:2: unclosed bracket '['"]);
    check("kind: Group\nname: a\nname: b\n", &["f.yaml:3: \"name\" stands twice"]);
    check("kind: !secret Group\n", &["f.yaml:1: unsupported tag `!secret`"]);
}

#[test]
fn two_of_one_name_are_refused() {
    let text = "kind: Group\nname: a\n---\nkind: Pool\nname: a\nsharing: host\n---\nkind: Group\nname: a\n";
    check(text, &["f.yaml:8: Group a: it is defined at f.yaml:1 already"]);
    check(
        "{\"kind\":\"Group\",\"name\":\"a\"}{\"kind\":\"Group\",\"name\":\"a\"}",
        &["f.yaml:1: Group a: it is defined at f.yaml:1 already"],
    );
    let files = [("a.yaml", "{kind: Group, name: a}"), ("b.yaml", "\n{kind: Group, name: a}")];
    let errors = parse_files(&files).unwrap_err();
    assert_eq!(errors[0].to_string(), "b.yaml:2: Group a: it is defined at a.yaml:1 already");
    assert_eq!(errors.len(), 1);
}

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        laughs += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert_eq!(errors(&laughs).len(), 1);
    for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
        assert_eq!(errors(&deep).len(), 1);
    }
    assert_eq!(errors(&"[{".repeat(100_000)).len(), 1, "JSON as well");
    assert_eq!(errors(&" ".repeat(BYTES_MAX + 1)), ["f.yaml: 1048577 bytes, at most 1048576 are read"]);
}

#[test]
fn nonsense_is_told_briefly() {
    let fields: String = (0..10_000).map(|n| format!("f{n}: x\n")).collect();
    assert_eq!(errors(&fields), ["f.yaml:1: 10000 fields, a document has at most 100"]);
    let nets = "x,".repeat(20_000);
    assert_eq!(errors(&format!("{{kind: Pool, name: a, cidrs: [{nets}]}}")).len(), 100);
    assert_eq!(errors(&"- 7\n".repeat(20_000)).len(), 101);
    check(
        "{kind: Group, name: a, \"\\e[31mx\": x}",
        &["f.yaml:1: Group a: \\u{1b}[31mx: unknown field (known are kind, name, selector, keyed_by, port, v)"],
    );
}

#[test]
fn a_thousand_groups_and_ten_thousand_exclusions_are_read() {
    let groups: String = (0..5_000).map(|n| format!("---\nkind: Group\nname: g{n}\nselector: zone=z{n}\n")).collect();
    assert_eq!(parse("f", &groups).unwrap().len(), 5_000);
    let ips: Vec<String> = (0..10_000).map(|n| format!("10.0.{}.{}", n / 250, n % 250 + 1)).collect();
    let reserve: String = (0..10_000).map(|n| format!("n{n}: 10.1.{}.{}, ", n / 250, n % 250 + 1)).collect();
    let big = format!("{{kind: Pool, name: p, cidrs: [10.0.0.0/8], exclude: [{}], reserve: {{{reserve}}}}}", ips.join(","));
    assert_eq!(pool(&big).reserve.len(), 10_000);
}

#[test]
fn the_stored_form_is_stable() {
    let documents = parse("f.yaml", EVERYTHING).unwrap();
    assert_eq!(
        to_stored(&documents[0]),
        concat!(
            r#"{"v":1,"kind":"Pool","name":"eu","domain":"lab","cidrs":["10.20.0.0/16","fd00:20::/64"],"#,
            r#""exclude":["10.20.0.0/24","10.20.1.5"],"ports":"30000-32767","sharing":"shared","#,
            r#""selector":"zone in (eu-1,eu-2)","priority":10,"#,
            r#""reserve":{"edge-7":"10.20.9.9","edge-8":["10.20.9.10","fd00:20::10"]},"hold":"10m","cooldown":"1m","#,
            r#""on_mismatch":"move","move_at_once":5,"on_isolation":"withdraw"}"#
        )
    );
    for document in &documents {
        assert_eq!(from_stored(to_stored(document).as_bytes()).as_ref(), Ok(document));
    }
}

#[test]
fn what_is_stored_by_hand_is_frozen_with_a_reason() {
    let invalid = |text: &str, expected: &str| {
        assert_eq!(from_stored(text.as_bytes()), Err(StoredError::Invalid(expected.into())), "{text}");
    };
    invalid(
        r#"{"v":1,"kind":"Group","name":"web","selctor":"role=web"}"#,
        "selctor: unknown field, did you mean selector? (known are kind, name, selector, keyed_by, port, v)",
    );
    invalid(r#"{"kind":"Group","name":"web"}"#, "not a JSON object with \"v\"");
    invalid(r#"[]"#, "not a JSON object with \"v\"");
    invalid(r#"{"v":"1","kind":"Group","name":"web"}"#, "v: must be 1");
    invalid(r#"{"v":0,"kind":"Group","name":"web"}"#, "v: must be 1");
    invalid(r#"{"v":1,"kind":"Group","name":"web","name":"db"}"#, "name: it stands twice");
    invalid(r#"{"v":1,"kind":"Pool","name":"eu"}"#, "cidrs: with sharing exclusive at least one is needed, e.g. [10.20.0.0/16]");
    assert!(matches!(from_stored(b"kind: Group"), Err(StoredError::Invalid(_))), "YAML is not stored");
    assert!(matches!(from_stored(b"{\"v\":1,\"kind\":\"Group\",\"name\":\"\xff\"}"), Err(StoredError::Invalid(_))));
    assert!(matches!(from_stored(&b"[".repeat(1_000_000)), Err(StoredError::Invalid(_))));
    assert_eq!(from_stored(br#"{"v":2,"kind":"Cluster","new":[]}"#), Err(StoredError::Newer(2)));
}

#[test]
fn a_value_under_anothers_key_is_not_used() {
    let stored = br#"{"v":1,"kind":"Group","name":"web"}"#;
    assert!(stored_group(&"web".parse().unwrap(), stored).is_ok());
    assert_eq!(
        stored_group(&"db".parse().unwrap(), stored).unwrap_err().to_string(),
        "the key is that of Group db, the value is Group web"
    );
    assert_eq!(
        stored_pool(&"web".parse().unwrap(), stored).unwrap_err().to_string(),
        "the key is that of Pool web, the value is Group web"
    );
}

fn documents() -> impl Strategy<Value = Document> {
    let names = || prop::sample::select(vec!["eu", "1.10", "on", "null", "0x1f", "1e3", "true", "2026-01-01", "a"]);
    let selectors = || {
        let long = format!("zone in ({})", vec!["long-value-of-a-zone"; 20].join(","));
        prop::sample::select(vec![String::new(), "!a".into(), "a".into(), "x in (,1)".into(), "n>007,y!=".into(), long])
    };
    let nets = prop::collection::btree_set(0..200u8, 1..5);
    let at_once = prop_oneof![(1..=100u8).prop_map(AtOnce::Percent), (1..=u32::MAX).prop_map(AtOnce::Count)];
    let terms = (30..100_000u64, 0..100_000u64, 1..=u16::MAX, at_once);
    let pools = (names(), names(), nets, selectors(), any::<(i32, bool, bool, bool)>(), terms);
    let pools = pools.prop_map(|(name, domain, nets, selector, (priority, shared, withdraw, moves), terms)| {
        let (hold, cooldown, port, at_once) = terms;
        let mut pool = Pool::named(name.parse().unwrap(), domain.parse().unwrap());
        pool.cidrs = nets.iter().map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        pool.exclude = nets.iter().map(|n| format!("10.{n}.0.7/32").parse().unwrap()).collect();
        let reserved = nets.iter().map(|n| (format!("n{n}").parse().unwrap(), vec![format!("10.{n}.0.8").parse().unwrap()]));
        pool.reserve = reserved.collect();
        pool.selector = selector.parse().unwrap();
        pool.priority = priority;
        pool.sharing = if shared { Sharing::Shared } else { Sharing::Exclusive };
        pool.on_isolation = if withdraw { OnIsolation::Withdraw } else { OnIsolation::Keep };
        pool.hold = Duration::from_secs(hold);
        pool.cooldown = Duration::from_secs(cooldown);
        pool.ports = PortRange { first: port, last: port.saturating_add(7) };
        pool.on_mismatch = if moves { OnMismatch::Move } else { OnMismatch::Keep };
        pool.move_at_once = at_once;
        Document::Pool(pool)
    });
    let ports = prop::option::of(prop::sample::select(vec!["http", "on", "0x1f", "a1"]));
    let groups = (names(), selectors(), prop::collection::btree_set(names(), 0..4), ports);
    let groups = groups.prop_map(|(name, selector, keyed_by, port)| {
        Document::Group(Group {
            name: name.parse().unwrap(),
            selector: selector.parse().unwrap(),
            keyed_by: keyed_by.into_iter().map(str::to_owned).collect(),
            port: port.map(|port| port.parse().unwrap()),
        })
    });
    prop_oneof![pools, groups]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(document in documents()) {
        let yaml = to_yaml(&document);
        let json = to_json(&document).to_string();
        for text in [&yaml, &json, &to_stored(&document)] {
            let read = parse("f", text);
            prop_assert_eq!(read.as_deref(), Ok(std::slice::from_ref(&document)), "{}", text);
        }
        prop_assert_eq!(from_stored(to_stored(&document).as_bytes()), Ok(document));
    }

    #[test]
    fn no_input_panics(text in "[a-z:{}\\[\\]&*!|>\"'\\-\\n #?,<%@`0-9\\t\u{feff}é]{0,80}") {
        let _ = (parse("f", &text), from_stored(text.as_bytes()));
    }

    #[test]
    fn no_damaged_document_panics(at in 0..EVERYTHING.len(), bytes in any::<[u8; 2]>()) {
        let mut damaged = EVERYTHING.as_bytes().to_vec();
        damaged.splice(at..at + 1, bytes);
        let _ = parse("f", &String::from_utf8_lossy(&damaged));
    }
}

#[test]
fn the_sample_is_valid_and_shows_every_kind() {
    let text = include_str!("../../../config/sample.yaml");
    let documents = parse("config/sample.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut sharings = Vec::new();
    let mut keyed = 0;
    for document in &documents {
        match document {
            Document::Pool(pool) => {
                assert!(pool.cidrs.iter().all(|net| net.network().is_loopback()), "{}", pool.name);
                sharings.push(pool.sharing);
            }
            Document::Group(group) => keyed += usize::from(!group.keyed_by.is_empty()),
        }
    }
    assert_eq!(sharings, [Sharing::Exclusive, Sharing::Shared, Sharing::Host]);
    assert_eq!(keyed, 1);
}
