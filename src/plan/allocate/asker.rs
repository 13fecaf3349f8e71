//! Who asks, and how a key stands to him: free, his own, cooling for him, or somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::model::assignment::{Assignment, Reason};
use crate::model::claim::ClaimKey;
use crate::model::label::{Holding, Label};
use crate::model::names::{DomainName, NodeId, PortName, Revision};
use crate::model::pool::{OnIsolation, Sharing};
use crate::model::status::Refused;
use crate::plan::pools::PoolView;
use crate::plan::snapshot::{NodeRecord, Snapshot};
use crate::plan::taken::Taken;
use crate::plan::world::World;

/// A live node with a readable label.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Its id.
    pub node: &'a NodeId,
    /// All that is stored about it.
    pub record: &'a NodeRecord,
    /// What it asks.
    pub label: &'a Label,
    /// Its present answer.
    pub old: Option<&'a Assignment>,
    /// The claims of that, `leaving` included.
    pub own: BTreeSet<ClaimKey>,
    /// Ports that its own host uses for something else.
    pub refused: &'a [Refused],
    /// What it uses although the store forgot it, where that counts.
    pub holding: Option<&'a Holding>,
}

/// Why nothing is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// A sentence without moving counts, and without the name of a holder: holders change, and each change would be a write for
    /// every node that waits.
    pub message: String,
    /// What others have that the asker wanted. For [`explain`](crate::plan::explain), which names them.
    pub in_the_way: Vec<ClaimKey>,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), in_the_way: Vec::new() }
    }

    /// The same, with what others have.
    pub fn because_of(self, in_the_way: Vec<ClaimKey>) -> Self {
        Self { in_the_way, ..self }
    }
}

/// How a key stands to an asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has it.
    Free,
    /// It is claimed by his own assignment.
    Own,
    /// It cools, but he may have it; the cooling claim's mod_revision.
    Cooling(Revision),
    /// Somebody else's, or it cools for somebody else.
    Taken,
}

/// One try to find something for one asker.
#[derive(Debug)]
pub struct Attempt<'w, 'a> {
    /// What is known.
    pub world: &'w World<'a>,
    /// What is taken.
    pub taken: &'w mut Taken,
    /// Who asks.
    pub asker: &'w Asker<'a>,
}

impl<'a> Asker<'a> {
    /// A live node that can be answered; `None` for one without a readable label, or with an assignment that cannot be
    /// read (which is left alone).
    pub fn new(snapshot: &Snapshot, node: &'a NodeId, record: &'a NodeRecord) -> Option<Self> {
        let label = record.label.as_ref()?.ok()?;
        let old = match &record.assignment {
            Some(stored) => Some(stored.ok()?),
            None => None,
        };
        let refused = record.status.as_ref().and_then(|status| status.ok()).map(|status| &status.refused);
        Some(Asker {
            node,
            record,
            label,
            old,
            own: old.map(Assignment::claims).unwrap_or_default().into_iter().collect(),
            refused: refused.map_or(&[], Vec::as_slice),
            holding: active_holding(snapshot, label, old),
        })
    }

    /// The wanted address that could be out of this family.
    pub fn wanted(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.label.want.addresses.iter().find(|ip| ip.is_ipv4() == is_ipv4).copied()
    }

    /// Whether its own host uses a port for something else. In an exclusive pool whatever the address: a program that
    /// listens on a port usually does so on all addresses, and handing out one address after the other would not help.
    pub fn refuses(&self, sharing: Sharing, addresses: &[IpAddr], port: u16) -> bool {
        let counts = |refusal: &&Refused| sharing.claims_address() || addresses.contains(&refusal.ip);
        self.refused.iter().filter(counts).any(|refusal| refusal.port == port)
    }

    /// What its id hashes to: where a search for it starts. Stable over everything, so that a node tends to get back what
    /// it had, and spread, so that nodes that race do not race for one address.
    pub fn hash(&self, what: &str) -> u128 {
        hash(self.node, what)
    }

    /// Port numbers it would like by name: those it has, else those it had and still claims, else those it holds.
    pub fn preferred_ports(&self) -> BTreeMap<&'a PortName, Vec<u16>> {
        let mut preferred: BTreeMap<&PortName, Vec<u16>> = BTreeMap::new();
        let bound = self.old.and_then(Assignment::bound).map(|bound| &bound.ports);
        let leaving = self.old.iter().flat_map(|old| old.leaving.iter().rev()).map(|leaving| &leaving.ports);
        let held = self.holding.map(|holding| &holding.ports);
        for (name, port) in held.into_iter().chain(bound).chain(leaving).flatten() {
            preferred.entry(name).or_default().push(*port);
        }
        preferred
    }
}

/// What an agent uses although the store forgot it counts until it is answered, and only if the store is the older of the
/// two: a store that is newer says that the node was away too long, and its address may be another's. A restore may raise the
/// revisions, so a mark that the store has lost proves that it is the older one, whatever the generations say.
pub fn active_holding<'a>(snapshot: &Snapshot, label: &'a Label, old: Option<&Assignment>) -> Option<&'a Holding> {
    let holding = label.holding.as_deref()?;
    let is_older = |old: &Assignment| old.generation <= holding.generation || snapshot.has_lost(holding.mark);
    let counts = old.is_none_or(|old| !old.asked.answers(label) && is_older(old));
    counts.then_some(holding)
}

/// A number that depends on a node's id and nothing else.
pub fn hash(node: &NodeId, what: &str) -> u128 {
    let digest = Sha256::new().chain_update(what).chain_update([0]).chain_update(node.as_str()).finalize();
    digest.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

impl<'a> Attempt<'_, 'a> {
    /// How a key of a pool stands to the asker, looked at alone.
    pub fn standing(&self, view: &PoolView<'_>, key: &ClaimKey) -> Standing {
        if self.asker.own.contains(key) {
            return Standing::Own;
        }
        if !self.taken.contains(key) {
            return Standing::Free;
        }
        if !self.taken.is_picked(key) && view.pool.on_isolation == OnIsolation::Keep {
            return self.cooling(key).map_or(Standing::Taken, Standing::Cooling);
        }
        Standing::Taken
    }

    /// How an address stands to an asker who would claim it whole: nobody else may have a port of it.
    pub fn whole(&self, view: &PoolView<'_>, ip: &IpAddr) -> Standing {
        match self.standing(view, &address_key(&view.pool.domain, ip)) {
            Standing::Free | Standing::Cooling(_) if self.taken.has_ports(&view.pool.domain, ip) => Standing::Taken,
            standing => standing,
        }
    }

    /// The mod_revision of a cooling claim that the asker may have: its node had it (also an earlier installation of it: a host
    /// that was installed again has the name only once the hold of the former one is over, or that one stopped), or it holds it
    /// although the store forgot, and it was given up before it got it.
    fn cooling(&self, key: &ClaimKey) -> Option<Revision> {
        let stored = self.world.snapshot.claims.get(key)?;
        let claim = stored.ok()?;
        if claim.is_bound() || !self.world.pools.gives_back(&claim.pool) {
            return None;
        }
        let mine = claim.node == *self.asker.node;
        let held = self.asker.holding.is_some_and(|holding| {
            holding.generation > stored.mod_revision
                && holding.addresses.contains(&key.ip)
                && key.port.is_none_or(|port| holding.ports.values().any(|held| *held == port))
        });
        (mine || held).then_some(stored.mod_revision)
    }

    /// Whether the rules of a pool let the asker have an address, taken or not.
    pub fn may_have(&self, view: &PoolView<'_>, ip: &IpAddr) -> bool {
        view.gives(ip) && !self.is_reserved_for_another(&view.pool.domain, ip)
    }

    /// Whether an address is kept for another node.
    pub fn is_reserved_for_another(&self, domain: &DomainName, ip: &IpAddr) -> bool {
        self.world.pools.reserved_for(domain, ip).is_some_and(|owner| owner != self.asker.node)
    }

    /// What is reserved for the asker in a pool.
    pub fn reserved<'p>(&self, view: &PoolView<'p>) -> impl Iterator<Item = IpAddr> + use<'p> {
        view.pool.reserve.get(self.asker.node).into_iter().flatten().copied()
    }

    /// All that is stored.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.world.snapshot
    }
}

/// The key of an address.
pub fn address_key(domain: &DomainName, ip: &IpAddr) -> ClaimKey {
    ClaimKey { domain: domain.clone(), ip: *ip, port: None }
}

/// The key of a port on an address.
pub fn port_key(domain: &DomainName, ip: &IpAddr, port: u16) -> ClaimKey {
    ClaimKey { domain: domain.clone(), ip: *ip, port: Some(port) }
}
