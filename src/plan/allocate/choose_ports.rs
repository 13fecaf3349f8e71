//! Ports on given addresses: one number for each name, free on every one of the addresses, no two alike.
//!
//! Certain ones that are wanted first, then what the node has under that name, then numbers that it gave up or that cool
//! for it, then the one its id and the name hash to, then the next free one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::assignment::{Assignment, Bound, Reason};
use crate::model::names::PortName;
use crate::model::pool::Pool;
use crate::model::ports::Ports;
use crate::plan::pools::PoolView;

use super::asker::{Attempt, Refusal, Standing, port_key};

/// Which numbers may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRule {
    /// Those of the pool's range.
    Pool,
    /// Those of the pool's range, and what the node has already although the range was changed.
    PoolOrOwn,
}

/// Addresses on which ports are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The pool.
    pub view: &'p PoolView<'p>,
    /// Every address must have the port free.
    pub addresses: &'p [IpAddr],
    /// Which numbers may be used.
    pub rule: PortRule,
}

impl Attempt<'_, '_> {
    /// A number for every name that the label asks for.
    ///
    /// # Errors
    /// `port-taken` when a wanted one is not to be had, `ports-full` when none is left.
    pub fn choose_ports(&self, place: Place<'_>) -> Result<Ports, Refusal> {
        let label = self.asker.label;
        let mut chosen = Ports::default();
        let mut numbers: BTreeSet<u16> = BTreeSet::new();
        for (name, port) in label.want.ports.iter().filter(|(name, _)| label.ports.contains(name)) {
            self.check_wanted(place, name, *port)?;
            numbers.insert(*port);
            chosen.insert(name.clone(), *port);
        }
        let preferred = self.asker.preferred_ports();
        for name in &label.ports {
            if chosen.contains_key(name) {
                continue;
            }
            let liked = preferred.get(name).into_iter().flatten();
            if let Some(port) = liked.copied().find(|port| !numbers.contains(port) && self.is_usable(place, *port)) {
                numbers.insert(port);
                chosen.insert(name.clone(), port);
            }
        }
        let spare = self.spare_ports(place);
        for name in &label.ports {
            if chosen.contains_key(name) {
                continue;
            }
            let port = spare
                .iter()
                .copied()
                .find(|port| !numbers.contains(port) && self.is_usable(place, *port))
                .or_else(|| self.next_free(place, name, &numbers))
                .ok_or_else(|| self.ports_full(place))?;
            numbers.insert(port);
            chosen.insert(name.clone(), port);
        }
        Ok(chosen)
    }

    /// Ports for what the label asks out of those that the node has, because its pool is gone and gives nothing new: those
    /// under the same names, then numbers of names that it no longer asks for. `None` when they are not enough.
    pub fn own_ports(&self, bound: &Bound) -> Option<Ports> {
        let label = self.asker.label;
        let is_refused = |port: u16| self.asker.refuses(bound.terms.sharing, &bound.addresses, port);
        let mut spare = bound.ports.iter().filter(|(name, port)| !label.ports.contains(name) && !is_refused(**port));
        let mut ports = Ports::default();
        for name in &label.ports {
            let same = bound.ports.get(name).filter(|port| !is_refused(**port));
            let port = same.or_else(|| spare.next().map(|(_, port)| port))?;
            if label.want.ports.get(name).is_some_and(|wanted| wanted != port) {
                return None;
            }
            ports.insert(name.clone(), *port);
        }
        Some(ports)
    }

    /// How many ports of a range anybody could get on an address, counted up to `enough`. Without the asker's own
    /// rights and refusals, so that the answer holds for everybody in this pass.
    pub fn free_ports_for_all(&self, view: &PoolView<'_>, ip: &IpAddr, enough: usize) -> usize {
        let range = view.pool.ports;
        let ports = self.taken.ports(&view.pool.domain, ip);
        let mut count = 0;
        let mut next = Some(range.first);
        while count < enough {
            let Some(port) = next.and_then(|port| ports.next_clear(port)).filter(|port| *port <= range.last) else {
                break;
            };
            if !self.world.is_refused(ip, port) {
                count += 1;
            }
            next = port.checked_add(1);
        }
        count
    }

    /// The rules of a pool's port range, which are the same on every address.
    ///
    /// # Errors
    /// `port-outside` when a wanted port is not in it, `ports-full` when it is smaller than what is asked for.
    pub fn check_port_range(&self, view: &PoolView<'_>) -> Result<(), Refusal> {
        let (label, pool) = (self.asker.label, view.pool);
        if let Some((name, port)) = label.want.ports.iter().find(|(_, port)| !pool.ports.contains(**port)) {
            return Err(Refusal::new(Reason::PortOutside, outside_of_range(name, *port, pool)));
        }
        if label.ports.len() > usize::try_from(pool.ports.count()).unwrap_or(usize::MAX) {
            let message = format!("{} ports are asked for, pool {} has {}", label.ports.len(), pool.name, pool.ports);
            return Err(Refusal::new(Reason::PortsFull, message));
        }
        Ok(())
    }

    fn check_wanted(&self, place: Place<'_>, name: &PortName, port: u16) -> Result<(), Refusal> {
        if self.is_usable(place, port) {
            return Ok(());
        }
        let pool = place.view.pool;
        if !pool.ports.contains(port) {
            return Err(Refusal::new(Reason::PortOutside, outside_of_range(name, port, pool)));
        }
        let message = if self.asker.refuses(pool.sharing, place.addresses, port) {
            format!("port {port} wanted for {name} is used by something else on its host")
        } else if self.is_refused(place, port) {
            format!("port {port} wanted for {name} is used by something else there, as another node says that had the address")
        } else {
            format!("port {port} wanted for {name} is taken in pool {}", pool.name)
        };
        let keys = place.addresses.iter().map(|ip| port_key(&pool.domain, ip, port));
        let taken = keys.filter(|key| self.standing(place.view, key) == Standing::Taken).collect();
        Err(Refusal::new(Reason::PortTaken, message).because_of(taken))
    }

    /// Whether the asker's host uses a port for something else, or any live node says so of one of the addresses.
    fn is_refused(&self, place: Place<'_>, port: u16) -> bool {
        self.asker.refuses(place.view.pool.sharing, place.addresses, port)
            || place.addresses.iter().any(|ip| self.world.is_refused(ip, port))
    }

    fn is_usable(&self, place: Place<'_>, port: u16) -> bool {
        let standing = |ip| self.standing(place.view, &port_key(&place.view.pool.domain, ip, port));
        let mut standings = place.addresses.iter().map(standing);
        // What another says of a port that this node has does not take it away: it may be this node that he met.
        let is_own = standings.clone().all(|standing| standing == Standing::Own);
        let refused = match is_own {
            true => self.asker.refuses(place.view.pool.sharing, place.addresses, port),
            false => self.is_refused(place, port),
        };
        if refused {
            return false;
        }
        let in_range = place.view.pool.ports.contains(port);
        match place.rule {
            PortRule::Pool => in_range && standings.all(|standing| standing != Standing::Taken),
            PortRule::PoolOrOwn if in_range => standings.all(|standing| standing != Standing::Taken),
            PortRule::PoolOrOwn => is_own,
        }
    }

    fn ports_full(&self, place: Place<'_>) -> Refusal {
        let pool = place.view.pool;
        let on = match place.addresses {
            [ip] => format!(" on {ip}"),
            _ => String::new(),
        };
        let own = self.asker.refused.iter().any(|refused| pool.ports.contains(refused.port));
        let refused = own || place.addresses.iter().any(|ip| self.world.has_refusals(ip));
        let used = if refused { ": what nobody has is used by something else on its host" } else { "" };
        Refusal::new(Reason::PortsFull, format!("no port of {} is left{on} in pool {}{used}", pool.ports, pool.name))
    }

    /// Numbers that only this node may use: those of names that it no longer asks for, then those that cool for it.
    fn spare_ports(&self, place: Place<'_>) -> Vec<u16> {
        let label = self.asker.label;
        let bound = self.asker.old.and_then(Assignment::bound);
        let dropped = bound.into_iter().flat_map(|bound| &bound.ports);
        let dropped = dropped.filter(|(name, _)| !label.ports.contains(name)).map(|(_, port)| *port);
        let cooling = self.world.index.cooling_of(self.asker.node);
        let cooling = cooling.filter(|key| place.addresses.first() == Some(&key.ip)).filter_map(|key| key.port);
        dropped.chain(cooling).collect()
    }

    /// The next free number from where the hash points, round the range.
    fn next_free(&self, place: Place<'_>, name: &PortName, numbers: &BTreeSet<u16>) -> Option<u16> {
        let range = place.view.pool.ports;
        // The remainder of a division by at most 65,536 fits.
        let offset = (self.asker.hash(name.as_str()) % u128::from(range.count())) as u16;
        let start = range.first + offset;
        self.next_free_in(place, numbers, start, range.last).or_else(|| self.next_free_in(place, numbers, range.first, start))
    }

    fn next_free_in(&self, place: Place<'_>, numbers: &BTreeSet<u16>, first: u16, last: u16) -> Option<u16> {
        let domain = &place.view.pool.domain;
        let mut port = first;
        loop {
            let from = port;
            for ip in place.addresses {
                port = self.taken.ports(domain, ip).next_clear(port)?;
            }
            if port > last {
                return None;
            }
            if port == from {
                if !numbers.contains(&port) && !self.is_refused(place, port) {
                    return Some(port);
                }
                port = port.checked_add(1)?;
            }
        }
    }
}

fn outside_of_range(name: &PortName, port: u16, pool: &Pool) -> String {
    format!("port {port} wanted for {name} is outside of {} of pool {}", pool.ports, pool.name)
}
