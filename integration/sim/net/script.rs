//! What happens in a run over the network, from a seed.

use std::time::Duration;

use super::network::LinkFault;
use crate::history::steps::Allowed;
use crate::sim::script::Node;
use crate::sim::setup::GROUPS;

/// Hosts that run all three roles.
pub(super) const ROLE_HOSTS: usize = 2;
/// Members of the source; the second cluster has one.
pub(super) const MEMBERS: usize = 3;

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Join(Node),
    Stop(Node),
    Kill(Node),
    Leave(Node),
    Reboot(Node),
    Change {
        node: Node,
        pool: &'static str,
        ports: usize,
    },
    Define(&'static str),
    /// The lease of its status ends.
    Expire(Node),
    /// All roles of a host are killed and started again.
    RestartRoles(usize),
    Compact,
    /// Streams of all watches break at the members; connections stay.
    BreakWatches,
    Fault(Fault, Duration),
}

/// Somebody's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Node(Node),
    Roles(usize),
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// A member's host dies, with or without its connections being closed.
    Crash { member: usize, silently: bool },
    /// A member loses its data and comes up alone, as a cluster of its own under its old address.
    Wipe { member: usize },
    /// A member stands still, as by SIGSTOP: connections stay.
    Pause { member: usize },
    /// A member cannot reach the others. Clients reach it.
    Isolate { member: usize },
    /// A client's way to one member, or to all.
    Link { who: Who, member: Option<usize>, fault: LinkFault },
    /// The second cluster stands still.
    PauseDestination,
    /// All tokens run out.
    ForgetTokens,
    /// Users change: all tokens are too old.
    ChangeUsers,
}

/// A whole run.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) nodes: usize,
    pub(super) two_stores: bool,
    /// Whether the source has users.
    pub(super) auth: bool,
    /// Each step, and how long after the one before.
    pub(super) steps: Vec<(Duration, Step)>,
}

impl Script {
    pub(super) fn of(seed: u64) -> Script {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7c9);
        let nodes = rng.usize(3..=5);
        let mut steps: Vec<(Duration, Step)> =
            (0..nodes).map(|node| (Duration::from_millis(rng.u64(..800)), Step::Join(node))).collect();
        for _ in 0..rng.usize(10..20) {
            let pause = match rng.u8(..10) {
                0..=5 => rng.u64(..1_500),
                6..=8 => rng.u64(..6_000),
                _ => rng.u64(..20_000),
            };
            steps.push((Duration::from_millis(pause), step(&mut rng, nodes)));
        }
        Script { nodes, two_stores: rng.bool(), auth: rng.bool(), steps }
    }

    /// What it makes happen that is no fault of the roles.
    pub(super) fn allowed(&self) -> Allowed {
        // What is held by a link, or by a member that stands still, arrives after its client has given up.
        let late = self.steps.iter().any(|(_, step)| {
            matches!(
                step,
                Step::Fault(Fault::Link { fault: LinkFault::Held, .. } | Fault::Pause { .. } | Fault::PauseDestination, _)
            )
        });
        Allowed { late, delay_max: super::LATENCY_MAX * 2, ..Allowed::default() }
    }
}

fn step(rng: &mut fastrand::Rng, nodes: usize) -> Step {
    let node = rng.usize(..nodes);
    match rng.u32(..100) {
        0..=9 => Step::Join(node),
        10..=13 => Step::Stop(node),
        14..=19 => Step::Kill(node),
        20..=21 => Step::Leave(node),
        22..=24 => Step::Reboot(node),
        25..=31 => Step::Change { node, pool: ["a", "s", "h", "w"][rng.usize(..4)], ports: rng.usize(..3) },
        32..=33 => Step::Define(GROUPS[rng.usize(..4)]),
        34..=36 => Step::Expire(node),
        37..=40 => Step::RestartRoles(rng.usize(..ROLE_HOSTS)),
        41..=44 => Step::Compact,
        45..=48 => Step::BreakWatches,
        _ => {
            let lasts = Duration::from_millis(rng.u64(500..25_000));
            Step::Fault(fault(rng, node), lasts)
        }
    }
}

fn fault(rng: &mut fastrand::Rng, node: Node) -> Fault {
    let member = rng.usize(..MEMBERS);
    match rng.u32(..100) {
        0..=17 => Fault::Crash { member, silently: rng.bool() },
        18..=29 => Fault::Pause { member },
        30..=41 => Fault::Isolate { member },
        42..=45 => Fault::PauseDestination,
        46..=53 => Fault::ForgetTokens,
        54..=61 => Fault::ChangeUsers,
        _ => {
            let who = if rng.u8(..3) > 0 { Who::Node(node) } else { Who::Roles(rng.usize(..ROLE_HOSTS)) };
            let member = Some(member).filter(|_| rng.u8(..3) > 0);
            let fault = [LinkFault::Cut, LinkFault::Deaf, LinkFault::Mute, LinkFault::Held][rng.usize(..4)];
            Fault::Link { who, member, fault }
        }
    }
}
