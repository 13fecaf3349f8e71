//! Races that turn on one certain write: a snare makes that one late, and the script goes on when it was sent. Each is set up so
//! that it happens whenever the world lets it; only the times around it are random.

use std::time::Duration;

use enlist::store::memory::faults::{FaultPlan, Snare};

use super::races::{Steps, ms};
use super::script::{Fault, Node, Step, Who};

/// One of them, by number.
pub(super) fn race(rng: &mut fastrand::Rng, (which, node): (u8, Node), nodes: usize) -> Steps {
    let mut steps = all_is_well(rng, node);
    steps.extend(match which {
        8 => release_in_the_second_absence(rng, node),
        9 => hold_in_the_second_absence(rng, node),
        10 => release_of_one_who_is_back(rng, node),
        11 => last_word_of_an_earlier_run(rng, node),
        12 => answer_to_one_who_stopped(rng, node, nodes),
        13 => join_whose_answer_is_lost(rng, node),
        14 => another_host_while_cut_off(rng, node, nodes),
        15 => only_keep_alives(rng, node, nodes),
        16 => many_are_silent(rng, nodes),
        17 => shortened_hold(rng, node),
        18 => death_while_it_waits(rng, node),
        19 => stranger_on_a_recycled_address(rng, node),
        20 => two_short_absences(rng, node),
        _ => backup_with_the_former_owner(rng, node, nodes),
    });
    steps
}

/// The node is there and has what it asks for, as far as the rest of the script lets it.
fn all_is_well(rng: &mut fastrand::Rng, node: Node) -> Steps {
    vec![
        (ms(rng, 0, 500), Step::Fault(Fault::Plan(FaultPlan::default()))),
        (Duration::ZERO, Step::Fault(Fault::Full(false))),
        (Duration::ZERO, Step::Fault(Fault::Heal(Who::Node(node)))),
        (ms(rng, 0, 500), Step::Join(node)),
        (ms(rng, 3_000, 6_000), Step::Fault(Fault::Heal(Who::Node(node)))),
    ]
}

/// The next write of this part of the node's keys arrives so much later.
fn late(rng: &mut fastrand::Rng, node: Node, (part, put): (&str, Option<&str>), (from, to): (u64, u64)) -> (Duration, Step) {
    let snare = Snare { key: format!("nodes/n{node}/{part}"), put: put.map(str::to_owned), late: ms(rng, from, to) };
    (Duration::ZERO, Step::Snare(snare))
}

/// It asks for something out of this pool and has nothing else: who merely says something else keeps what it has.
fn asks(rng: &mut fastrand::Rng, node: Node, pool: &'static str) -> Steps {
    vec![(ms(rng, 0, 500), Step::Leave(node)), (ms(rng, 200, 800), Step::Change { node, pool, ports: 0 })]
}

fn dies(rng: &mut fastrand::Rng, node: Node) -> Steps {
    vec![(ms(rng, 0, 800), Step::Kill(node)), (ms(rng, 0, 200), Step::Fault(Fault::ExpireNode(node)))]
}

/// Races 50 and 68: a release is on its way when its node is back, and away again.
fn release_in_the_second_absence(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let mut steps = vec![late(rng, node, ("assignment", None), (4_000, 8_000))];
    steps.extend(dies(rng, node));
    steps.extend([(Duration::ZERO, Step::Snared), (ms(rng, 0, 300), Step::Join(node)), (ms(rng, 300, 1_500), Step::Kill(node))]);
    steps.extend([(Duration::ZERO, Step::Fault(Fault::ExpireNode(node))), (ms(rng, 15_000, 35_000), Step::Join(node))]);
    steps
}

/// Race 69: so is the first write of a hold. The agent itself joins again, with the label that it had.
fn hold_in_the_second_absence(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let mut steps = vec![late(rng, node, ("hold", Some("")), (2_500, 4_500))];
    steps.extend([(Duration::ZERO, Step::Fault(Fault::ExpireNode(node))), (Duration::ZERO, Step::Snared)]);
    steps.extend([(ms(rng, 100, 800), Step::Kill(node)), (Duration::ZERO, Step::Fault(Fault::ExpireNode(node)))]);
    steps.push((ms(rng, 20_000, 40_000), Step::Join(node)));
    steps
}

/// Race 50: it leaves and joins at once.
fn release_of_one_who_is_back(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let snare = late(rng, node, ("assignment", None), (2_000, 6_000));
    vec![
        snare,
        (ms(rng, 0, 500), Step::Leave(node)),
        (ms(rng, 0, 300), Step::Join(node)),
        (ms(rng, 4_000, 8_000), Step::Join(node)),
    ]
}

/// Race 52: a run's last word is late, and its successor is there already.
fn last_word_of_an_earlier_run(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let word = if rng.bool() { "stopped" } else { "draining" };
    let snare = late(rng, node, ("status", Some(word)), (2_500, 5_000));
    vec![
        snare,
        (ms(rng, 0, 500), Step::Stop(node)),
        (ms(rng, 0, 200), Step::Join(node)),
        (ms(rng, 3_000, 6_000), Step::Join(node)),
    ]
}

/// Race 51: what a node was to get is another's when the answer arrives. The node stopped meanwhile, so nobody answers it anew.
fn answer_to_one_who_stopped(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let other = (node + 1) % nodes;
    let tight = |node| Step::Change { node, pool: "t", ports: 0 };
    let mut steps = vec![(Duration::ZERO, Step::Leave(node)), (Duration::ZERO, Step::Leave(other))];
    let mut snare = late(rng, node, ("assignment", Some("bound")), (5_500, 9_000));
    snare.0 = ms(rng, 3_000, 5_000);
    steps.extend([snare, (Duration::ZERO, tight(node)), (Duration::ZERO, Step::Snared), (ms(rng, 0, 300), Step::Stop(node))]);
    steps.extend([(ms(rng, 0, 1_000), tight(other)), (ms(rng, 10_000, 12_000), Step::Join(node))]);
    steps
}

/// Race 58: the store has done the join, and the agent never hears of it.
fn join_whose_answer_is_lost(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let word = if rng.bool() { "joining" } else { "registered" };
    let snare = late(rng, node, ("status", Some(word)), (0, 0));
    vec![
        (ms(rng, 0, 1_000), Step::Stop(node)),
        snare,
        (ms(rng, 0, 500), Step::Join(node)),
        (ms(rng, 9_000, 15_000), Step::Join(node)),
    ]
}

/// Race 59, case 28: while a node is cut off and still uses what it has, another host is installed with its id.
fn another_host_while_cut_off(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let mut steps = asks(rng, node, "w");
    steps.extend([
        (ms(rng, 3_000, 6_000), Step::Fault(Fault::Cut(Who::Node(node)))),
        (ms(rng, 4_000, 8_000), Step::Rival { from: node, to: (node + 1) % nodes }),
        (ms(rng, 0, 5_000), Step::Fault(Fault::Heal(Who::Node(node)))),
    ]);
    steps
}

/// Races 53 and 59: its status is gone, and nothing but its keep-alives gets through.
fn only_keep_alives(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let mut steps = asks(rng, node, "w");
    steps.push((ms(rng, 4_000, 6_000), Step::Fault(Fault::CutCalls(Who::Node(node)))));
    steps.push((ms(rng, 0, 3_000), Step::DeleteStatus(node)));
    // There are two addresses: the second of them waits for that of the first.
    steps.extend([1, 2].into_iter().flat_map(|by| asks(rng, (node + by) % nodes, "w")));
    steps.push((ms(rng, 38_000, 50_000), Step::Fault(Fault::Heal(Who::Node(node)))));
    steps
}

/// Race 60: mass loss, and leaders that change in it.
fn many_are_silent(rng: &mut fastrand::Rng, nodes: usize) -> Steps {
    let mut steps: Steps = (0..nodes).map(|node| (Duration::ZERO, Step::Join(node))).collect();
    steps.push((ms(rng, 4_000, 6_000), Step::Fault(Fault::Heal(Who::Node(0)))));
    for node in 0..nodes.min(4) {
        steps.extend(dies(rng, node));
    }
    for _ in 0..3 {
        steps.push((ms(rng, 5_000, 12_000), Step::Fault(Fault::Depose(enlist::store::keys::Role::Allocator))));
    }
    steps.extend((0..nodes).map(|node| (ms(rng, 0, 500), Step::Join(node))));
    steps
}

/// Race 68: a hold that is shortened while its node is away.
fn shortened_hold(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let shorter = "{kind: Pool, name: a, cidrs: [10.0.0.0/30], ports: 8000-8003, selector: pool=a, hold: 5s, cooldown: 5s}";
    let mut steps = asks(rng, node, "a");
    steps.push((ms(rng, 3_000, 5_000), Step::Kill(node)));
    steps.push((ms(rng, 0, 2_000), Step::Define(shorter)));
    steps.push((ms(rng, 22_000, 30_000), Step::Define(super::setup::POOLS[0])));
    steps
}

/// Race 69: it waits, has not said that it withdrew, and dies: what is leaving is held all the same. The pool has one port.
fn death_while_it_waits(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let mut steps = asks(rng, node, "t");
    let mut snare = late(rng, node, ("status", Some("-full")), (20_000, 30_000));
    snare.0 = ms(rng, 3_000, 5_000);
    steps.extend([snare, (Duration::ZERO, Step::Change { node, pool: "t", ports: 1 }), (Duration::ZERO, Step::Snared)]);
    steps.extend(dies(rng, node));
    steps.push((ms(rng, 20_000, 30_000), Step::Join(node)));
    steps
}

/// Race 72: whoever answers at the address of a dead holder is not the holder.
fn stranger_on_a_recycled_address(rng: &mut fastrand::Rng, node: Node) -> Steps {
    vec![
        (ms(rng, 0, 500), Step::Kill(node)),
        (ms(rng, 0, 500), Step::Stranger(node)),
        (ms(rng, 0, 6_000), if rng.bool() { Step::Reinstall(node) } else { Step::Reboot(node) }),
    ]
}

/// Race 68: it dies, is back for a moment, and dies again.
fn two_short_absences(rng: &mut fastrand::Rng, node: Node) -> Steps {
    let mut steps = dies(rng, node);
    steps.push((ms(rng, 3_000, 8_000), Step::Join(node)));
    steps.extend(dies(rng, node));
    steps.push((ms(rng, 15_000, 40_000), Step::Join(node)));
    steps
}

/// Race 67: an address is another's, who is cut off, when a backup goes in and its former owner starts again.
fn backup_with_the_former_owner(rng: &mut fastrand::Rng, node: Node, nodes: usize) -> Steps {
    let (next, backup) = ((node + 1) % nodes, (ms(rng, 3_000, 4_000), Step::Fault(Fault::BackUp)));
    let ask = |node| Step::Change { node, pool: "w", ports: 0 };
    let mut steps = vec![(Duration::ZERO, Step::Leave(next)), (ms(rng, 0, 500), Step::Leave(node))];
    // One that is killed must have got its address after the backup: else nothing tells it that it was away for long.
    let (gone, away) = match rng.u8(..3) {
        0 => (Step::Leave(node), ms(rng, 7_000, 9_000)),
        1 => (Step::Stop(node), ms(rng, 40_000, 45_000)),
        _ => (Step::Kill(node), ms(rng, 45_000, 50_000)),
    };
    if matches!(gone, Step::Kill(_)) {
        steps.extend([backup, (ms(rng, 0, 500), ask(node)), (ms(rng, 4_000, 6_000), gone)]);
    } else {
        steps.extend([(ms(rng, 6_000, 8_000), ask(node)), backup, (ms(rng, 0, 1_000), gone)]);
    }
    steps.extend([(away, ask(next)), (ms(rng, 4_000, 5_000), Step::Fault(Fault::Cut(Who::Node(next))))]);
    steps.push((
        ms(rng, 0, 500),
        Step::Fault(Fault::Restore { source: true, writes: rng.usize(..2) * 60, raised: rng.clone().bool() }),
    ));
    steps.extend([(ms(rng, 0, 500), ask(node)), (ms(rng, 8_000, 12_000), Step::Fault(Fault::Heal(Who::Node(next))))]);
    steps
}
