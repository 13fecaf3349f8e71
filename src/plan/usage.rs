//! How full a pool is. Every address (or port on an address) of a pool is counted in exactly one class, so the counts add
//! up to the total however exclusions and reservations overlap; *free* is counted, never found by subtraction of sets
//! that overlap.

use std::net::IpAddr;

use crate::model::claim::Claim;
use crate::model::names::PoolName;
use crate::plan::index::Index;
use crate::plan::pools::{PoolView, Pools};
use crate::plan::snapshot::Snapshot;
use crate::plan::space::family::{self, Family};
use crate::plan::space::ranges::Ranges;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Addresses: an exclusive pool.
    Addresses,
    /// Ports on addresses: the others.
    Ports,
}

/// How full a pool is. Counts saturate at `u128::MAX` (a whole IPv6 space).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// What is counted.
    pub unit: Unit,
    /// All that it lists; `None` for a `host` pool without prefixes, which has no end.
    pub total: Option<u128>,
    /// Bound to nodes (claims that do not parse are counted here), out of whichever pool of the domain.
    pub bound: u128,
    /// Cooling.
    pub cooling: u128,
    /// Reserved for a node that does not have it.
    pub reserved: u128,
    /// Never given: excluded, and network, broadcast and anycast addresses. Less those that are bound or cooling all the same.
    pub excluded: u128,
    /// What the next nodes can get; `None` where `total` is.
    pub free: Option<u128>,
    /// Whether it gives anything new: it stands in no other pool's way, and nobody changed its domain or sharing.
    pub is_usable: bool,
}

/// Counts a pool. `None` when there is no readable pool of that name.
pub fn pool_usage(snapshot: &Snapshot, name: &PoolName) -> Option<PoolUsage> {
    let index = Index::of(snapshot);
    let pools = Pools::new(snapshot, &index);
    pools.get(name).map(|view| count(snapshot, view))
}

/// Counts every readable pool, in the order of names.
pub fn pool_usages(snapshot: &Snapshot) -> Vec<(PoolName, PoolUsage)> {
    let index = Index::of(snapshot);
    let pools = Pools::new(snapshot, &index);
    pools.iter().map(|view| (view.pool.name.clone(), count(snapshot, view))).collect()
}

fn count(snapshot: &Snapshot, view: &PoolView<'_>) -> PoolUsage {
    let pool = view.pool;
    let unit = if pool.sharing.claims_address() { Unit::Addresses } else { Unit::Ports };
    let each = match unit {
        Unit::Addresses => 1,
        Unit::Ports => u128::from(pool.ports.count()),
    };
    let mut usage = PoolUsage {
        unit,
        total: Some(0),
        bound: 0,
        cooling: 0,
        reserved: 0,
        excluded: 0,
        free: Some(0),
        is_usable: view.fault.is_none(),
    };
    let claims = Claims::new(snapshot, view, unit);
    usage.bound = claims.bound;
    usage.cooling = claims.cooling;
    if pool.cidrs.is_empty() {
        return PoolUsage { total: None, free: None, ..usage };
    }
    let mut total = 0u128;
    let mut free = 0u128;
    for family in view.families() {
        let Some(space) = view.space(family) else { continue };
        // Each claimed unit lies in one of three disjoint parts of the pool: never given, reserved, open.
        let never = space.listed.minus(&space.given);
        let kept = space.given.minus(&space.open);
        total = total.saturating_add(space.listed.count().saturating_mul(each));
        usage.excluded = usage.excluded.saturating_add(claims.left_in(&never, family, each));
        free = free.saturating_add(claims.left_in(&space.open, family, each));
        usage.reserved = usage.reserved.saturating_add(claims.left_in(&kept, family, each));
    }
    PoolUsage { total: Some(total), free: Some(free), ..usage }
}

/// The claimed units of a pool, each once.
struct Claims {
    bound: u128,
    cooling: u128,
    /// The number of each claimed unit's address, sorted; an address once for each of its claimed ports.
    numbers: [Vec<u128>; 2],
}

impl Claims {
    fn new(snapshot: &Snapshot, view: &PoolView<'_>, unit: Unit) -> Claims {
        let mut claims = Claims { bound: 0, cooling: 0, numbers: [Vec::new(), Vec::new()] };
        let mut last: Option<IpAddr> = None;
        for (key, stored) in &snapshot.claims {
            if key.domain != view.pool.domain || !lists(view, &key.ip) {
                continue;
            }
            let counts = match unit {
                // An address once, whether it is claimed whole or by a port: nobody can have it whole.
                Unit::Addresses => last.replace(key.ip) != Some(key.ip),
                Unit::Ports => key.port.is_some_and(|port| view.pool.ports.contains(port)),
            };
            if !counts {
                continue;
            }
            match stored.ok().is_none_or(Claim::is_bound) {
                true => claims.bound += 1,
                false => claims.cooling += 1,
            }
            if let Some(numbers) = claims.numbers.get_mut(Family::of(&key.ip).index()) {
                numbers.push(family::number(&key.ip));
            }
        }
        claims
    }

    /// How many units of a part of the pool are not claimed.
    fn left_in(&self, part: &Ranges, family: Family, each: u128) -> u128 {
        let numbers = self.numbers.get(family.index()).map_or(&[][..], Vec::as_slice);
        let claimed = numbers.iter().filter(|number| part.contains(**number)).count() as u128;
        part.count().saturating_mul(each).saturating_sub(claimed)
    }
}

fn lists(view: &PoolView<'_>, ip: &IpAddr) -> bool {
    let listed = view.space(Family::of(ip)).is_some_and(|space| space.listed.contains(family::number(ip)));
    listed || view.pool.cidrs.is_empty()
}
