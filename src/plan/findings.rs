//! What is wrong with stored things, in words. A bad record costs that record and nothing else; here it is said.

use crate::model::claim::{Claim, ClaimKey};
use crate::model::finding::Finding;
use crate::model::names::NodeId;
use crate::plan::allocate::asker::{address_key, port_key};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};
use crate::plan::world::World;

/// What is said of a live status that no agent keeps.
const UNLEASED: &str = "it names a live phase, but its key is on no lease: no agent keeps it (it was copied, or put by hand), so the node \
                        counts as silent; `enlist check --repair`, or an allocator that runs, deletes it";

/// Everything that a pass sees and that only people can put right, in the order of codes and keys.
pub fn findings(world: &World<'_>) -> Vec<Finding> {
    let faulty = world.index.faulty().iter().filter_map(|node| world.node(node));
    let claims = world.index.faulty_claims().iter().filter_map(|key| world.snapshot.claims.get_key_value(key));
    let mut findings = unreadable_of(faulty.clone(), claims, world.snapshot);
    findings.extend(world.pools.findings.iter().cloned());
    findings.extend(faulty.filter_map(|(node, record)| {
        let label = record.label.as_ref()?.ok()?;
        Some(Finding::about("label-invalid", node_key(node, "label"), label.fault()?))
    }));
    findings.extend(world.pools.reservations().filter_map(|(domain, ip, node)| {
        let address = address_key(domain, ip);
        let keys = world.snapshot.claims.range(address.clone()..=port_key(domain, ip, u16::MAX));
        let foreign = |stored: &Stored<_>| stored.ok().is_some_and(|claim: &Claim| claim.node != *node);
        let (key, stored) = keys.into_iter().find(|(_, stored)| foreign(stored))?;
        let holder = &stored.ok()?.node;
        let message = format!("{ip} is reserved for {node}, but {holder} has it; {node} gets it when it asks after {holder} has left, or at once with on_mismatch: move");
        Some(Finding::about("reservation-held", claim_key(key), message))
    }));
    findings.sort();
    findings
}

/// Keys under `nodes/` and `claims/` that cannot be read. Those of pools are in [`super::pools`].
pub fn unreadable(snapshot: &Snapshot) -> Vec<Finding> {
    unreadable_of(snapshot.nodes.iter(), snapshot.claims.iter(), snapshot)
}

fn unreadable_of<'a>(
    nodes: impl Iterator<Item = (&'a NodeId, &'a NodeRecord)>,
    claims: impl Iterator<Item = (&'a ClaimKey, &'a Stored<Claim>)>,
    snapshot: &Snapshot,
) -> Vec<Finding> {
    fn about<T>(code: &'static str, key: impl FnOnce() -> String, stored: Option<&Stored<T>>) -> Option<Finding> {
        let error = stored?.value.as_ref().err()?;
        Some(Finding::about(code, key(), error.to_string()))
    }
    let nodes = nodes.flat_map(|(node, record)| {
        [
            about("label-unreadable", || node_key(node, "label"), record.label.as_ref()),
            about("status-unreadable", || node_key(node, "status"), record.status.as_ref()),
            about("assignment-unreadable", || node_key(node, "assignment"), record.assignment.as_ref()),
            about("hold-unreadable", || node_key(node, "hold"), record.hold.as_deref()),
            record.is_unleased().then(|| Finding::about("status-unleased", node_key(node, "status"), UNLEASED)),
            record.clock.as_deref().filter(|clock| !clock.leased).map(|_| {
                let message = "it is on no lease, so its time never ends: a hold that runs on it keeps what the node has until the node \
                               comes back; nobody but the allocator should put it: delete it (an allocator that runs does so once the \
                               node is live)";
                Finding::about("clock-unleased", node_key(node, "hold/clock"), message)
            }),
        ]
    });
    let claims = claims.map(|(key, stored)| about("claim-unreadable", || claim_key(key), Some(stored)));
    let strays = snapshot.strays.keys().map(|key| {
        let message = "it is no claim of a port, but keeps others from claiming the address: delete it if nobody needs it";
        Some(Finding::about("claim-unreadable", key.clone(), message))
    });
    nodes.chain(claims).chain(strays).flatten().collect()
}

/// A key of a node, relative to the prefix.
pub fn node_key(node: &NodeId, what: &str) -> String {
    format!("nodes/{node}/{what}")
}

/// The key of a claim, relative to the prefix.
pub fn claim_key(key: &ClaimKey) -> String {
    format!("claims/{key}")
}
