//! The assignment: the allocator's answer to a node. It carries its terms, so that it can be honoured and released when
//! its pool is gone.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::asked::Asked;
use super::claim::ClaimKey;
use super::lineage::Mark;
use super::names::{DomainName, InstanceId, NodeId, PoolName, Revision};
use super::pool::{OnIsolation, Sharing};
use super::ports::Ports;

/// The answer to a node.
///
/// ```
/// use enlist::Assignment;
/// use enlist::store::wire::Stored;
/// let stored = br#"{"v":1,"node":"edge-9","instance":"77aa","state":"waiting","reason":"pool-full","message":"pool eu is full",
///     "generation":930,"asked":"60303ae22b998861"}"#;
/// let assignment = Assignment::decode(stored).unwrap();
/// assert!(assignment.bound().is_none() && assignment.claims().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The node.
    pub node: NodeId,
    /// The installation it was given to.
    pub instance: InstanceId,
    /// The store revision at which the present addresses and ports were planned. It only rises, over waiting and release too.
    pub generation: Revision,
    /// Digest of what the answer depends on: an agent that restarts finds its answer valid without any allocator.
    pub asked: Asked,
    /// Bound or waiting.
    pub answer: Answer,
    /// What earlier generations had and is still claimed until the present one is acknowledged. At most two.
    pub leaving: Vec<Leaving>,
    /// The pass that wrote it: a store that lacks that pass was restored from an older backup. `None` = an older enlist wrote it.
    /// No plan sets it; it is put in when the pass begins to write.
    pub mark: Option<Mark>,
}

/// Bound or waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has addresses and ports.
    Bound(Bound),
    /// It has nothing, and why.
    Waiting(Waiting),
}

/// Addresses and ports with their terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Where from and on what terms.
    pub terms: Terms,
    /// One of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// By port name.
    pub ports: Ports,
}

/// Where an address came from and on what terms it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The pool at that time.
    pub pool: PoolName,
    /// Its routing domain.
    pub domain: DomainName,
    /// Its sharing.
    pub sharing: Sharing,
    /// Seconds that it is kept while the node is away.
    pub hold_s: u64,
    /// Seconds of cooling after that.
    pub cooldown_s: u64,
    /// What the node does when it cannot reach etcd.
    pub on_isolation: OnIsolation,
}

/// What an earlier generation had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// That generation.
    pub generation: Revision,
    /// Its terms.
    pub terms: Terms,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports that the present generation no longer has (all of them after a move).
    pub ports: Ports,
}

/// Nothing to be had, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// A code out of a closed set.
    pub reason: Reason,
    /// A sentence without moving counts.
    pub message: String,
}

impl Assignment {
    /// Every claim that it must have: the present ones and those of `leaving`. Sorted, without repeats.
    pub fn claims(&self) -> Vec<ClaimKey> {
        let mut keys = self.present_claims();
        keys.extend(self.leaving.iter().flat_map(Leaving::claims));
        keys.sort();
        keys.dedup();
        keys
    }

    /// The claims of the present answer alone. Sorted.
    pub fn present_claims(&self) -> Vec<ClaimKey> {
        self.bound().map(Bound::claims).unwrap_or_default()
    }

    /// The present answer if it is bound.
    pub fn bound(&self) -> Option<&Bound> {
        match &self.answer {
            Answer::Bound(bound) => Some(bound),
            Answer::Waiting(_) => None,
        }
    }
}

impl Bound {
    /// Its claims: the addresses of an exclusive pool, and each port on each address. Sorted.
    pub fn claims(&self) -> Vec<ClaimKey> {
        claims(&self.terms, &self.addresses, &self.ports)
    }
}

impl Leaving {
    /// Its claims. Sorted.
    pub fn claims(&self) -> Vec<ClaimKey> {
        claims(&self.terms, &self.addresses, &self.ports)
    }
}

fn claims(terms: &Terms, addresses: &[IpAddr], ports: &Ports) -> Vec<ClaimKey> {
    let mut keys = Vec::with_capacity(addresses.len() * (1 + ports.len()));
    for ip in addresses {
        let mut key = |port| keys.push(ClaimKey { domain: terms.domain.clone(), ip: *ip, port });
        if terms.sharing.claims_address() {
            key(None);
        }
        ports.values().for_each(|port| key(Some(*port)));
    }
    keys.sort();
    keys
}

/// Why a node waits. The stored words are part of the interface. A word that this enlist does not know is read as
/// [`Reason::Unknown`]: a newer allocator may have more of them, and the message beside it says the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No free address in any pool that matches.
    PoolFull,
    /// Free addresses, but not the ports.
    PortsFull,
    /// No pool's selector matches the label.
    NoPoolMatches,
    /// The label does not parse or breaks a rule.
    LabelInvalid,
    /// The wanted address is somebody else's.
    AddressTaken,
    /// The wanted address (or the host's own) is in no pool that matches, or is excluded.
    AddressOutside,
    /// The wanted address is reserved for another node.
    AddressReserved,
    /// A wanted port is somebody else's.
    PortTaken,
    /// A wanted port is in the range of no pool that matches.
    PortOutside,
    /// The only pools that match are invalid.
    PoolInvalid,
    /// A shared pool serves only labels that ask for a port: a claim must exist.
    NoPorts,
    /// After a restore: only what is asked back is given for a while.
    Restoring,
    /// A reason of a newer enlist. Never written as an answer.
    Unknown,
}

impl Reason {
    /// Every reason, with its stored word.
    pub const ALL: [(Reason, &'static str); 13] = [
        (Reason::PoolFull, "pool-full"),
        (Reason::PortsFull, "ports-full"),
        (Reason::NoPoolMatches, "no-pool-matches"),
        (Reason::LabelInvalid, "label-invalid"),
        (Reason::AddressTaken, "address-taken"),
        (Reason::AddressOutside, "address-outside"),
        (Reason::AddressReserved, "address-reserved"),
        (Reason::PortTaken, "port-taken"),
        (Reason::PortOutside, "port-outside"),
        (Reason::PoolInvalid, "pool-invalid"),
        (Reason::NoPorts, "no-ports"),
        (Reason::Restoring, "restoring"),
        (Reason::Unknown, "unknown"),
    ];

    /// The stored word.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::ALL.iter().find(|(_, word)| *word == text).map_or(Reason::Unknown, |(reason, _)| *reason))
    }
}
