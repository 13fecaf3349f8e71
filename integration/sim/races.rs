//! Races that were found on paper, set up on purpose with random times between their steps: chance alone would bring them about
//! once in thousands of runs.

use std::time::Duration;

use enlist::store::keys::Role;
use enlist::store::memory::faults::FaultPlan;

use super::script::{Fault, Node, Step, Who};
use super::snares;

pub(super) type Steps = Vec<(Duration, Step)>;

/// One of them.
pub(crate) fn race(rng: &mut fastrand::Rng, nodes: usize) -> Steps {
    let node = rng.usize(..nodes);
    let mut race = match rng.u8(..22) {
        0 => two_hosts_with_one_id(rng, node, nodes),
        1 => late_words_of_earlier_runs(rng, node),
        2 => blind_allocator(rng, nodes),
        3 => isolated(rng, node, nodes),
        4 => restored_under_way(rng, node, nodes),
        5 => late_cuts(rng, nodes),
        6 => answer_to_one_who_is_gone(rng, node),
        7 => pool_that_is_edited(rng, node, nodes),
        other => snares::race(rng, (other, node), nodes),
    };
    race.push((ms(rng, 0, 20_000), Step::Fault(Fault::Plan(FaultPlan::default()))));
    race
}

pub(super) fn ms(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

fn late(rng: &mut fastrand::Rng, late: f64) -> Step {
    let plan = FaultPlan {
        late,
        late_min: ms(rng, 0, 3_000),
        late_max: ms(rng, 1_000, 10_000),
        delay_max: ms(rng, 0, 300),
        ..FaultPlan::default()
    };
    Step::Fault(Fault::Plan(plan))
}

/// Case 26: at the same moment, on two machines.
fn two_hosts_with_one_id(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let slow = FaultPlan { delay_max: ms(rng, 100, 800), ..FaultPlan::default() };
    vec![
        (ms(rng, 0, 1_000), Step::Leave(node)),
        (ms(rng, 500, 3_000), Step::Fault(Fault::Plan(slow))),
        (ms(rng, 0, 200), Step::Join(node)),
        (ms(rng, 0, 400), Step::Rival { from: node, to: (node + 1) % nodes }),
    ]
}

/// Race 52: an agent is started anew again and again, and its earlier runs' writes are still under way.
fn late_words_of_earlier_runs(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let mut steps = vec![(ms(rng, 0, 1_000), late(rng, 0.4))];
    for _ in 0..4 {
        steps.push((ms(rng, 50, 1_500), Step::Kill(node)));
        steps.push((ms(rng, 0, 200), Step::Join(node)));
    }
    steps
}

/// Cases 9 and 51: the leading allocator's view stands still while it gives.
fn blind_allocator(rng: &mut fastrand::Rng, nodes: usize) -> Steps {
    let blind = FaultPlan { watch_stalled: 0.4, watch_delay_max: ms(rng, 0, 9_000), ..FaultPlan::default() };
    let mut steps = vec![(ms(rng, 0, 500), Step::Fault(Fault::Plan(blind)))];
    for node in 0..nodes {
        let change = Step::Change { node, pool: ["a", "s", "w"][rng.usize(..3)], ports: rng.usize(..3) };
        steps.push((ms(rng, 0, 2_500), change));
    }
    steps
}

/// Race 59: a node that must withdraw is cut off, and others want what it has.
fn isolated(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let ask = |rng: &mut fastrand::Rng, by| {
        let node = (node + by) % nodes;
        [(ms(rng, 0, 1_000), Step::Leave(node)), (ms(rng, 0, 2_000), Step::Change { node, pool: "w", ports: 0 })]
    };
    let mut steps = Vec::from(ask(rng, 0));
    steps.push((ms(rng, 3_000, 6_000), Step::Fault(Fault::Cut(Who::Node(node)))));
    steps.extend([1, 2].into_iter().flat_map(|by| ask(rng, by)));
    steps.push((ms(rng, 40_000, 60_000), Step::Fault(Fault::Heal(Who::Node(node)))));
    steps
}

/// Races 66 and 67: the store goes back while nodes change places.
fn restored_under_way(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let to = ["a", "s", "w"][rng.usize(..3)];
    vec![
        (ms(rng, 1_000, 4_000), Step::Fault(Fault::BackUp)),
        (ms(rng, 0, 2_000), Step::Leave(node)),
        (ms(rng, 5_000, 12_000), Step::Change { node: (node + 1) % nodes, pool: to, ports: rng.usize(..3) }),
        (ms(rng, 0, 2_000), Step::Change { node: (node + 2) % nodes, pool: to, ports: rng.usize(..3) }),
        (
            ms(rng, 2_000, 5_000),
            Step::Fault(Fault::Restore { source: rng.u8(..4) > 0, writes: rng.usize(..2) * 60, raised: rng.clone().bool() }),
        ),
        (ms(rng, 0, 3_000), Step::Change { node, pool: to, ports: 0 }),
        (ms(rng, 0, 3_000), Step::Reinstall((node + 3) % nodes)),
    ]
}

/// Race 65: cuts of the relay are late, or come twice.
fn late_cuts(rng: &mut fastrand::Rng, nodes: usize) -> Steps {
    let plan = FaultPlan { late: 0.3, late_min: Duration::ZERO, duplicate: 0.3, ..FaultPlan::default() };
    let mut steps = vec![(ms(rng, 0, 500), Step::Fault(Fault::Plan(plan)))];
    for _ in 0..5 {
        let node = rng.usize(..nodes);
        let step = match rng.u8(..3) {
            0 => Step::RestartRole(Role::Relay, rng.usize(..2)),
            1 => Step::Stop(node),
            _ => Step::Join(node),
        };
        steps.push((ms(rng, 100, 4_000), step));
    }
    steps
}

/// Race 71 and case 11: what a node asked for is on its way when the node is gone.
fn answer_to_one_who_is_gone(rng: &mut fastrand::Rng, node: Node) -> Steps {
    vec![
        (ms(rng, 0, 1_000), Step::Leave(node)),
        (ms(rng, 2_000, 8_000), late(rng, 0.4)),
        (ms(rng, 0, 200), Step::Join(node)),
        (ms(rng, 20, 2_500), if rng.bool() { Step::Reinstall(node) } else { Step::Kill(node) }),
        (ms(rng, 0, 3_000), Step::DeleteStatus(node)),
    ]
}

/// Race 55: a pool goes, or is edited by hand, while a node has an address out of it and leaves.
fn pool_that_is_edited(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let ask = |node| Step::Change { node, pool: "a", ports: 0 };
    let edit = match rng.u8(..3) {
        0 => Step::DeletePool("a"),
        1 => Step::Define(
            "{kind: Pool, name: a, domain: other, cidrs: [10.0.0.0/30], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s}",
        ),
        _ => Step::Define(
            "{kind: Pool, name: a, sharing: shared, cidrs: [10.0.0.0/30], ports: 8000-8003, selector: pool=a, hold: 20s, cooldown: 5s}",
        ),
    };
    let gone = if rng.bool() { Step::Leave(node) } else { Step::Kill(node) };
    vec![
        (ms(rng, 0, 1_000), ask(node)),
        (ms(rng, 2_000, 5_000), edit),
        (ms(rng, 0, 2_000), ask((node + 1) % nodes)),
        (ms(rng, 0, 2_000), gone),
        (ms(rng, 2_000, 30_000), Step::Define(super::setup::POOLS[0])),
    ]
}
