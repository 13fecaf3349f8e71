//! What is taken in each routing domain: by the claims that are stored, by assignments whose claims are missing, and by
//! what this pass has given already. Never says *by whom*: the snapshot does.
//!
//! All of a snapshot is taken before anything is given, and within one plan nothing becomes free: what a plan gives up is
//! there for others only in a later one, because all compares of a request see the state before it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::assignment::Reason;
use crate::model::claim::ClaimKey;
use crate::model::names::{DomainName, PoolName};
use crate::plan::index::Index;
use crate::plan::snapshot::Snapshot;
use crate::plan::space::bits::Bits;
use crate::plan::space::family::{self, Family};
use crate::plan::space::ports::PortSet;

/// What is taken.
#[derive(Debug, Default)]
pub struct Taken {
    domains: BTreeMap<DomainName, Domain>,
    /// How many stray keys are under an address.
    strays: BTreeMap<ClaimKey, usize>,
    /// What this pass has added: taken back at its end.
    added: Vec<Added>,
    /// Given in this pass.
    picked: BTreeSet<ClaimKey>,
    /// Searches that failed: nothing becomes free within a plan, so they need not be tried again.
    failed: BTreeMap<(PoolName, Search), Reason>,
    /// For a pool, a family and a count: addresses on which fewer ports are free than that.
    drained: BTreeMap<(PoolName, Family, usize), Bits>,
    /// For each pool: nodes that this pass moves although they did not ask.
    moved: BTreeMap<PoolName, usize>,
    nothing: Bits,
    no_ports: PortSet,
}

/// A key that was added, and whether it was not there before.
type Added = (ClaimKey, bool);

/// A search that may fail for everybody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Search {
    /// A free address of a family.
    Address(Family),
    /// So many free ports on one address, certain ones among them.
    Ports(usize, Vec<u16>),
}

#[derive(Debug, Default)]
struct Domain {
    families: [FamilyBits; 2],
    ports: BTreeMap<IpAddr, PortSet>,
}

#[derive(Debug, Default)]
struct FamilyBits {
    /// Claimed whole: no port of it may be claimed by others.
    whole: Bits,
    /// Claimed whole or by a port: it may not be claimed whole.
    touched: Bits,
}

impl Taken {
    /// Everything that is stored, whoever has it. A claim that does not parse counts.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut taken = Taken::default();
        snapshot.claims.keys().for_each(|key| taken.enter(key));
        snapshot.strays.values().for_each(|address| taken.enter_stray(address));
        taken
    }

    /// A pass begins: what assignments list counts although its claim is missing.
    pub fn begin(&mut self, index: &Index) {
        index.missing().values().flatten().for_each(|key| self.add(key));
    }

    /// A pass is over: what it added is forgotten. What comes of it the store will tell.
    pub fn end(&mut self) {
        while let Some((key, is_new)) = self.added.pop() {
            if is_new {
                self.free(&key);
            }
        }
        self.picked.clear();
        self.failed.clear();
        self.drained.clear();
        self.moved.clear();
    }

    /// How many nodes of a pool this pass moves although they did not ask.
    pub fn moved(&self, pool: &PoolName) -> usize {
        self.moved.get(pool).copied().unwrap_or_default()
    }

    /// This pass moves a node of a pool although it did not ask.
    pub fn count_move(&mut self, pool: &PoolName) {
        *self.moved.entry(pool.clone()).or_default() += 1;
    }

    /// Takes a key in this pass.
    pub fn add(&mut self, key: &ClaimKey) {
        let is_new = !self.contains(key);
        self.enter(key);
        self.added.push((key.clone(), is_new));
    }

    /// A claim is stored.
    pub fn enter(&mut self, key: &ClaimKey) {
        // Looked up before it is entered: nearly always it is there, and the name need not be cloned.
        if !self.domains.contains_key(&key.domain) {
            self.domains.insert(key.domain.clone(), Domain::default());
        }
        let Some(domain) = self.domains.get_mut(&key.domain) else { return };
        let number = family::number(&key.ip);
        if let Some(bits) = domain.families.get_mut(Family::of(&key.ip).index()) {
            bits.touched.insert(number);
            if key.port.is_none() {
                bits.whole.insert(number);
            }
        }
        if let Some(port) = key.port {
            domain.ports.entry(key.ip).or_default().insert(port);
        }
    }

    /// A claim is stored no more.
    pub fn free(&mut self, key: &ClaimKey) {
        let Some(domain) = self.domains.get_mut(&key.domain) else { return };
        let number = family::number(&key.ip);
        if let Some(port) = key.port
            && let Some(ports) = domain.ports.get_mut(&key.ip)
        {
            ports.remove(port);
            if ports.is_empty() {
                domain.ports.remove(&key.ip);
            }
        }
        let Some(bits) = domain.families.get_mut(Family::of(&key.ip).index()) else { return };
        if key.port.is_none() {
            bits.whole.remove(number);
        }
        if !bits.whole.contains(number) && !domain.ports.contains_key(&key.ip) {
            bits.touched.remove(number);
        }
    }

    /// A key that is no claim of a port stands under an address.
    pub fn enter_stray(&mut self, address: &ClaimKey) {
        let count = self.strays.entry(address.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.enter(&whatever_is_under(address));
        }
    }

    /// It does so no more.
    pub fn free_stray(&mut self, address: &ClaimKey) {
        let Some(count) = self.strays.get_mut(address) else { return };
        *count -= 1;
        if *count == 0 {
            self.strays.remove(address);
            self.free(&whatever_is_under(address));
        }
    }

    /// Takes a key for a node in this pass.
    pub fn pick(&mut self, key: ClaimKey) {
        self.add(&key);
        self.picked.insert(key);
    }

    /// Whether it was given in this pass.
    pub fn is_picked(&self, key: &ClaimKey) -> bool {
        self.picked.contains(key)
    }

    /// Whether a key is taken by anybody.
    pub fn contains(&self, key: &ClaimKey) -> bool {
        match key.port {
            None => self.whole(&key.domain, Family::of(&key.ip)).contains(family::number(&key.ip)),
            Some(port) => self.ports(&key.domain, &key.ip).contains(port),
        }
    }

    /// Whether any port of an address is taken.
    pub fn has_ports(&self, domain: &DomainName, ip: &IpAddr) -> bool {
        !self.ports(domain, ip).is_empty()
    }

    /// Numbers that are claimed whole.
    pub fn whole(&self, domain: &DomainName, family: Family) -> &Bits {
        self.family(domain, family).map_or(&self.nothing, |bits| &bits.whole)
    }

    /// Numbers that are claimed whole or by a port.
    pub fn touched(&self, domain: &DomainName, family: Family) -> &Bits {
        self.family(domain, family).map_or(&self.nothing, |bits| &bits.touched)
    }

    /// Taken ports of an address.
    pub fn ports(&self, domain: &DomainName, ip: &IpAddr) -> &PortSet {
        self.domains.get(domain).and_then(|domain| domain.ports.get(ip)).unwrap_or(&self.no_ports)
    }

    /// Why this search failed before in this pass; `None` = it did not.
    pub fn failed(&self, pool: &PoolName, search: &Search) -> Option<Reason> {
        // The map is empty in a healthy fleet; then no key is built.
        if self.failed.is_empty() {
            return None;
        }
        self.failed.get(&(pool.clone(), search.clone())).copied()
    }

    /// Remembers that a search failed.
    pub fn set_failed(&mut self, pool: &PoolName, search: Search, reason: Reason) {
        self.failed.insert((pool.clone(), search), reason);
    }

    /// Addresses of a pool that are known to have fewer than so many free ports.
    pub fn drained(&self, pool: &PoolName, family: Family, count: usize) -> &Bits {
        self.drained.get(&(pool.clone(), family, count)).unwrap_or(&self.nothing)
    }

    /// Remembers that an address has fewer than so many free ports.
    pub fn set_drained(&mut self, pool: &PoolName, family: Family, count: usize, number: u128) {
        self.drained.entry((pool.clone(), family, count)).or_default().insert(number);
    }

    fn family(&self, domain: &DomainName, family: Family) -> Option<&FamilyBits> {
        self.domains.get(domain)?.families.get(family.index())
    }
}

/// No port has the number 0: it stands for whatever is under the address.
fn whatever_is_under(address: &ClaimKey) -> ClaimKey {
    ClaimKey { port: Some(0), ..address.clone() }
}
