//! Group definitions and the names of keyed groups.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

fn group(keyed_by: &[&str]) -> Group {
    Group {
        name: "web".parse().unwrap(),
        selector: Selector::default(),
        keyed_by: keyed_by.iter().map(ToString::to_string).collect(),
        port: None,
    }
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let mut variables = Variables::default();
    pairs.iter().for_each(|(name, value)| variables.insert(name, value).unwrap());
    variables
}

#[test]
fn keyed_by_names_each_variable_once() {
    assert_eq!(group(&[]).fault(), None);
    assert_eq!(group(&["zone", "example.com/rack"]).fault(), None);
    assert_eq!(group(&["zone", "rack", "zone"]).fault().unwrap(), "keyed_by: zone is named twice");
    assert!(group(&["zo ne"]).fault().unwrap().starts_with("keyed_by: \"zo ne\": the name must be letters"));
    assert_eq!(
        group(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]).fault().unwrap(),
        "keyed_by: 9 variables, at most 8 are allowed"
    );
}

#[test]
fn node_belongs_to_the_group_of_its_values() {
    let keyed = group(&["zone", "rack"]);
    let node = variables(&[("rack", "r2"), ("zone", "eu-1"), ("other", "x")]);
    assert_eq!(keyed.key_of(&node).unwrap().to_string(), "web/zone=eu-1,rack=r2");
    assert_eq!(keyed.key_of(&variables(&[("zone", "eu-1")])), None, "the node lacks rack");
    assert_eq!(group(&[]).key_of(&variables(&[])).unwrap().to_string(), "web");
    let empty = variables(&[("zone", ""), ("rack", "r2")]);
    assert_eq!(keyed.key_of(&empty).unwrap().to_string(), "web/zone=,rack=r2", "an empty value is a value");
}

#[test]
fn keyed_group_is_one_segment() {
    let check = |text: &str, segment: &str| {
        let key: GroupKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert_eq!(key.segment(), segment);
        assert_eq!(GroupKey::from_segment(segment).unwrap(), key);
    };
    check("web", "web");
    check("web/zone=eu-1,rack=r2", "web%2Fzone%3Deu-1%2Crack%3Dr2");
    check("web.eu/zone=", "web.eu%2Fzone%3D");
    check("web/example.com%2Frack=r_2", "web%2Fexample.com%252Frack%3Dr_2");
    let typed: GroupKey = "web/example.com/rack=r2".parse().unwrap();
    assert_eq!(typed.to_string(), "web/example.com%2Frack=r2");
}

#[test]
fn invalid_group_names_are_rejected() {
    let bad = ["", "/", "web/", "Web", "web/zone", "web/zone=a,", "web/=a", "web/zone=a,zone=b", "web/zone=a=b"];
    for bad in bad.into_iter().chain(["web/a%2=b", "web/a%=b", "web/é=b", "web/a=%FF", "web/a=%2C"]) {
        assert!(bad.parse::<GroupKey>().is_err(), "{bad}");
    }
    for foreign in ["web/zone=eu-1", "w%65b", "web%2fzone%3Deu-1", "web%2Fzone=eu-1", "web%"] {
        assert!(GroupKey::from_segment(foreign).is_err(), "{foreign}");
    }
    let twice = vec![("zone".to_string(), "a".to_string()); 2];
    assert!(GroupKey::keyed("web".parse().unwrap(), twice).is_err());
}

fn keys() -> impl Strategy<Value = GroupKey> {
    let names = prop::sample::select(vec!["web", "web.zone", "zone-eu-1"]);
    let variable = prop::sample::select(vec!["zone", "zone.x", "web/zone", "a/b_c", "rack"]);
    let value = prop::sample::select(vec!["", "eu-1", "eu", "1", "x_y", "zone"]);
    (names, prop::collection::btree_map(variable, value, 0..4)).prop_map(|(name, values)| {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        GroupKey::keyed(name.parse().unwrap(), values).unwrap()
    })
}

proptest! {
    #[test]
    fn both_forms_parse_back(key in keys()) {
        prop_assert_eq!(&key.to_string().parse::<GroupKey>().unwrap(), &key);
        prop_assert_eq!(&GroupKey::from_segment(&key.segment()).unwrap(), &key);
        prop_assert!(!key.segment().contains('/'));
    }

    #[test]
    fn two_groups_never_look_the_same(a in keys(), b in keys()) {
        prop_assert_eq!(a == b, a.to_string() == b.to_string());
        prop_assert_eq!(a == b, a.segment() == b.segment());
    }

    #[test]
    fn no_input_panics(text in "[a-z%=,/0-9é]{0,20}") {
        let _ = (text.parse::<GroupKey>(), GroupKey::from_segment(&text));
    }
}
