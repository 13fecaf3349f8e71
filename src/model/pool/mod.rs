//! Pools: addresses and ports to give out. Written by the operator.
//!
//! The types; what they may not hold together is in `fault`. How a free address is found is [`crate::plan`]'s business.

mod fault;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::names::{DomainName, NodeId, PoolName};
use super::selector::Selector;

/// Ports given out by default: below Linux' ephemeral range (32768–60999), above the registered services people use.
pub const PORTS_DEFAULT: PortRange = PortRange { first: 30000, last: 32767 };
/// A node that is away keeps its address this long by default.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(600);
/// Then nobody else gets it for this long by default.
pub const COOLDOWN_DEFAULT: Duration = Duration::from_secs(60);
/// The shortest hold: an etcd lease cannot be shorter (it raises shorter ones to 2 s by default), and a node whose lease
/// lapses for a moment should not lose its address.
pub const HOLD_MIN: Duration = Duration::from_secs(1);
/// The shortest hold with `on_isolation: withdraw`: the agent must notice, stop and be killed within it.
pub const WITHDRAW_HOLD_MIN: Duration = Duration::from_secs(30);
/// The longest hold or cooldown: etcd refuses leases above 9,000,000,000 s, people do not mean more than ten years.
pub const TERM_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A pool lists at most this many CIDRs, exclusions and reserved addresses each; the object must fit one etcd value.
pub const LIST_MAX: usize = 10_000;

/// Addresses and ports to give out, and to whom.
///
/// ```
/// use enlist::model::documents::{Document, parse};
/// let documents = parse("pools.yaml", "{kind: Pool, name: eu, cidrs: [10.20.0.0/16], selector: zone=eu-1}").unwrap();
/// let [Document::Pool(pool)] = documents.as_slice() else { panic!() };
/// assert_eq!((pool.name.as_str(), pool.cooldown.as_secs()), ("eu", 60));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Routing domain: an address exists once in each.
    pub domain: DomainName,
    /// Where addresses come from, apart from each other; one address per family that is listed. May be empty only with
    /// [`Sharing::Host`].
    pub cidrs: Vec<IpNet>,
    /// Never given. May overlap each other and what is not in `cidrs`.
    pub exclude: Vec<IpNet>,
    /// Ports to give.
    pub ports: PortRange,
    /// Who shares an address with whom.
    pub sharing: Sharing,
    /// Which nodes may use it; empty = all.
    pub selector: Selector,
    /// Higher first; ties by name.
    pub priority: i32,
    /// Addresses kept for certain nodes (at most one of each family a node).
    pub reserve: BTreeMap<NodeId, Vec<IpAddr>>,
    /// A node that is away keeps its address this long. Whole seconds.
    pub hold: Duration,
    /// Then nobody else gets it for this long. Whole seconds; zero = no cooling, it is free at once.
    pub cooldown: Duration,
    /// What happens to an assignment that no longer fits.
    pub on_mismatch: OnMismatch,
    /// With [`OnMismatch::Move`]: how many of its nodes are moved before the first of them have acknowledged.
    pub move_at_once: AtOnce,
    /// What a node does that cannot reach etcd.
    pub on_isolation: OnIsolation,
}

impl Pool {
    /// A pool of this name with every other field at its default: no addresses yet, so not valid but for
    /// [`Sharing::Host`].
    pub fn named(name: PoolName, domain: DomainName) -> Self {
        Pool {
            name,
            domain,
            cidrs: Vec::new(),
            exclude: Vec::new(),
            ports: PORTS_DEFAULT,
            sharing: Sharing::default(),
            selector: Selector::default(),
            priority: 0,
            reserve: BTreeMap::new(),
            hold: HOLD_DEFAULT,
            cooldown: COOLDOWN_DEFAULT,
            on_mismatch: OnMismatch::default(),
            move_at_once: AtOnce::default(),
            on_isolation: OnIsolation::default(),
        }
    }
}

/// An inclusive range of ports, `first ≤ last`, `first ≥ 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// How many ports.
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether `port` is in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("ports {text:?} is not FIRST-LAST or one port, each 1 to 65535, e.g. 30000-32767");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        // Rust reads "+80" as a number; nobody writes a port so.
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|_| !text.contains('+')).ok_or_else(fault);
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || last < first { Err(fault()) } else { Ok(PortRange { first, last }) }
    }
}

/// How many of a number of nodes: a share or a count, always at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtOnce {
    /// Of a hundred: 1 to 100, rounded down.
    Percent(u8),
    /// So many, at least one.
    Count(u32),
}

impl AtOnce {
    /// How many of `nodes`: at least one.
    pub fn of(self, nodes: usize) -> usize {
        let most = match self {
            // 100 of 100 is the whole number, so that this cannot lose a node to rounding.
            AtOnce::Percent(percent) => nodes.saturating_mul(usize::from(percent)) / 100,
            AtOnce::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        most.max(1)
    }
}

impl Default for AtOnce {
    /// A tenth: a mistake in a pool shows in a few nodes first, and a large pool is moved in ten rounds.
    fn default() -> Self {
        AtOnce::Percent(10)
    }
}

impl fmt::Display for AtOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AtOnce::Percent(percent) => write!(f, "{percent}%"),
            AtOnce::Count(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for AtOnce {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is neither a percentage from 1% to 100% nor a count from 1, e.g. 10% or 5");
        // Rust reads "+5" as a number; nobody writes a count so.
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.strip_suffix('%') {
            Some(percent) if digits(percent) => {
                percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(AtOnce::Percent)
            }
            None if digits(text) => text.parse().ok().filter(|count| *count > 0).map(AtOnce::Count),
            _ => None,
        }
        .ok_or_else(fault)
    }
}

macro_rules! word_enum {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? } default $default:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$vdoc])* $variant),+ }

        impl $type {
            /// The stored word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Default for $type {
            fn default() -> Self { Self::$default }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("{text:?} is not one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

word_enum! {
    /// Who shares an address with whom.
    Sharing {
        /// An address has one node.
        Exclusive = "exclusive",
        /// Nodes share addresses; their ports differ.
        Shared = "shared",
        /// The node's own address (that of its temporary endpoint); only ports are chosen.
        Host = "host",
    } default Exclusive
}

impl Sharing {
    /// Whether an address is claimed whole (one key for the address). Otherwise only its ports are claimed.
    pub fn claims_address(self) -> bool {
        self == Sharing::Exclusive
    }
}

word_enum! {
    /// What happens to an assignment that no longer fits its pool or label.
    OnMismatch {
        /// It stays until the node leaves.
        Keep = "keep",
        /// It is replaced.
        Move = "move",
    } default Keep
}

word_enum! {
    /// What a node does that cannot reach etcd.
    OnIsolation {
        /// It goes on: an etcd that is down takes nothing away from anybody.
        Keep = "keep",
        /// It stops using the address when its hold is over.
        Withdraw = "withdraw",
    } default Keep
}
