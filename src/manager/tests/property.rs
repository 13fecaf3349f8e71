//! Whatever happens in whatever order: after quiet, members equal what a scan of everything says.

use proptest::prelude::*;

use super::*;
use crate::model::selector::Selector;

#[derive(Debug, Clone)]
enum Step {
    Label(usize, Option<(u8, u8)>),
    Status(usize, Option<u8>),
    Assignment(usize, Option<u8>),
    Define(usize, Option<(usize, bool)>),
    /// A pass that writes everything.
    Pass,
    /// A pass of which only the first unit is written, and then the manager dies.
    PassAndDie,
    Partial,
    Restart,
    /// Another hand deletes or spoils a stored group key.
    Meddle(prop::sample::Index, bool),
    Reread,
}

const SELECTORS: [&str; 6] = ["", "role=r0", "role in (r0,r1),zone", "!role", "zone!=z0", "zone=z1"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..5_usize, prop::option::weighted(0.8, (0..3_u8, 0..3_u8))).prop_map(|(n, v)| Step::Label(n, v)),
        6 => (0..5_usize, prop::option::weighted(0.8, 0..4_u8)).prop_map(|(n, v)| Step::Status(n, v)),
        6 => (0..5_usize, prop::option::weighted(0.8, 0..3_u8)).prop_map(|(n, v)| Step::Assignment(n, v)),
        4 => (0..3_usize, prop::option::weighted(0.8, (0..SELECTORS.len(), any::<bool>()))).prop_map(|(g, v)| Step::Define(g, v)),
        4 => Just(Step::Pass),
        2 => Just(Step::PassAndDie),
        2 => Just(Step::Partial),
        1 => Just(Step::Restart),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, spoil)| Step::Meddle(i, spoil)),
        1 => Just(Step::Reread),
    ];
    prop::collection::vec(step, 1..60)
}

fn variables(role: u8, zone: u8) -> Vec<(&'static str, String)> {
    // 2 = the node lacks the variable.
    let mut variables = Vec::new();
    if role < 2 {
        variables.push(("role", format!("r{role}")));
    }
    if zone < 2 {
        variables.push(("zone", format!("z{zone}")));
    }
    variables
}

const PHASES: [&str; 4] = ["joining", "registered", "stopped", "left"];

/// What the stored groups must be, found the slow way: every definition against every node.
#[derive(Default)]
struct Truth {
    labels: BTreeMap<usize, (u8, u8)>,
    statuses: BTreeMap<usize, u8>,
    assignments: BTreeMap<usize, u8>,
    definitions: BTreeMap<usize, (usize, bool)>,
}

impl Truth {
    fn state(&self, node: usize) -> Option<(&'static str, bool)> {
        let bound = self.assignments.get(&node).is_some_and(|kind| *kind > 0);
        match self.statuses.get(&node) {
            None => bound.then_some(("suspect", self.brake())),
            Some(1) if self.assignments.get(&node) == Some(&1) => Some(("ready", true)),
            Some(0 | 1) => Some(("joining", false)),
            Some(2) => bound.then_some(("stopped", false)),
            _ => None,
        }
    }

    fn brake(&self) -> bool {
        let bound: Vec<_> = self.assignments.iter().filter(|(_, kind)| **kind > 0).collect();
        let silent = bound.iter().filter(|(node, _)| !self.statuses.contains_key(*node)).count();
        silent >= 3 && silent * 100 >= bound.len() * 15
    }

    fn members(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (group, (selector, keyed)) in &self.definitions {
            let selector: Selector = SELECTORS[*selector].parse().unwrap();
            for (node, (role, zone)) in &self.labels {
                let map: BTreeMap<String, String> = variables(*role, *zone).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
                let segment = match (keyed, map.get("zone")) {
                    (false, _) => format!("g{group}"),
                    (true, Some(zone)) => format!("g{group}%2Fzone%3D{zone}"),
                    (true, None) => continue,
                };
                if let Some((state, published)) = self.state(*node).filter(|_| selector.matches(&map)) {
                    lines.push(format!("{segment}/n{node} {state} {published}"));
                }
            }
        }
        lines.sort();
        lines
    }
}

fn stored_members(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = world
        .below("manager/groups/")
        .iter()
        .filter_map(|kv| {
            let (group, node) =
                kv.key.as_str().unwrap().strip_prefix("/enlist/manager/groups/").unwrap().split_once("/members/")?;
            let member = Member::decode(&kv.value).unwrap();
            Some(format!("{group}/{node} {} {}", member.state, member.published))
        })
        .collect();
    lines.sort();
    lines
}

fn assert_summaries(world: &World) {
    let members = stored_members(world);
    for kv in world.below("manager/groups/").iter().filter(|kv| !kv.key.as_str().unwrap().contains("/members/")) {
        let summary = Summary::decode(&kv.value).unwrap();
        let segment = kv.key.as_str().unwrap().strip_prefix("/enlist/manager/groups/").unwrap();
        let mine: Vec<&String> = members.iter().filter(|line| line.starts_with(&format!("{segment}/"))).collect();
        assert_eq!(summary.members, mine.len() as u64, "{segment}");
        assert_eq!(summary.published, mine.iter().filter(|line| line.ends_with("true")).count() as u64, "{segment}");
    }
}

fn copy(truth: &mut Truth, step: &Step) -> Option<(String, Option<String>)> {
    Some(match step {
        Step::Label(n, value) => {
            match value {
                Some(value) => truth.labels.insert(*n, *value),
                None => truth.labels.remove(n),
            };
            let text = value.map(|(role, zone)| {
                let variables = variables(role, zone);
                label(&format!("n{n}"), &variables.iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>())
            });
            (format!("n{n}/label"), text)
        }
        Step::Status(n, value) => {
            match value {
                Some(value) => truth.statuses.insert(*n, *value),
                None => truth.statuses.remove(n),
            };
            (format!("n{n}/status"), value.map(|phase| status(PHASES[usize::from(phase)], 1)))
        }
        Step::Assignment(n, value) => {
            match value {
                Some(value) => truth.assignments.insert(*n, *value),
                None => truth.assignments.remove(n),
            };
            let node = format!("n{n}");
            let text = value.map(|kind| if kind == 0 { waiting(&node) } else { bound(&node, kind.into(), "10.0.0.1") });
            (format!("n{n}/assignment"), text)
        }
        _ => return None,
    })
}

fn play(world: &mut World, truth: &mut Truth, step: &Step, partial: &mut bool) {
    if let Some((key, value)) = copy(truth, step) {
        return world.cut_part(&[(&key, value)], *partial);
    }
    match step {
        Step::Define(g, Some((selector, keyed))) => {
            truth.definitions.insert(*g, (*selector, *keyed));
            let more = if *keyed { r#","keyed_by":["zone"]"# } else { "" };
            world.define(&format!("g{g}"), &group(&format!("g{g}"), SELECTORS[*selector], more));
        }
        Step::Define(g, None) => {
            truth.definitions.remove(g);
            world.undefine(&format!("g{g}"));
        }
        Step::Pass => {
            world.pass();
        }
        Step::PassAndDie => {
            if let Some(unit) = world.view.plan().first().and_then(|change| units(change, &prefix()).into_iter().next()) {
                world.commit(unit.writes);
            }
            world.restart();
        }
        Step::Partial => {
            *partial = !*partial;
            world.cut_part(&[], *partial);
        }
        Step::Restart => world.restart(),
        Step::Meddle(index, spoil) => {
            let keys: Vec<Key> = world.below("manager/groups/").into_iter().map(|kv| kv.key).collect();
            if !keys.is_empty() {
                let key = index.get(&keys).clone();
                world.write(vec![if *spoil { Op::put(key, "spoilt") } else { Op::delete(key) }]);
            }
        }
        _ => drop(world.view.apply_manager(world.reset("manager/"))),
    }
}

proptest! {
    #[test]
    fn after_quiet_members_equal_what_selectors_say(steps in steps()) {
        let mut world = World::new();
        let mut truth = Truth::default();
        let mut partial = false;
        for step in &steps {
            play(&mut world, &mut truth, step, &mut partial);
        }
        world.cut(&[]);
        world.run();
        prop_assert_eq!(stored_members(&world), truth.members());
        assert_summaries(&world);
        let snapshot = crate::plan::snapshot::Snapshot { nodes: world.view.copies.nodes().clone(), ..Default::default() };
        prop_assert_eq!(world.view.brake(), crate::plan::index::Index::of(&snapshot).brake(), "what is counted along is what is there");
        prop_assert_eq!(world.check(), Vec::<String>::new());
        let stored = world.groups();
        world.restart();
        prop_assert_eq!(world.run(), 0);
        prop_assert_eq!(world.groups(), stored);
    }
}
