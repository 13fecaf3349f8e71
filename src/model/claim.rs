//! Claims: one address, or one port on an address, is taken. Written by the allocator, one key each.

use std::fmt;
use std::net::IpAddr;

use super::names::{DomainName, InstanceId, NodeId, PoolName};

/// What is claimed. Ordered as in the store: by domain, then address, an address before its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// Routing domain.
    pub domain: DomainName,
    /// The address, canonical.
    pub ip: IpAddr,
    /// `None` = the address whole (exclusive), else this port on it.
    pub port: Option<u16>,
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.ip)?;
        self.port.map_or(Ok(()), |port| write!(f, "/{port}"))
    }
}

/// Who has it, or had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The owner; while cooling the last owner.
    pub node: NodeId,
    /// The pool it came from.
    pub pool: PoolName,
    /// Bound or cooling.
    pub state: ClaimState,
}

/// Bound or cooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// In an assignment (`leaving` included).
    Bound,
    /// Free, but not for others yet. On a lease: the key goes by itself when the time is over. Few claims cool, so it takes no
    /// room in the others.
    Cooling(Box<Cooling>),
}

/// Given up, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooling {
    /// The installation that had it, for people. Its node may have it back, whichever installation that is by then.
    pub instance: InstanceId,
    /// When it was given up, RFC 3339, for people.
    pub since: String,
}

impl ClaimState {
    /// Cooling: who had it, and since when.
    pub fn cooling(instance: InstanceId, since: String) -> ClaimState {
        ClaimState::Cooling(Box::new(Cooling { instance, since }))
    }
}

impl Claim {
    /// Whether it is part of an assignment.
    pub fn is_bound(&self) -> bool {
        self.state == ClaimState::Bound
    }
}
