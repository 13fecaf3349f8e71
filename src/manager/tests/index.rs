//! The index says what a scan of everything would say, and looks at little.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::manager::index::Index;
use crate::model::names::{GroupName, NodeId};
use crate::model::selector::Selector;
use crate::model::variables::Variables;

fn node(index: usize) -> NodeId {
    format!("n{index}").parse().unwrap()
}

fn group(index: usize) -> GroupName {
    format!("g{index}").parse().unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    PutNode(usize, Variables),
    RemoveNode(usize),
    PutGroup(usize, Vec<String>),
    RemoveGroup(usize),
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["zone", "role", "gpu"])
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "3", "7"])
}

fn variables(below: usize) -> impl Strategy<Value = Variables> {
    let pairs = prop::collection::btree_map(key().prop_map(String::from), value().prop_map(String::from), 0..below);
    pairs.prop_map(|pairs| pairs.try_into().unwrap())
}

fn requirement() -> impl Strategy<Value = String> {
    (key(), value(), value(), 0..9_usize).prop_map(|(key, a, b, operator)| match operator {
        0 => format!("{key}={a}"),
        1 => format!("{key}!={a}"),
        2 => format!("{key} in ({a},{b})"),
        3 => format!("{key} notin ({a},{b})"),
        4 => key.to_string(),
        5 => format!("!{key}"),
        6 => format!("{key}>4"),
        7 => format!("{key}<4"),
        _ => format!("{key}=={a}"),
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8_usize, variables(3)).prop_map(|(index, variables)| Step::PutNode(index, variables)),
        1 => (0..8_usize).prop_map(Step::RemoveNode),
        3 => (0..6_usize, prop::collection::vec(requirement(), 0..3)).prop_map(|(index, terms)| Step::PutGroup(index, terms)),
        1 => (0..6_usize).prop_map(Step::RemoveGroup),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn the_index_equals_a_scan_after_every_step(steps in steps()) {
        let mut index = Index::default();
        let mut nodes: BTreeMap<usize, Variables> = BTreeMap::new();
        let mut groups: BTreeMap<usize, Selector> = BTreeMap::new();
        let mut before: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for step in steps {
            // What the step says it touched: (groups of this node) or (nodes of this group).
            let (mut touched_groups, mut touched_nodes) = (None, None);
            match step {
                Step::PutNode(at, variables) => {
                    touched_groups = Some((at, index.put_node(&node(at), &variables)));
                    nodes.insert(at, variables);
                }
                Step::RemoveNode(at) => {
                    touched_groups = Some((at, index.remove_node(&node(at))));
                    nodes.remove(&at);
                }
                Step::PutGroup(at, terms) => {
                    let selector: Selector = terms.join(",").parse().unwrap();
                    touched_nodes = Some((at, index.put_group(&group(at), &selector)));
                    groups.insert(at, selector);
                }
                Step::RemoveGroup(at) => {
                    touched_nodes = Some((at, index.remove_group(&group(at))));
                    groups.remove(&at);
                }
            }
            let scan = |selector: &Selector| -> BTreeSet<usize> {
                nodes.iter().filter(|(_, variables)| selector.matches(variables)).map(|(at, _)| *at).collect()
            };
            let expected: BTreeMap<usize, BTreeSet<usize>> =
                groups.iter().map(|(at, selector)| (*at, scan(selector))).collect();
            for at in 0..6 {
                let members: BTreeSet<NodeId> = index.members(&group(at)).cloned().collect();
                let wanted = expected.get(&at).cloned().unwrap_or_default();
                prop_assert_eq!(members, wanted.into_iter().map(node).collect::<BTreeSet<_>>());
            }
            for at in 0..8 {
                let of_node: BTreeSet<GroupName> = index.groups(&node(at)).cloned().collect();
                let wanted = expected.iter().filter(|(_, members)| members.contains(&at)).map(|(g, _)| group(*g));
                prop_assert_eq!(of_node, wanted.collect::<BTreeSet<_>>());
            }
            // Touched is at least what changed.
            let in_group = |state: &BTreeMap<usize, BTreeSet<usize>>, g: usize, n: usize| state.get(&g).is_some_and(|m| m.contains(&n));
            if let Some((n, touched)) = touched_groups {
                for g in (0..6).filter(|g| in_group(&before, *g, n) || in_group(&expected, *g, n)) {
                    prop_assert!(touched.contains(&group(g)));
                }
            }
            if let Some((g, touched)) = touched_nodes {
                for n in (0..8).filter(|n| in_group(&before, g, *n) || in_group(&expected, g, *n)) {
                    prop_assert!(touched.contains(&node(n)));
                }
            }
            before = expected;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Many nodes that come, change and go, and then new groups: what the bitmaps say is what each selector says of each node.
    #[test]
    fn a_new_group_is_answered_as_its_selector_answers_for_each_node(
        nodes in prop::collection::vec((prop::option::of(variables(5)), prop::option::of(variables(5))), 1..300),
        selectors in prop::collection::vec(prop::collection::vec(requirement(), 0..4), 1..20),
    ) {
        let mut index = Index::default();
        let mut now: BTreeMap<NodeId, Variables> = BTreeMap::new();
        for (at, (first, _)) in nodes.iter().enumerate() {
            if let Some(first) = first {
                index.put_node(&node(at), first);
            }
        }
        // Numbers of those that go are others' in the same round.
        for (at, (_, then)) in nodes.iter().enumerate().rev() {
            match then {
                Some(then) => drop((index.put_node(&node(at), then), now.insert(node(at), then.clone()))),
                None => drop(index.remove_node(&node(at))),
            }
        }
        for (at, terms) in selectors.iter().enumerate() {
            let selector: Selector = terms.join(",").parse().unwrap();
            let expected: BTreeSet<NodeId> =
                now.iter().filter(|(_, variables)| selector.matches(variables)).map(|(node, _)| node.clone()).collect();
            // Over a former selector of the same name, too.
            let before: BTreeSet<NodeId> = index.members(&group(at % 5)).cloned().collect();
            let touched = index.put_group(&group(at % 5), &selector);
            prop_assert_eq!(&touched, &before.union(&expected).cloned().collect::<BTreeSet<_>>(), "{}", selector);
            let members: BTreeSet<NodeId> = index.members(&group(at % 5)).cloned().collect();
            prop_assert_eq!(&members, &expected, "{}", selector);
            for node in now.keys() {
                prop_assert_eq!(index.groups(node).any(|g| *g == group(at % 5)), expected.contains(node));
            }
        }
    }
}

#[test]
fn a_node_is_held_against_the_selectors_under_its_pairs_alone() {
    let mut index = Index::default();
    for at in 0..2_000 {
        index.put_group(&group(at), &format!("zone=z{at},role!=db").parse().unwrap());
    }
    index.put_group(&group(2_000), &"gpu>2".parse().unwrap());
    index.put_group(&group(2_001), &"!gpu".parse().unwrap());
    let variables = |zone: &str| Variables::try_from(BTreeMap::from([("zone".to_string(), zone.to_string())])).unwrap();
    let touched = index.put_node(&node(1), &variables("z7"));
    assert_eq!(touched, BTreeSet::from([group(7), group(2_001)]));
    // zone=z7, and the one that no pair can narrow.
    assert_eq!(index.evaluations(), 2);
    let touched = index.put_node(&node(1), &variables("z8"));
    assert_eq!(touched, BTreeSet::from([group(7), group(8), group(2_001)]));
    assert_eq!(index.evaluations(), 4);
}

/// 10,000 nodes and 2,000 groups: what a change costs is what it concerns.
#[test]
fn ten_thousand_nodes_and_two_thousand_groups() {
    let mut index = Index::default();
    let variables = |at: usize, zone: usize| -> Variables {
        let pairs = [
            ("zone", format!("z{zone}")),
            ("rack", format!("r{}", at % 400)),
            ("role", format!("role{}", at % 10)),
            ("host/os", "linux".into()),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        BTreeMap::from(pairs).try_into().unwrap()
    };
    for at in 0..1_000 {
        index.put_group(&group(at), &format!("zone=z{},role=role{},host/os=linux", at % 100, at % 10).parse().unwrap());
        index.put_group(&group(1_000 + at), &format!("rack in (r{},r{}),!gpu", at % 400, (at + 1) % 400).parse().unwrap());
    }
    for at in 0..10_000 {
        index.put_node(&node(at), &variables(at, at % 100));
    }
    // The first half hangs under a hundred zones, ten roles and one system in lists of like length, the other under 400 racks.
    assert!(index.evaluations() <= 10_000 * 40, "{}", index.evaluations());
    let before = index.evaluations();
    let touched = index.put_node(&node(7), &variables(7, 17));
    assert!(index.evaluations() - before <= 40);
    // role7: the groups of z7 and z17 with role7 are 10 each; the rack is the same.
    assert_eq!(touched.len(), 20 + index.groups(&node(7)).filter(|g| !(0..1_000).any(|at| group(at) == **g)).count());
    // A new group is answered from the set of its zone.
    let nodes = index.put_group(&group(5_000), &"zone=z17,host/os=linux".parse().unwrap());
    assert_eq!(nodes.len(), 101);
}
