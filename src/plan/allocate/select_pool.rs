//! Which pools may serve an asker, in which order, and what the first of them gives.
//!
//! Those whose selector matches: one that has what the node uses although the store forgot, then one that has a
//! reservation for it (an operator who reserves an address means it), then the one that it is in already, then by
//! priority, then by name. When one cannot serve, the next is tried at once.

use crate::model::assignment::Reason;
use crate::model::names::PoolName;
use crate::model::pool::Sharing;
use crate::plan::pools::PoolView;

use super::asker::{Attempt, Refusal};
use super::choose_address::Pick;

/// So many pools are named in a message.
const NAMED_MAX: usize = 3;

/// A pool that was tried and could not serve.
pub type Tried = (PoolName, Refusal);

impl<'w, 'a> Attempt<'w, 'a> {
    /// The first pool that serves, and what it gives.
    ///
    /// # Errors
    /// What to tell the node that waits.
    pub fn find(&mut self) -> Result<Pick, Refusal> {
        let mut tried = Vec::new();
        for view in self.candidates() {
            match self.pick(view) {
                Ok(pick) => return Ok(pick),
                Err(refusal) => tried.push((view.pool.name.clone(), refusal)),
            }
        }
        Err(self.sum_up(&tried))
    }

    /// Usable pools that match, in the order in which they are tried.
    pub fn candidates(&self) -> Vec<&'w PoolView<'a>> {
        let world = self.world;
        let variables = &self.asker.label.variables;
        let matches = |view: &&PoolView<'_>| view.fault.is_none() && view.pool.selector.matches(variables);
        let mut views: Vec<&PoolView<'a>> = world.pools.by_priority().filter(matches).collect();
        let present = self.asker.old.and_then(|old| old.bound()).map(|bound| &bound.terms.pool);
        // Stable: within these the order stays.
        views.sort_by_cached_key(|view| {
            let reserved = self.reserved(view).any(|ip| self.may_have(view, &ip));
            let held = self.holds_out_of(view);
            let present = present == Some(&view.pool.name);
            (!held, !reserved, !present)
        });
        views
    }

    /// Whether what the asker holds could be out of this pool, by the pool's rules.
    pub fn holds_out_of(&self, view: &PoolView<'_>) -> bool {
        let Some(holding) = self.asker.holding else { return false };
        let families = match view.pool.sharing {
            Sharing::Host => 1,
            _ => view.families().count(),
        };
        holding.addresses.len() == families && holding.addresses.iter().all(|ip| self.may_have(view, ip))
    }

    /// Whether an answer depends on the host's own address: some pool that matches is a `host` pool.
    pub fn depends_on_host(&self) -> bool {
        self.candidates().iter().any(|view| view.pool.sharing == Sharing::Host)
    }

    fn sum_up(&self, tried: &[Tried]) -> Refusal {
        if tried.is_empty() {
            return self.no_pool();
        }
        // What is wanted is outside of most pools: what the pool says that has it counts.
        let telling = |(_, refusal): &&Tried| !matches!(refusal.reason, Reason::AddressOutside | Reason::PortOutside);
        let first = tried.iter().find(telling).or(tried.first());
        let reason = first.map_or(Reason::PoolFull, |(_, refusal)| refusal.reason);
        let mut said: Vec<&str> = tried.iter().filter(telling).map(|(_, refusal)| refusal.message.as_str()).collect();
        if said.is_empty() {
            said = tried.iter().map(|(_, refusal)| refusal.message.as_str()).collect();
        }
        let more = if said.len() > NAMED_MAX { "; and more pools" } else { "" };
        said.truncate(NAMED_MAX);
        Refusal::new(reason, format!("{}{more}", said.join("; ")))
    }

    fn no_pool(&self) -> Refusal {
        let variables = &self.asker.label.variables;
        let invalid = self.world.pools.iter().find(|view| view.pool.selector.matches(variables));
        if let Some(PoolView { pool, fault: Some(fault), .. }) = invalid {
            return Refusal::new(Reason::PoolInvalid, format!("pool {} is not usable: {fault}", pool.name));
        }
        // Whether an unreadable pool would match cannot be known: say what is wrong rather than that nothing matches.
        if let Some(name) = self.world.pools.unreadable().first() {
            return Refusal::new(Reason::PoolInvalid, format!("pool {name} cannot be read, and no other matches"));
        }
        if self.world.pools.iter().next().is_none() {
            return Refusal::new(Reason::NoPoolMatches, "there is no pool yet");
        }
        Refusal::new(Reason::NoPoolMatches, "no pool's selector matches the label")
    }
}
