//! The pools of a snapshot as a pass sees them: which numbers each may give, which of them are usable at all, and for
//! whom addresses are reserved. Decides nothing about nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::assignment::Terms;
use crate::model::finding::Finding;
use crate::model::names::{DomainName, NodeId, PoolName};
use crate::model::pool::{OnIsolation, OnMismatch, Pool, Sharing, TERM_MAX};
use crate::plan::index::{Index, terms_of};
use crate::plan::snapshot::{Snapshot, Stored};
use crate::plan::space::family::{self, Family};
use crate::plan::space::ranges::Ranges;

/// Every pool of a snapshot.
#[derive(Debug)]
pub struct Pools<'a> {
    views: BTreeMap<&'a PoolName, PoolView<'a>>,
    /// Names in the order in which pools are tried: by priority, then by name.
    order: Vec<&'a PoolName>,
    unreadable: Vec<&'a PoolName>,
    reserved: BTreeMap<&'a DomainName, BTreeMap<IpAddr, &'a NodeId>>,
    /// What is wrong with pools and reservations, in the order of names.
    pub findings: Vec<Finding>,
}

/// One readable pool.
#[derive(Debug)]
pub struct PoolView<'a> {
    /// Its definition.
    pub pool: &'a Pool,
    /// Why it gives nothing new; `None` = it does.
    pub fault: Option<String>,
    spaces: [Option<Space>; 2],
}

/// What a pool has in one family.
#[derive(Debug)]
pub struct Space {
    /// All that it lists.
    pub listed: Ranges,
    /// Less exclusions, and network, broadcast and anycast addresses.
    pub given: Ranges,
    /// Less what is reserved for anybody: what a node without a reservation may get.
    pub open: Ranges,
}

impl<'a> Pools<'a> {
    /// Looks at every pool of a snapshot.
    pub fn new(snapshot: &'a Snapshot, index: &Index) -> Self {
        let mut pools = Pools {
            views: BTreeMap::new(),
            order: Vec::new(),
            unreadable: Vec::new(),
            reserved: BTreeMap::new(),
            findings: Vec::new(),
        };
        let frozen = frozen(snapshot, index);
        for (name, stored) in by_precedence(snapshot, index) {
            match &stored.value {
                Ok(pool) => {
                    let spaces = Family::ALL.map(|family| Space::new(pool, family));
                    let mut view = PoolView { pool, fault: None, spaces };
                    let overlap = || pools.views.values().find_map(|earlier| view.overlap(earlier));
                    let fault = frozen.get(name).map(|text| ("pool-frozen", text.clone()));
                    if let Some((code, text)) = fault.or_else(|| overlap().map(|text| ("pool-overlap", text))) {
                        pools.findings.push(Finding::about(code, key(name), text.clone()));
                        view.fault = Some(text);
                    }
                    pools.views.insert(name, view);
                }
                Err(error) => {
                    pools.findings.push(Finding::about("pool-unreadable", key(name), error.to_string()));
                    pools.unreadable.push(name);
                }
            }
        }
        pools.unreadable.sort();
        pools.reserve();
        pools.order = pools.views.keys().copied().collect();
        pools.order.sort_by_key(|name| pools.views.get(name).map(|view| std::cmp::Reverse(view.pool.priority)));
        pools
    }

    /// Collects the reservations of usable pools. They hold for the whole domain: an overlapping pool gives a reserved
    /// address to nobody else either.
    fn reserve(&mut self) {
        for view in self.views.values().filter(|view| view.fault.is_none()) {
            let reserved = self.reserved.entry(&view.pool.domain).or_default();
            for (node, addresses) in &view.pool.reserve {
                for ip in addresses {
                    if !view.gives(ip) {
                        self.findings.push(Finding::about(
                            "reservation-outside",
                            key(&view.pool.name),
                            format!("{ip} is reserved for {node}, but the pool does not give it: it is outside of cidrs, excluded, or a network, broadcast or anycast address"),
                        ));
                    } else if let Some(other) = reserved.get(ip).filter(|other| **other != node) {
                        self.findings.push(Finding::about(
                            "reservation-twice",
                            key(&view.pool.name),
                            format!("{ip} is reserved for {other} and for {node}: {other} gets it"),
                        ));
                    } else {
                        reserved.insert(*ip, node);
                    }
                }
            }
        }
        for view in self.views.values_mut() {
            let Some(reserved) = self.reserved.get(&view.pool.domain) else { continue };
            for family in Family::ALL {
                let numbers = reserved.keys().filter(|ip| Family::of(ip) == family).map(family::number);
                let numbers = Ranges::new(numbers.map(|number| (number, number)).collect());
                if let Some(Some(space)) = view.spaces.get_mut(family.index()) {
                    space.open = space.given.minus(&numbers);
                }
            }
        }
    }

    /// A readable pool.
    pub fn get(&self, name: &PoolName) -> Option<&PoolView<'a>> {
        self.views.get(name)
    }

    /// Whether any pool may move nodes that have their answer: then all of them have to be looked at.
    pub fn any_moves(&self) -> bool {
        self.views.values().any(|view| view.pool.on_mismatch == OnMismatch::Move)
    }

    /// Every readable pool in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &PoolView<'a>> {
        self.views.values()
    }

    /// Every readable pool in the order in which they are tried: by priority, then by name.
    pub fn by_priority(&self) -> impl Iterator<Item = &PoolView<'a>> {
        self.order.iter().filter_map(|name| self.views.get(name))
    }

    /// Pools that cannot be read, in the order of names.
    pub fn unreadable(&self) -> &[&'a PoolName] {
        &self.unreadable
    }

    /// For whom an address is reserved in a domain.
    pub fn reserved_for(&self, domain: &DomainName, ip: &IpAddr) -> Option<&'a NodeId> {
        self.reserved.get(domain).and_then(|reserved| reserved.get(ip)).copied()
    }

    /// Every reservation that counts.
    pub fn reservations(&self) -> impl Iterator<Item = (&'a DomainName, &IpAddr, &'a NodeId)> {
        self.reserved.iter().flat_map(|(domain, list)| list.iter().map(move |(ip, node)| (*domain, ip, *node)))
    }

    /// Whether a cooling claim out of this pool may go back to its last owner. In a `withdraw` pool a cooling address
    /// goes to nobody, and a pool that is not there any more may have been one.
    pub fn gives_back(&self, name: &PoolName) -> bool {
        self.get(name).is_some_and(|view| view.pool.on_isolation == OnIsolation::Keep)
    }

    /// The hold that counts now: the longer of the assignment's and its pool's. Never longer than a pool may say: etcd
    /// grants no longer lease than some hundred years, and a node would then never be released.
    pub fn hold_s(&self, terms: &Terms) -> u64 {
        let hold_s = terms.hold_s.max(self.get(&terms.pool).map_or(0, |view| view.pool.hold.as_secs()));
        hold_s.min(TERM_MAX.as_secs())
    }

    /// The cooldown that counts now: the longer of the assignment's and its pool's.
    pub fn cooldown_s(&self, terms: &Terms) -> u64 {
        let cooldown_s = terms.cooldown_s.max(self.get(&terms.pool).map_or(0, |view| view.pool.cooldown.as_secs()));
        cooldown_s.min(TERM_MAX.as_secs())
    }
}

impl<'a> PoolView<'a> {
    /// What it has in one family; `None` = the family is not listed.
    pub fn space(&self, family: Family) -> Option<&Space> {
        self.spaces.get(family.index()).and_then(Option::as_ref)
    }

    /// The families it lists, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| self.space(*family).is_some())
    }

    /// Whether an address is in its prefixes and not excluded. A `host` pool without prefixes gives every address.
    pub fn gives(&self, ip: &IpAddr) -> bool {
        if self.pool.cidrs.is_empty() && self.pool.sharing == Sharing::Host {
            return !self.pool.exclude.iter().any(|net| net.contains(ip));
        }
        self.space(Family::of(ip)).is_some_and(|space| space.given.contains(family::number(ip)))
    }

    /// The terms of an answer out of it.
    pub fn terms(&self) -> Terms {
        Terms {
            pool: self.pool.name.clone(),
            domain: self.pool.domain.clone(),
            sharing: self.pool.sharing,
            hold_s: self.pool.hold.as_secs(),
            cooldown_s: self.pool.cooldown.as_secs(),
            on_isolation: self.pool.on_isolation,
        }
    }

    /// An address that this pool and another one of its domain both give.
    pub fn common(&self, other: &PoolView<'_>) -> Option<IpAddr> {
        if self.pool.domain != other.pool.domain {
            return None;
        }
        Family::ALL.into_iter().find_map(|family| {
            let number = self.space(family)?.given.common(&other.space(family)?.given)?;
            Some(family.address(number))
        })
    }

    /// Whether it and another pool share addresses the same way, so that they may overlap.
    pub fn is_compatible(&self, other: &PoolView<'_>) -> bool {
        self.pool.sharing.claims_address() == other.pool.sharing.claims_address()
    }

    /// Why this pool cannot be used beside one that takes precedence and is in order.
    fn overlap(&self, first: &PoolView<'_>) -> Option<String> {
        if first.fault.is_some() || self.is_compatible(first) {
            return None;
        }
        let (pool, other) = (self.pool, first.pool);
        let ip = self.common(first)?;
        Some(format!(
            "it overlaps pool {} in domain {} (both give {ip}), but shares addresses another way: this one is {}, {} is {}; change one, or exclude the common part in one",
            other.name, pool.domain, pool.sharing, other.name, other.sharing
        ))
    }
}

impl Space {
    fn new(pool: &Pool, family: Family) -> Option<Space> {
        let of_family = |nets: &[ipnet::IpNet]| -> Vec<(u128, u128)> {
            nets.iter().filter(|net| Family::of(&net.addr()) == family).map(family::bounds).collect()
        };
        let listed = Ranges::new(of_family(&pool.cidrs));
        if listed.is_empty() {
            return None;
        }
        let mut without = of_family(&pool.exclude);
        // A host's own address is whatever its operator gave it: only addresses that we choose avoid these.
        if pool.sharing != Sharing::Host {
            let of_family = pool.cidrs.iter().filter(|net| Family::of(&net.addr()) == family);
            without.extend(of_family.flat_map(family::never_given).map(|number| (number, number)));
            without.extend(family::unusable(family));
        }
        let given = listed.minus(&Ranges::new(without));
        Some(Space { listed, open: given.clone(), given })
    }
}

/// The pools in the order in which they take precedence where two cannot be used side by side: one that nodes have
/// something of before one that none has, then the older key. A name says nothing about which of two pools is relied on.
fn by_precedence<'a>(snapshot: &'a Snapshot, index: &Index) -> Vec<(&'a PoolName, &'a Stored<Pool>)> {
    let mut pools: Vec<_> = snapshot.pools.iter().collect();
    // Stable: pools that one request created stay in the order of names.
    pools.sort_by_key(|(name, stored)| (index.terms_of(name).next().is_none(), stored.create_revision));
    pools
}

/// Pools whose domain or sharing was changed by hand while assignments stand on the old one: they give nothing until
/// that is put back or the assignments are gone, because their addresses could not be told apart any more.
fn frozen<'a>(snapshot: &'a Snapshot, index: &Index) -> BTreeMap<&'a PoolName, String> {
    let mut frozen = BTreeMap::new();
    for (name, stored) in &snapshot.pools {
        let Some(pool) = stored.ok() else { continue };
        let is_other = |domain: &DomainName, sharing| *domain != pool.domain || sharing != pool.sharing;
        if !index.terms_of(name).any(|(domain, sharing)| is_other(domain, *sharing)) {
            continue;
        }
        // Only now is it worth looking for whom to name.
        let terms = snapshot.nodes.iter().flat_map(|(node, record)| terms_of(record).map(move |terms| (node, terms)));
        let first = terms.into_iter().find(|(_, terms)| terms.pool == *name && is_other(&terms.domain, terms.sharing));
        if let Some((node, terms)) = first {
            frozen.insert(
                name,
                format!(
                    "domain {} and sharing {} cannot be changed while it has assignments: {node} has one in domain {}, {}; put them back, or make another pool",
                    pool.domain, pool.sharing, terms.domain, terms.sharing
                ),
            );
        }
    }
    frozen
}

fn key(name: &PoolName) -> String {
    format!("pools/{name}")
}
