//! The status: a live node's word on how far it is. A small key on the node's own lease; without a lease once stopped.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::names::{BootId, InstanceId, Revision, RunId};

/// A live node's word on how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which installation.
    pub instance: InstanceId,
    /// Which boot of its host.
    pub boot: BootId,
    /// Which process of its agent.
    pub run: RunId,
    /// How far it is.
    pub phase: Phase,
    /// The generation it has applied (acknowledged when `registered`); 0 = none.
    pub generation: Revision,
    /// For people: why it failed, what it waits for.
    pub message: String,
    /// Ports that its host uses already: the allocator gives others.
    pub refused: Vec<Refused>,
}

/// A port on an address that something else on the host uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refused {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It wrote its label and has not acknowledged an assignment yet (or has none to acknowledge).
    Joining,
    /// It applied the assignment of `generation`.
    Registered,
    /// Applying failed; `message` says why. It is tried again.
    Failed,
    /// It is stopping.
    Draining,
    /// It stopped properly; what it has is held for it.
    Stopped,
    /// It left for good; what it had is released at once.
    Left,
}

impl Phase {
    /// Every phase, with its stored word.
    pub const ALL: [(Phase, &'static str); 6] = [
        (Phase::Joining, "joining"),
        (Phase::Registered, "registered"),
        (Phase::Failed, "failed"),
        (Phase::Draining, "draining"),
        (Phase::Stopped, "stopped"),
        (Phase::Left, "left"),
    ];

    /// Whether an agent stands behind it (its key is on a lease). A `stopped` or `left` node is not live.
    pub fn is_live(self) -> bool {
        !matches!(self, Phase::Stopped | Phase::Left)
    }

    /// The stored word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .find(|(_, word)| *word == text)
            .map(|(phase, _)| *phase)
            .ok_or_else(|| format!("phase {text:?} is not one of joining, registered, failed, draining, stopped, left"))
    }
}
