//! Whether what a node has still serves what it asks. What it has is worth more than what the rules would give today: an
//! address moves only when its node asks for something else, or when its pool says `on_mismatch: move`.

use std::net::IpAddr;

use crate::model::assignment::{Answer, Bound};
use crate::model::names::PoolName;
use crate::model::pool::{OnMismatch, Sharing};
use crate::plan::pools::PoolView;

use super::asker::{Attempt, Standing};
use super::choose_address::{Pick, Why};
use super::choose_ports::{Place, PortRule};

impl<'w, 'a> Attempt<'w, 'a> {
    /// The pool that a bound answer came from, if it still is that pool: same domain, same sharing, usable.
    pub fn pool_of(&self, bound: &Bound) -> Option<&'w PoolView<'a>> {
        let world = self.world;
        let view = world.pools.get(&bound.terms.pool)?;
        let same = view.pool.domain == bound.terms.domain && view.pool.sharing == bound.terms.sharing;
        (same && view.fault.is_none()).then_some(view)
    }

    /// Whether it must be replaced although nobody asked: its pool says `move`, and by its present rules would not give
    /// it to this node.
    pub fn must_move(&self, bound: &Bound) -> bool {
        let Some(view) = self.pool_of(bound) else { return false };
        view.pool.on_mismatch == OnMismatch::Move && !self.fits(view, bound)
    }

    /// Whether its pool may move it now: of the nodes that were moved at most `move_at_once` have not acknowledged. A node
    /// that falls silent before it acknowledges keeps its place until its hold is over, so that a mistake which costs nodes
    /// their connection stops there. One that is under way may be moved again: that may be what mends it.
    pub fn may_move_now(&self, bound: &Bound) -> bool {
        let pool = &bound.terms.pool;
        let Some(view) = self.pool_of(bound) else { return false };
        let index = self.world.index;
        let under_way = index.moving(pool) + self.taken.moved(pool);
        self.is_moving(pool) || under_way < view.pool.move_at_once.of(index.users(pool))
    }

    /// Whether it has something of a pool that is leaving.
    pub fn is_moving(&self, pool: &PoolName) -> bool {
        self.asker.old.is_some_and(|old| old.leaving.iter().any(|leaving| leaving.terms.pool == *pool))
    }

    fn fits(&self, view: &PoolView<'_>, bound: &Bound) -> bool {
        let asker = (self.asker.node, Some(&self.asker.label.variables));
        self.world.pools.mismatch(view, asker, bound).is_none() && self.better_reserved(view, bound).is_none()
    }

    /// An address that is reserved for the node, free, and not the one it has.
    fn better_reserved(&self, view: &PoolView<'_>, bound: &Bound) -> Option<IpAddr> {
        if view.pool.sharing != Sharing::Exclusive {
            return None;
        }
        self.reserved(view).find(|ip| {
            let pinned = self.asker.wanted(ip.is_ipv4()).is_some_and(|wanted| wanted != *ip);
            !pinned && !bound.addresses.contains(ip) && self.may_have(view, ip) && self.whole(view, ip) != Standing::Taken
        })
    }

    /// The same addresses, and ports for what the label asks now. `None` when they do not serve it.
    pub fn keep(&self, bound: &Bound) -> Option<Pick> {
        let label = self.asker.label;
        if label.want.addresses.iter().any(|ip| !bound.addresses.contains(ip)) {
            return None;
        }
        if bound.terms.sharing == Sharing::Host && bound.addresses != [label.temporary.ip()] {
            return None;
        }
        if !bound.terms.sharing.claims_address() && label.ports.is_empty() {
            return None;
        }
        let (ports, terms) = match self.pool_of(bound) {
            Some(view) => {
                if self.better_reserved(view, bound).is_some() {
                    return None;
                }
                let place = Place { view, addresses: &bound.addresses, rule: PortRule::PoolOrOwn };
                (self.choose_ports(place).ok()?, view.terms())
            }
            None => (self.own_ports(bound)?, bound.terms.clone()),
        };
        let why = vec![Why::Kept; bound.addresses.len()];
        Some(Pick { terms, addresses: bound.addresses.clone(), ports, why })
    }

    /// Whether what the asker holds although the store forgot is what the store says.
    pub fn holds_the_same(&self) -> bool {
        let (Some(holding), Some(old)) = (self.asker.holding, self.asker.old) else { return false };
        match &old.answer {
            Answer::Bound(bound) => {
                let mut held = holding.addresses.clone();
                held.sort();
                let mut have = bound.addresses.clone();
                have.sort();
                held == have && holding.ports == bound.ports && old.leaving.is_empty()
            }
            Answer::Waiting(_) => false,
        }
    }
}
