//! What happens in a run, from a seed. The script is made before the run, so that a failing one can be shown and shortened.

use std::time::Duration;

use enlist::store::keys::Role;
use enlist::store::memory::faults::FaultPlan;

use super::world::{GROUPS, OTHER_POOLS, POOLS};

/// A node's number.
pub(crate) type Node = usize;

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Join(Node),
    Stop(Node),
    Kill(Node),
    Leave(Node),
    Reboot(Node),
    Reinstall(Node),
    Change {
        node: Node,
        pool: &'static str,
        ports: usize,
    },
    /// A copy of the first one's state directory starts on another machine for a while.
    Copy {
        from: Node,
        to: Node,
    },
    Define(&'static str),
    DeletePool(&'static str),
    DeleteGroup(&'static str),
    DeleteStatus(Node),
    DeleteLabel(Node),
    RestartRole(Role, usize),
    Fault(Fault),
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Plan(FaultPlan),
    CutNode(Node),
    HealNode(Node),
    CutRole(Role, usize),
    HealRole(Role, usize),
    BreakWatches,
    Compact,
    Elect,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) nodes: usize,
    pub(crate) two_stores: bool,
    /// Whether pools are changed: then assignments may move.
    pub(crate) pools_change: bool,
    /// Each step, and how long after the one before.
    pub(crate) steps: Vec<(Duration, Step)>,
}

impl Script {
    pub(crate) fn of(seed: u64) -> Script {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let nodes = rng.usize(3..=8);
        let pools_change = rng.u8(..).is_multiple_of(3);
        let level = rng.usize(..3);
        let mut steps: Vec<(Duration, Step)> =
            (0..nodes).map(|node| (Duration::from_millis(rng.u64(..800)), Step::Join(node))).collect();
        for _ in 0..rng.usize(15..40) {
            let pause = match rng.u8(..10) {
                0..=5 => Duration::from_millis(rng.u64(..1_500)),
                6..=8 => Duration::from_millis(rng.u64(..8_000)),
                _ => Duration::from_millis(rng.u64(..45_000)),
            };
            steps.push((pause, step(&mut rng, nodes, pools_change, level)));
        }
        Script { nodes, two_stores: rng.bool(), pools_change, steps }
    }
}

fn step(rng: &mut fastrand::Rng, nodes: usize, pools_change: bool, level: usize) -> Step {
    let node = rng.usize(..nodes);
    let role = Role::ALL[rng.usize(..3)];
    match rng.u32(..100) {
        0..=13 => Step::Join(node),
        14..=19 => Step::Stop(node),
        20..=28 => Step::Kill(node),
        29..=32 => Step::Leave(node),
        33..=36 => Step::Reboot(node),
        37..=39 => Step::Reinstall(node),
        40..=46 => Step::Change { node, pool: ["a", "s", "h", "w"][rng.usize(..4)], ports: rng.usize(..3) },
        47..=48 => Step::Copy { from: node, to: (node + 1) % nodes },
        49..=52 if pools_change => Step::Define(if rng.bool() { OTHER_POOLS[rng.usize(..4)] } else { POOLS[rng.usize(..4)] }),
        53 if pools_change => Step::DeletePool(["a", "s", "h"][rng.usize(..3)]),
        49..=53 => Step::Define(GROUPS[rng.usize(..4)]),
        54 => Step::DeleteGroup(["all", "odd"][rng.usize(..2)]),
        55..=57 => Step::DeleteStatus(node),
        58..=59 => Step::DeleteLabel(node),
        60..=69 => Step::RestartRole(role, rng.usize(..2)),
        roll => Step::Fault(fault(rng, roll, (node, role), level)),
    }
}

fn fault(rng: &mut fastrand::Rng, roll: u32, (node, role): (Node, Role), level: usize) -> Fault {
    match roll {
        70..=76 => Fault::Plan(plan(rng, level)),
        77..=80 => Fault::CutNode(node),
        81..=84 => Fault::HealNode(node),
        85..=87 => Fault::CutRole(role, rng.usize(..2)),
        88..=90 => Fault::HealRole(role, rng.usize(..2)),
        91..=93 => Fault::BreakWatches,
        94..=97 => Fault::Compact,
        _ => Fault::Elect,
    }
}

fn plan(rng: &mut fastrand::Rng, level: usize) -> FaultPlan {
    let ms = |rng: &mut fastrand::Rng, most: u64| Duration::from_millis(rng.u64(..most.max(1)));
    let share = |rng: &mut fastrand::Rng, most: f64| rng.f64() * most;
    match level {
        0 => FaultPlan::default(),
        1 => FaultPlan { delay_max: ms(rng, 200), watch_delay_max: ms(rng, 500), ..FaultPlan::default() },
        _ => FaultPlan {
            delay_max: ms(rng, 600),
            unreachable: share(rng, 0.10),
            answer_lost: share(rng, 0.08),
            late: share(rng, 0.05),
            duplicate: share(rng, 0.08),
            watch_broken: share(rng, 0.05),
            watch_stalled: share(rng, 0.02),
            watch_delay_max: ms(rng, 1_500),
            ..FaultPlan::default()
        },
    }
}
