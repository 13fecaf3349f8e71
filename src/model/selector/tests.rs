//! Selectors compared with Kubernetes' own answers, and their properties.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::variables::Variables;

#[derive(serde::Deserialize)]
struct Row {
    sel: String,
    labels: BTreeMap<String, String>,
    ok: bool,
    canon: String,
    #[serde(rename = "match")]
    matches: bool,
    labels_ok: bool,
}

#[test]
fn kubernetes_answers_hold() {
    let rows: Vec<Row> = include_str!("../../../integration/data/selectors.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 1000);
    let mut wrong = Vec::new();
    for row in &rows {
        let parsed = row.sel.parse::<Selector>();
        let canon = parsed.as_ref().map(Selector::to_string).unwrap_or_default();
        let matches = parsed.as_ref().is_ok_and(|s| s.matches(&row.labels));
        if (parsed.is_ok(), canon.as_str(), matches) != (row.ok, row.canon.as_str(), row.matches) {
            wrong.push(format!("{:?} on {:?}: {parsed:?} {canon:?} {matches}", row.sel, row.labels));
        }
        if Variables::try_from(row.labels.clone()).is_ok() != row.labels_ok {
            wrong.push(format!("labels {:?} should be ok: {}", row.labels, row.labels_ok));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn parse(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn errors_name_the_position_and_the_allowed_tokens() {
    let check = |text: &str, expected: &str| {
        assert_eq!(text.parse::<Selector>().unwrap_err().to_string(), expected, "{text:?}");
    };
    check("x=a,,y=b", "at byte 4: found \",\", expected a key, or '!' and a key");
    check("x=a,", "at byte 4: the selector ends, expected a key, or '!' and a key");
    check("x in (a", "at byte 7: the selector ends, expected ',' or ')'");
    check("x in (a b)", "at byte 8: found \"b\", expected ',' or ')'");
    check("x in a", "at byte 5: found \"a\", expected '('");
    check("x y", "at byte 2: found \"y\", expected one of =, ==, !=, in, notin, >, <, or ','");
    check("!", "at byte 1: the selector ends, expected a key");
    check("!x=a", "at byte 2: found \"=\", expected ',' or the end");
    check("x==>a", "at byte 3: found \">\", expected a value");
    check("gpu > two", "at byte 6: value \"two\" is not an integer of 64 bits, which '>' and '<' compare");
    check("gpu>", "at byte 4: value \"\" is not an integer of 64 bits, which '>' and '<' compare");
    check(
        "zone=eu/1",
        "at byte 5: value \"eu/1\" must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit",
    );
    check(
        "a=1,é=2",
        "at byte 4: key \"é\": the name must be letters, digits, '-', '_' and '.', and begin and end with a letter or digit",
    );
    check(
        "zone=eu-1\0,role=db",
        "at byte 9: control character '\\0' is not allowed (tab, carriage return and line feed are white space)",
    );
}

#[test]
fn every_control_byte_but_white_space_is_an_error() {
    for byte in (0..32u8).chain([127]) {
        let text = format!("zone=eu-1{},role=db", char::from(byte));
        assert_eq!(text.parse::<Selector>().is_ok(), matches!(byte, 9 | 10 | 13), "{text:?}");
    }
}

#[test]
fn the_empty_text_is_a_value() {
    for text in ["x in ()", "x=", "x in (,)", "x in ( )", "x in (, ,)"] {
        assert!(parse(text).matches(&variables(&[("x", "")])), "{text}");
        assert!(!parse(text).matches(&variables(&[("x", "a")])), "{text}");
        assert!(!parse(text).matches(&variables(&[])), "{text}");
    }
}

#[test]
fn integers_parse_as_in_go() {
    let holds = |text: &str, seen: &str| parse(text).matches(&variables(&[("n", seen)]));
    assert!(holds("n>9223372036854775806", "9223372036854775807"));
    assert!(!holds("n>1", "9223372036854775808"), "a number beyond 64 bits is not an integer");
    assert!(holds("n<0", "-1"));
    assert!(holds("n>007", "+8"));
    for seen in ["", "4.5", "1_000", "0x10", " 9", "９"] {
        assert!(!holds("n>1", seen) && !holds("n<1", seen), "{seen:?}");
    }
    assert!("n>9223372036854775808".parse::<Selector>().is_err());
}

#[test]
fn operators_are_words_in_the_place_of_a_key_or_value() {
    assert_eq!(parse("in in (in,notin),notin=in,!in").to_string(), "in in (in,notin),!in,notin=in");
}

#[test]
fn long_selectors_are_rejected() {
    assert!(Selector::from_str(&"x=a,".repeat(256 * 1024)).is_err());
    let values = |count| format!("x in({})", vec!["a"; count].join(","));
    let fits = values((SELECTOR_BYTES_MAX - 6) / 2);
    assert!(fits.len() <= SELECTOR_BYTES_MAX && fits.parse::<Selector>().is_ok());

    // The canonical form, with a blank after each `in`, would not parse again.
    let close = vec!["k in(v)"; SELECTOR_BYTES_MAX / 8].join(",");
    assert!(close.len() < SELECTOR_BYTES_MAX);
    assert_eq!(close.parse::<Selector>().unwrap_err().problem, Problem::TooLong);
}

#[test]
fn requirements_give_an_index_their_exact_values() {
    let selector = parse("zone in (eu-2,eu-1),!old,role!=db,gpu>1,rack,x==y");
    let seen: Vec<_> = selector.requirements().iter().map(|r| (r.key(), r.exact_values(), r.needs_key())).collect();
    let (zones, x) = (["eu-1".to_string(), "eu-2".to_string()], ["y".to_string()]);
    assert_eq!(
        seen,
        [
            ("gpu", None, true),
            ("old", None, false),
            ("rack", None, true),
            ("role", None, false),
            ("x", Some(&x[..]), true),
            ("zone", Some(&zones[..]), true),
        ]
    );
}

#[test]
fn terms_show_the_value_seen() {
    let selector = parse("zone=eu-1,role!=db");
    let node = variables(&[("zone", "eu-2")]);
    let seen: Vec<_> = selector.terms(&node).iter().map(|t| (t.requirement.to_string(), t.seen, t.holds)).collect();
    assert_eq!(seen, [("role!=db".to_string(), None, true), ("zone=eu-1".to_string(), Some("eu-2"), false)]);
}

/// Texts that often parse: pieces of the grammar in any order.
fn nearly_selectors() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a", "b.c", "x/y", "in", "notin", "1", "007", "+5", "-", "", "=", "==", "!=", "!", "(", ")", ",", ">", "<", " ", "\t",
        "é", "\0",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

/// Texts that always parse.
fn selectors() -> impl Strategy<Value = String> {
    let key = || prop::sample::select(vec!["a", "b", "in", "example.com/rack", "Z_9"]);
    let value = || prop::sample::select(vec!["", "1", "eu-1", "notin", "x.y_Z"]);
    let list = prop::collection::vec(value(), 0..4).prop_map(|values| values.join(","));
    let requirement = prop_oneof![
        key().prop_map(String::from),
        key().prop_map(|k| format!("!{k}")),
        (key(), prop::sample::select(vec!["=", "==", "!="]), value()).prop_map(|(k, o, v)| format!("{k} {o}{v}")),
        (key(), prop::sample::select(vec![" in", " notin "]), list).prop_map(|(k, o, v)| format!("{k}{o}({v})")),
        (key(), prop::sample::select(vec!['<', '>']), any::<u32>()).prop_map(|(k, o, v)| format!("{k}{o} {v}")),
    ];
    prop::collection::vec(requirement, 0..6).prop_map(|requirements| requirements.join(" ,"))
}

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,60}") {
        let _ = text.parse::<Selector>();
    }

    #[test]
    fn canonical_form_parses_back(text in prop_oneof![selectors(), nearly_selectors()]) {
        if let Ok(selector) = text.parse::<Selector>() {
            let canonical = selector.to_string();
            prop_assert_eq!(canonical.parse::<Selector>().unwrap().to_string(), canonical.clone());
            prop_assert_eq!(canonical.parse::<Selector>().unwrap(), selector);
        }
    }

    #[test]
    fn generated_selectors_parse(text in selectors()) {
        prop_assert!(text.parse::<Selector>().is_ok(), "{:?}", text);
    }

    #[test]
    fn selector_matches_when_all_its_terms_hold(text in selectors(), seen in "[a1]{0,1}") {
        let selector = text.parse::<Selector>().unwrap();
        let node = variables(&[("a", &seen)]);
        prop_assert_eq!(selector.matches(&node), selector.terms(&node).iter().all(|t| t.holds));
    }
}
