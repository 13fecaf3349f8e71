//! An address out of a pool whose nodes share addresses: the first, from where the node's id hashes to, on which all its
//! ports are free.

use std::net::IpAddr;

use crate::model::assignment::Reason;
use crate::plan::pools::PoolView;
use crate::plan::space::bits::Bits;
use crate::plan::space::family::Family;
use crate::plan::taken::Search;

use super::asker::{Attempt, Refusal};
use super::choose_address::{Pick, Why, next_in, pick, taken};
use super::choose_ports::{Place, PortRule};

/// Where the search for a shared address of a family is.
#[derive(Debug)]
struct Cursor {
    family: Family,
    /// Best last.
    preferred: Vec<(IpAddr, Why)>,
    start: Option<u128>,
    next: Option<u128>,
    wrapped: bool,
}

impl Attempt<'_, '_> {
    /// One address of each family and all ports.
    ///
    /// # Errors
    /// `ports-full` when no address has enough free ports, `port-taken` when one has, but not the wanted ones, or what is wrong with
    /// what is wanted.
    pub fn pick_shared(&mut self, view: &PoolView<'_>) -> Result<Pick, Refusal> {
        let mut cursors = Vec::new();
        for family in view.families() {
            cursors.push(self.cursor(view, family)?);
        }
        let search = self.ports_search();
        // A search that failed for everybody may still find what only this node may have.
        let failed = self.taken.failed(&view.pool.name, &search);
        let may_scan = failed.is_none();
        let mut refusal = None;
        let mut found: Vec<(IpAddr, Why)> = Vec::new();
        for cursor in &mut cursors {
            match self.advance(view, cursor, may_scan) {
                Some(next) => found.push(next),
                None => return Err(self.no_address_left(view, search, failed, None)),
            }
        }
        // Two families that have free ports each but none in common are tried in so many combinations and no more.
        let mut combinations = 1024;
        loop {
            let addresses: Vec<IpAddr> = found.iter().map(|(ip, _)| *ip).collect();
            match self.choose_ports(Place { view, addresses: &addresses, rule: PortRule::Pool }) {
                Ok(ports) => return Ok(pick(view, found, ports)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
            let at = self.culprit(view, &addresses);
            combinations -= usize::from(at.is_none());
            let at = at.unwrap_or(addresses.len().saturating_sub(1));
            let next = cursors.get_mut(at).and_then(|cursor| self.advance(view, cursor, may_scan));
            match (next, found.get_mut(at)) {
                (Some(next), Some(place)) if combinations > 0 => *place = next,
                _ => return Err(self.no_address_left(view, search, failed, refusal)),
            }
        }
    }

    fn ports_search(&self) -> Search {
        let label = self.asker.label;
        let mut wanted: Vec<u16> = label.want.ports.values().copied().collect();
        wanted.sort_unstable();
        Search::Ports(label.ports.len(), wanted)
    }

    /// `failed`: why the search failed for somebody before, so that this one did not scan. `why`: what the first address said.
    fn no_address_left(&mut self, view: &PoolView<'_>, search: Search, failed: Option<Reason>, why: Option<Refusal>) -> Refusal {
        let label = self.asker.label;
        let reason = match (&why, failed) {
            (Some(why), None) if why.reason == Reason::PortTaken => Reason::PortTaken,
            (_, failed) => failed.unwrap_or(Reason::PortsFull),
        };
        // Only what is true for everybody is remembered: not what this host's own refusals or wishes made fail.
        let is_for_all = self.asker.refused.is_empty() && label.want.addresses.is_empty();
        if failed.is_none() && is_for_all {
            self.taken.set_failed(&view.pool.name, search, reason);
        }
        match why {
            Some(why) if !is_for_all => why,
            // Not what the first address said: whoever comes next does not look at it, and must be told the same.
            _ if reason == Reason::PortTaken => Refusal::new(Reason::PortTaken, self.wanted_in_words(view)),
            _ => {
                let message = format!("no {} on any address of pool {}", self.ports_in_words(), view.pool.name);
                Refusal::new(Reason::PortsFull, message)
            }
        }
    }

    fn wanted_in_words(&self, view: &PoolView<'_>) -> String {
        let wanted: Vec<String> =
            self.asker.label.want.ports.iter().map(|(name, port)| format!("{port} wanted for {name}")).collect();
        let pool = &view.pool.name;
        match wanted.as_slice() {
            [one] => format!("port {one} is taken on every address of pool {pool}"),
            many => format!("no address of pool {pool} has all of its wanted ports free: {}", many.join(", ")),
        }
    }

    fn ports_in_words(&self) -> String {
        match self.asker.label.ports.len() {
            1 => "port is left".into(),
            count => format!("{count} ports are left"),
        }
    }

    /// Which of some addresses cannot serve the asker even alone.
    fn culprit(&self, view: &PoolView<'_>, addresses: &[IpAddr]) -> Option<usize> {
        let alone = |ip| Place { view, addresses: std::slice::from_ref(ip), rule: PortRule::Pool };
        addresses.iter().position(|ip| self.choose_ports(alone(ip)).is_err())
    }

    /// Begins the search for a shared address of a family.
    fn cursor(&self, view: &PoolView<'_>, family: Family) -> Result<Cursor, Refusal> {
        let preferred = match self.asker.wanted(family == Family::V4) {
            Some(ip) => {
                self.check_wanted_address(view, &ip)?;
                if self.is_claimed_whole(view, &ip) {
                    return Err(taken(view, &ip));
                }
                return Ok(Cursor { family, preferred: vec![(ip, Why::Wanted)], start: None, next: None, wrapped: true });
            }
            None => self.preferred_addresses(view, family),
        };
        let usable = |(ip, _): &(IpAddr, Why)| self.may_have(view, ip) && !self.is_claimed_whole(view, ip);
        let preferred = preferred.into_iter().filter(usable).rev().collect();
        let start = view.space(family).and_then(|space| self.start(&space.open));
        Ok(Cursor { family, preferred, start, next: start, wrapped: false })
    }

    /// The next address to look at: what is preferred, then once round the pool. Addresses without enough free ports are
    /// passed over in one step once they are known.
    fn advance(&mut self, view: &PoolView<'_>, cursor: &mut Cursor, may_scan: bool) -> Option<(IpAddr, Why)> {
        if let Some(preferred) = cursor.preferred.pop() {
            return Some(preferred);
        }
        if !may_scan {
            return None;
        }
        let space = view.space(cursor.family)?;
        let start = cursor.start?;
        let count = self.asker.label.ports.len();
        loop {
            let whole = self.taken.whole(&view.pool.domain, cursor.family);
            let drained = self.taken.drained(&view.pool.name, cursor.family, count);
            let clear = |from| both_clear(whole, drained, from);
            let found = match cursor.next.and_then(|from| next_in(&space.open, from, clear)) {
                Some(found) => found,
                None if cursor.wrapped => return None,
                None => {
                    cursor.wrapped = true;
                    cursor.next = space.open.first();
                    continue;
                }
            };
            if cursor.wrapped && found >= start {
                return None;
            }
            cursor.next = found.checked_add(1);
            let ip = cursor.family.address(found);
            if self.free_ports_for_all(view, &ip, count) < count {
                self.taken.set_drained(&view.pool.name, cursor.family, count, found);
                continue;
            }
            return Some((ip, if found == start { Why::Hash } else { Why::Next }));
        }
    }
}

fn both_clear(a: &Bits, b: &Bits, from: u128) -> Option<u128> {
    let mut number = from;
    loop {
        let first = a.next_clear(number)?;
        let second = b.next_clear(first)?;
        if first == second {
            return Some(first);
        }
        number = second;
    }
}
