//! Claims: one address, or one port on an address, is taken. The allocator writes one key for each.

use std::fmt;
use std::net::IpAddr;

use super::names::{DomainName, InstanceId, NodeId, PoolName};

/// The key of a claim. The order is that of the store: by domain, then address, an address before its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// Routing domain.
    pub domain: DomainName,
    /// The address, canonical.
    pub ip: IpAddr,
    /// `None`: the whole address (exclusive). `Some`: this port on it.
    pub port: Option<u16>,
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.ip)?;
        self.port.map_or(Ok(()), |port| write!(f, "/{port}"))
    }
}

/// The owner of a claim, present or former.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The owner; while the claim cools, the last owner.
    pub node: NodeId,
    /// The pool that the claim came from.
    pub pool: PoolName,
    /// Bound or cooling.
    pub state: ClaimState,
}

/// Bound or cooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// In an assignment (`leaving` included).
    Bound,
    /// Not in use, but not free for other nodes yet. The key is on a lease, so that etcd deletes it when the time is
    /// over. Few claims cool, so the details are boxed and take no room in the others.
    Cooling(Box<Cooling>),
}

/// The release of a claim, and its former owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooling {
    /// The installation that had it, for people. The node may take it back, even as another installation.
    pub instance: InstanceId,
    /// The time of the release, RFC 3339, for people.
    pub since: String,
}

impl ClaimState {
    /// The cooling state, with the former owner and the time of the release.
    pub fn cooling(instance: InstanceId, since: String) -> ClaimState {
        ClaimState::Cooling(Box::new(Cooling { instance, since }))
    }
}

impl Claim {
    /// Whether the claim is part of an assignment.
    pub fn is_bound(&self) -> bool {
        self.state == ClaimState::Bound
    }
}
