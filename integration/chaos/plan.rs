//! What goes wrong when, from a seed. Pure: the same seed gives the same plan; which process "the leader" is turns out when
//! the fault is done.

use std::time::Duration;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    MemberKilled,
    LeadingMemberKilled,
    MemberPaused,
    LeadingMemberPaused,
    DestinationKilled,
    DestinationPaused,
    RoleKilled,
    LeadingRoleKilled,
    RolePaused,
    LeadingRolePaused,
    AgentsKilled,
    AgentsPaused,
    PairCut,
    EndCutOff,
    WithdrawingCutOff,
    PairDelayed,
    PairReset,
    Compacted,
    Defragmented,
    OutOfSpace,
    EtcdRestarted,
    AllRestarted,
    PoolChanged,
    UsersChanged,
    MemberReplaced,
    MemberUpgraded,
}

impl Kind {
    /// Every kind, and how often it comes in one round.
    pub(crate) const ALL: [(Kind, usize); 26] = [
        (Kind::MemberKilled, 1),
        (Kind::LeadingMemberKilled, 2),
        (Kind::MemberPaused, 1),
        (Kind::LeadingMemberPaused, 2),
        (Kind::DestinationKilled, 1),
        (Kind::DestinationPaused, 1),
        (Kind::RoleKilled, 1),
        (Kind::LeadingRoleKilled, 2),
        (Kind::RolePaused, 1),
        (Kind::LeadingRolePaused, 2),
        (Kind::AgentsKilled, 2),
        (Kind::AgentsPaused, 2),
        (Kind::PairCut, 3),
        (Kind::EndCutOff, 3),
        (Kind::WithdrawingCutOff, 1),
        (Kind::PairDelayed, 3),
        (Kind::PairReset, 2),
        (Kind::Compacted, 4),
        (Kind::Defragmented, 2),
        (Kind::OutOfSpace, 1),
        (Kind::EtcdRestarted, 1),
        (Kind::AllRestarted, 1),
        (Kind::PoolChanged, 4),
        (Kind::UsersChanged, 3),
        (Kind::MemberReplaced, 2),
        (Kind::MemberUpgraded, 3),
    ];
}

/// A fault with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Since the run began.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// How long it lasts, where it does.
    pub(crate) lasts: Duration,
    /// Which of those that may be meant.
    pub(crate) pick: u64,
}

/// The faults of a run. Every kind comes once in a round of 51 faults, under three minutes.
pub(crate) fn faults(seed: u64, time: Duration) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut round: Vec<Kind> = Vec::new();
    let mut faults = Vec::new();
    let mut at = Duration::from_secs(3);
    while at < time {
        if round.is_empty() {
            round = Kind::ALL.iter().flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times)).collect();
            rng.shuffle(&mut round);
            // The longest one comes early, so that a short run sees its end.
            let early = round.len() - 5;
            if let Some(at) = round.iter().position(|kind| *kind == Kind::WithdrawingCutOff) {
                round.swap(at, early);
            }
        }
        let Some(kind) = round.pop() else { break };
        // Mostly shorter than a lease, sometimes longer than a hold.
        let lasts = match rng.u8(..8) {
            0..=4 => Duration::from_millis(rng.u64(300..4_000)),
            5..=6 => Duration::from_millis(rng.u64(4_000..10_000)),
            _ => Duration::from_millis(rng.u64(10_000..20_000)),
        };
        faults.push(Fault { at, kind, lasts, pick: rng.u64(..) });
        at += Duration::from_millis(rng.u64(1_500..5_000));
    }
    faults
}
