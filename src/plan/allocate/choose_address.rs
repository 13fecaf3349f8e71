//! Addresses out of one pool, for each of the three kinds of sharing. All families and all ports, or nothing.
//!
//! For each family: the one that is wanted or none; else what the node uses although the store forgot; else the
//! reservation; else what the node has; else what cools for it; else the one its id hashes to; else the next free one.

use std::net::IpAddr;

use crate::model::assignment::{Reason, Terms};
use crate::model::pool::Sharing;
use crate::model::ports::Ports;
use crate::plan::pools::PoolView;
use crate::plan::space::family::{self, Family};
use crate::plan::space::ranges::Ranges;
use crate::plan::taken::Search;

use super::asker::{Attempt, Refusal, Standing, address_key};
use super::choose_ports::{Place, PortRule};

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// Where, and on what terms.
    pub terms: Terms,
    /// One of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// By name.
    pub ports: Ports,
    /// Why each of the addresses.
    pub why: Vec<Why>,
}

/// Why a certain address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is reserved for the node.
    Reserved,
    /// The node has it already.
    Kept,
    /// The node wants it and nothing else.
    Wanted,
    /// The node uses it although the store forgot.
    Held,
    /// It cools for the node.
    Cooling,
    /// The node's id hashes to it.
    Hash,
    /// The next free one after that.
    Next,
    /// It is the host's own.
    Host,
}

impl Why {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Reserved => "it is reserved for the node",
            Why::Kept => "the node has it already",
            Why::Wanted => "the node wants it",
            Why::Held => "the node uses it although the store forgot",
            Why::Cooling => "the node had it and it still cools",
            Why::Hash => "the node's id hashes to it",
            Why::Next => "the next free one after the one the node's id hashes to",
            Why::Host => "it is the host's own",
        }
    }
}

impl Attempt<'_, '_> {
    /// Everything out of one pool, by the pool's present rules.
    ///
    /// # Errors
    /// Why this pool cannot serve the asker.
    pub fn pick(&mut self, view: &PoolView<'_>) -> Result<Pick, Refusal> {
        let families: Vec<bool> = view.families().map(|family| family == Family::V4).collect();
        let missing = |ip: &&IpAddr| view.pool.sharing != Sharing::Host && !families.contains(&ip.is_ipv4());
        if let Some(ip) = self.asker.label.want.addresses.iter().find(missing) {
            return Err(outside(view, ip));
        }
        if !view.pool.sharing.claims_address() && self.asker.label.ports.is_empty() {
            let message = format!("pool {} is {}: it serves only labels that ask for a port", view.pool.name, view.pool.sharing);
            return Err(Refusal::new(Reason::NoPorts, message));
        }
        // No address can help with these, and a shared pool may have more addresses than can ever be looked at.
        self.check_port_range(view)?;
        match view.pool.sharing {
            Sharing::Exclusive | Sharing::Shared if families.is_empty() => {
                Err(Refusal::new(Reason::PoolInvalid, format!("pool {} lists no addresses", view.pool.name)))
            }
            Sharing::Exclusive => self.pick_exclusive(view),
            Sharing::Shared => self.pick_shared(view),
            Sharing::Host => self.pick_host(view),
        }
    }

    fn pick_exclusive(&mut self, view: &PoolView<'_>) -> Result<Pick, Refusal> {
        let mut found = Vec::new();
        for family in view.families() {
            found.push(self.exclusive_address(view, family)?);
        }
        let addresses: Vec<IpAddr> = found.iter().map(|(ip, _)| *ip).collect();
        let ports = self.choose_ports(Place { view, addresses: &addresses, rule: PortRule::Pool })?;
        Ok(pick(view, found, ports))
    }

    fn exclusive_address(&mut self, view: &PoolView<'_>, family: Family) -> Result<(IpAddr, Why), Refusal> {
        if let Some(ip) = self.asker.wanted(family == Family::V4) {
            self.check_wanted_address(view, &ip)?;
            if self.whole(view, &ip) == Standing::Taken {
                return Err(taken(view, &ip));
            }
            return Ok((ip, Why::Wanted));
        }
        let preferred = self.preferred_addresses(view, family);
        let free = |(ip, _): &&(IpAddr, Why)| {
            let standing = self.whole(view, ip);
            standing == Standing::Own || (standing != Standing::Taken && self.has_room(view, ip))
        };
        let free = |found: &&(IpAddr, Why)| self.may_have(view, &found.0) && free(found);
        if let Some(found) = preferred.iter().find(free) {
            return Ok(*found);
        }
        let search = Search::Address(family);
        if self.taken.failed(&view.pool.name, &search).is_some() {
            return Err(full(view, family));
        }
        let Some(open) = view.space(family).map(|space| &space.open) else { return Err(full(view, family)) };
        let start = self.start(open);
        let found = start.and_then(|start| self.next_address(view, family, start));
        match found {
            Some(ip) if start == Some(family::number(&ip)) => Ok((ip, Why::Hash)),
            Some(ip) => Ok((ip, Why::Next)),
            None => {
                // What only this node's wishes and others' refusals made fail is not true for everybody.
                if start.is_none_or(|start| self.next_free_address(view, family, start).is_none()) {
                    self.taken.set_failed(&view.pool.name, search, Reason::PoolFull);
                    return Err(full(view, family));
                }
                Err(no_room(view))
            }
        }
    }

    /// The next free address from a number on, once round, on which refusals leave the asker his ports.
    fn next_address(&self, view: &PoolView<'_>, family: Family, start: u128) -> Option<IpAddr> {
        let first = self.next_free_address(view, family, start)?;
        let mut ip = first;
        while !self.has_room(view, &ip) {
            ip = self.next_free_address(view, family, family::number(&ip).checked_add(1).unwrap_or(0))?;
            if ip == first {
                return None;
            }
        }
        Some(ip)
    }

    fn next_free_address(&self, view: &PoolView<'_>, family: Family, start: u128) -> Option<IpAddr> {
        let taken = self.taken.touched(&view.pool.domain, family);
        let open = &view.space(family)?.open;
        next_round(open, start, |from| taken.next_clear(from)).map(|number| family.address(number))
    }

    /// Whether live nodes' refusals on a free address leave the asker his ports there. A former owner may still say that
    /// his host uses the one port there is.
    fn has_room(&self, view: &PoolView<'_>, ip: &IpAddr) -> bool {
        let label = self.asker.label;
        let count = label.ports.len();
        !self.world.has_refusals(ip)
            || (self.free_ports_for_all(view, ip, count) >= count
                && !label.want.ports.values().any(|port| self.world.is_refused(ip, *port)))
    }

    fn pick_host(&mut self, view: &PoolView<'_>) -> Result<Pick, Refusal> {
        let ip = self.asker.label.temporary.ip();
        if let Some(other) = self.asker.label.want.addresses.iter().find(|wanted| **wanted != ip) {
            let message = format!("pool {} gives each host its own address: {ip}, not {other}", view.pool.name);
            return Err(Refusal::new(Reason::AddressOutside, message));
        }
        if !view.gives(&ip) {
            let message = format!("the host's own address {ip} is not one that pool {} gives", view.pool.name);
            return Err(Refusal::new(Reason::AddressOutside, message));
        }
        self.check_wanted_address(view, &ip)?;
        if self.is_claimed_whole(view, &ip) {
            return Err(taken(view, &ip));
        }
        let ports = self.choose_ports(Place { view, addresses: &[ip], rule: PortRule::Pool })?;
        Ok(pick(view, vec![(ip, Why::Host)], ports))
    }

    /// The rules of a pool about an address that somebody names.
    pub fn check_wanted_address(&self, view: &PoolView<'_>, ip: &IpAddr) -> Result<(), Refusal> {
        if !view.gives(ip) {
            return Err(outside(view, ip));
        }
        if self.is_reserved_for_another(&view.pool.domain, ip) {
            let message = format!("address {ip} of pool {} is reserved for another node", view.pool.name);
            return Err(Refusal::new(Reason::AddressReserved, message));
        }
        Ok(())
    }

    /// Whether an address is claimed whole by anybody.
    pub fn is_claimed_whole(&self, view: &PoolView<'_>, ip: &IpAddr) -> bool {
        self.taken.whole(&view.pool.domain, Family::of(ip)).contains(family::number(ip))
    }

    /// Addresses that the asker would like before any other, best first. Whether it may have them is not looked at.
    pub fn preferred_addresses(&self, view: &PoolView<'_>, family: Family) -> Vec<(IpAddr, Why)> {
        let asker = self.asker;
        let domain = &view.pool.domain;
        let bound = asker.old.and_then(|old| old.bound()).filter(|bound| bound.terms.domain == *domain);
        let leaving = asker.old.into_iter().flat_map(|old| old.leaving.iter().rev());
        let leaving = leaving.filter(|leaving| leaving.terms.domain == *domain).flat_map(|leaving| &leaving.addresses);
        let held = asker.holding.into_iter().flat_map(|holding| &holding.addresses);
        let cooling = self.world.index.cooling_of(asker.node).filter(|key| key.domain == *domain).map(|key| &key.ip);
        // What is in use although the store forgot comes before anything else: after a restore no child is stopped.
        let mut list: Vec<(IpAddr, Why)> = held.map(|ip| (*ip, Why::Held)).collect();
        list.extend(self.reserved(view).map(|ip| (ip, Why::Reserved)));
        list.extend(bound.into_iter().flat_map(|bound| &bound.addresses).map(|ip| (*ip, Why::Kept)));
        list.extend(leaving.map(|ip| (*ip, Why::Kept)));
        list.extend(cooling.map(|ip| (*ip, Why::Cooling)));
        list.retain(|(ip, _)| Family::of(ip) == family);
        list
    }

    /// Where the search through some numbers starts.
    pub fn start(&self, open: &Ranges) -> Option<u128> {
        open.nth(self.asker.hash("address").checked_rem(open.count())?)
    }
}

/// The first number of `open` at or after `from` for which `clear` (the next clear number at or after one) says yes.
pub fn next_in(open: &Ranges, from: u128, clear: impl Fn(u128) -> Option<u128>) -> Option<u128> {
    let mut number = open.at_or_after(from)?;
    loop {
        let free = clear(number)?;
        let next = open.at_or_after(free)?;
        if next == free {
            return Some(free);
        }
        number = next;
    }
}

/// The same, going on from the lowest number after the highest.
fn next_round(open: &Ranges, start: u128, clear: impl Fn(u128) -> Option<u128>) -> Option<u128> {
    next_in(open, start, &clear).or_else(|| next_in(open, open.first()?, &clear))
}

/// What was found, on the pool's terms.
pub fn pick(view: &PoolView<'_>, found: Vec<(IpAddr, Why)>, ports: Ports) -> Pick {
    let (addresses, why) = found.into_iter().unzip();
    Pick { terms: view.terms(), addresses, ports, why }
}

/// A pool of two families may have plenty of the other one.
fn full(view: &PoolView<'_>, family: Family) -> Refusal {
    let pool = &view.pool.name;
    let message = match (view.families().count(), family) {
        (..2, _) => format!("pool {pool} is full"),
        (_, Family::V4) => format!("pool {pool} has no free IPv4 address"),
        (_, Family::V6) => format!("pool {pool} has no free IPv6 address"),
    };
    Refusal::new(Reason::PoolFull, message)
}

fn no_room(view: &PoolView<'_>) -> Refusal {
    let message =
        format!("no free address of pool {} has its ports: something else uses them there, as nodes say", view.pool.name);
    Refusal::new(Reason::PortsFull, message)
}

fn outside(view: &PoolView<'_>, ip: &IpAddr) -> Refusal {
    Refusal::new(Reason::AddressOutside, format!("address {ip} is not one that pool {} gives", view.pool.name))
}

/// The refusal of an address that is somebody else's.
pub fn taken(view: &PoolView<'_>, ip: &IpAddr) -> Refusal {
    let refusal = Refusal::new(Reason::AddressTaken, format!("address {ip} of pool {} is taken", view.pool.name));
    refusal.because_of(vec![address_key(&view.pool.domain, ip)])
}
