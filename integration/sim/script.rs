//! What happens in a run, from a seed. The script is made before the run, so that a failing one can be shown and shortened.

use std::time::Duration;

use enlist::store::keys::Role;
use enlist::store::memory::faults::{FaultPlan, Snare};

use super::process::At;
use super::races;
use super::setup::{GROUPS, OTHER_POOLS, POOLS};
use crate::history::steps::Allowed;

/// How often a step is the beginning of a race that is set up on purpose.
const RACES_PERCENT: u8 = 12;

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
    /// A copy of its whole disk.
    Clone {
        from: Node,
        to: Node,
    },
    Define(&'static str),
    DeletePool(&'static str),
    DeleteGroup(&'static str),
    /// Another machine with nothing of the first one's calls itself the same.
    Rival {
        from: Node,
        to: Node,
    },
    DeleteStatus(Node),
    DeleteLabel(Node),
    /// A claim that nobody can read is put there by hand, if there is none.
    BadClaim(&'static str),
    /// A live node with a label that no agent would write: it asks for more ports than allowed.
    GreedyLabel,
    /// Something else answers at the temporary endpoint in a node's label.
    Stranger(Node),
    /// The next write that it waits for is late …
    Snare(Snare),
    /// … and the script goes on when it was sent.
    Snared,
    RestartRole(Role, usize),
    Fault(Fault),
}

/// Somebody's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Node(Node),
    Role(Role, usize),
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Plan(FaultPlan),
    Cut(Who),
    /// What it sends arrives, but it hears nothing.
    CutAnswers(Who),
    /// Only its keep-alives arrive, and are answered.
    CutCalls(Who),
    Heal(Who),
    /// The second cluster is away.
    CutDestination,
    HealDestination,
    BreakWatches,
    Compact,
    /// etcd elects a leader.
    Elect,
    /// The store takes nothing but deletes.
    Full(bool),
    /// A role's leader key is deleted.
    Depose(Role),
    /// The leases of a share of the nodes end at once.
    Expire(f64),
    /// The lease of this one ends.
    ExpireNode(Node),
    /// Every process' clock jumps, each by another time.
    JumpClocks(i64),
    Crash(Who, At),
    Pause(Who, At, Duration),
    BackUp,
    /// The last backup is put in, and written to.
    Restore {
        source: bool,
        writes: usize,
        /// As by `--bump-revision` with `--mark-compacted`.
        raised: bool,
    },
    Empty {
        source: bool,
    },
}

/// A whole run.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) nodes: usize,
    pub(crate) two_stores: bool,
    /// Whether the agents are in one process, and share what such agents may share.
    pub(crate) together: bool,
    /// Whether pools are changed: then assignments may move.
    pub(crate) pools_change: bool,
    /// Each step, and how long after the one before.
    pub(crate) steps: Vec<(Duration, Step)>,
}

impl Script {
    /// What it makes happen that is no fault of the roles.
    pub(crate) fn allowed(&self) -> Allowed {
        let any = |what: fn(&Step) -> bool| self.steps.iter().any(|(_, step)| what(step));
        let late = any(|step| match step {
            Step::Fault(Fault::Plan(plan)) => plan.late > 0.0 || plan.duplicate > 0.0,
            step => matches!(step, Step::Snare(_)),
        });
        let written_again = any(|step| matches!(step, Step::Fault(Fault::Plan(plan)) if plan.conflict > 0.0));
        let delay = |(_, step): &(Duration, Step)| {
            if let Step::Fault(Fault::Plan(plan)) = step { plan.delay_max } else { Duration::ZERO }
        };
        let delay_max = self.steps.iter().map(delay).max().unwrap_or_default();
        Allowed { pools_change: self.pools_change, late, written_again, delay_max, ..Allowed::default() }
    }

    pub(crate) fn of(seed: u64) -> Script {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let nodes = rng.usize(3..=8);
        let pools_change = rng.u8(..).is_multiple_of(3);
        let level = rng.usize(..3);
        let mut steps: Vec<(Duration, Step)> =
            (0..nodes).map(|node| (Duration::from_millis(rng.u64(..800)), Step::Join(node))).collect();
        let mut left = rng.usize(15..40);
        while left > 0 {
            left -= 1;
            if rng.u8(..100) < RACES_PERCENT {
                let race = races::race(&mut rng, nodes);
                left = left.saturating_sub(race.len() / 2);
                steps.extend(race);
                continue;
            }
            let pause = match rng.u8(..10) {
                0..=5 => Duration::from_millis(rng.u64(..1_500)),
                6..=8 => Duration::from_millis(rng.u64(..8_000)),
                _ => Duration::from_millis(rng.u64(..45_000)),
            };
            steps.push((pause, step(&mut rng, nodes, pools_change, level)));
        }
        Script { nodes, two_stores: rng.bool(), together: seed % 5 == 3, pools_change, steps }
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
        47 => Step::Copy { from: node, to: (node + 1) % nodes },
        48 => Step::Clone { from: node, to: (node + 1) % nodes },
        49..=52 if pools_change => Step::Define(if rng.bool() { OTHER_POOLS[rng.usize(..4)] } else { POOLS[rng.usize(..4)] }),
        53 if pools_change => Step::DeletePool(["a", "s", "h"][rng.usize(..3)]),
        49..=53 => Step::Define(GROUPS[rng.usize(..4)]),
        54 => Step::DeleteGroup(["all", "odd"][rng.usize(..2)]),
        55..=57 => Step::DeleteStatus(node),
        58..=59 => Step::DeleteLabel(node),
        60 => Step::GreedyLabel,
        61 => {
            Step::BadClaim(["default/10.0.0.1", "default/10.0.0.2", "default/10.1.0.0/8001", "default/10.2.0.0"][rng.usize(..4)])
        }
        62..=69 => Step::RestartRole(role, rng.usize(..2)),
        _ => Step::Fault(fault(rng, (node, role), level)),
    }
}

fn fault(rng: &mut fastrand::Rng, (node, role): (Node, Role), level: usize) -> Fault {
    let instance = rng.usize(..2);
    let who = if rng.bool() { Who::Node(node) } else { Who::Role(role, instance) };
    let at = At { calls: rng.u32(..12), done: rng.bool() };
    match rng.u32(..100) {
        0..=17 => Fault::Plan(plan(rng, level)),
        18..=27 => Fault::Cut(who),
        28..=29 => Fault::CutAnswers(who),
        30 => Fault::CutCalls(who),
        31..=42 => Fault::Heal(who),
        43..=44 => Fault::CutDestination,
        45..=47 => Fault::HealDestination,
        48..=52 => Fault::BreakWatches,
        53..=60 => Fault::Compact,
        61..=63 => Fault::Elect,
        64..=65 => Fault::Full(true),
        66..=68 => Fault::Full(false),
        69..=71 => Fault::Depose(role),
        72..=74 => Fault::Expire(0.2 + 0.8 * rng.f64()),
        75..=76 => Fault::JumpClocks(rng.i64(-4_000..4_000)),
        77..=84 => Fault::Crash(who, at),
        85..=92 => Fault::Pause(who, at, Duration::from_millis(rng.u64(..40_000))),
        93..=94 => Fault::BackUp,
        95..=97 => {
            let (source, writes) = (rng.bool(), rng.usize(..3) * 40);
            Fault::Restore { source, writes, raised: rng.clone().bool() }
        }
        _ => Fault::Empty { source: rng.bool() },
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
            late_min: ms(rng, 5_000),
            duplicate: share(rng, 0.08),
            conflict: share(rng, 0.15),
            watch_repeated: share(rng, 0.5),
            watch_broken: share(rng, 0.05),
            watch_stalled: share(rng, 0.02),
            watch_delay_max: ms(rng, 1_500),
            ..FaultPlan::default()
        },
    }
}
