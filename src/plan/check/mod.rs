//! Finds what must not be: the two invariants that every revision of the store keeps, and what cannot be read.
//!
//! It is the oracle of the tests and of `enlist check`, so it shares nothing with the planner but the types: it must not
//! believe what the planner believes. It decides nothing and changes nothing.
//!
//! 1. No exclusive (domain, address) and no (domain, address, port) is bound to two nodes, and no address is bound
//!    exclusively and shared at once.
//! 2. Every bound assignment has exactly its claims (`leaving` included); every bound claim has its assignment.

use std::collections::BTreeMap;

use crate::model::assignment::Assignment;
use crate::model::claim::{Claim, ClaimKey};
use crate::model::finding::Finding;
use crate::model::names::NodeId;
use crate::plan::findings::{claim_key, node_key, unreadable};
use crate::plan::snapshot::Snapshot;

/// Everything that is wrong in a snapshot; empty = nothing. In the order of codes and keys.
pub fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let snapshot = &*crate::plan::sound(snapshot);
    let mut findings = unreadable(snapshot);
    let listed = listed(snapshot, &mut findings);
    claims_of_assignments(snapshot, &listed, &mut findings);
    assignments_of_claims(snapshot, &listed, &mut findings);
    whole_and_by_port(snapshot, &mut findings);
    for (name, stored) in &snapshot.pools {
        if let Err(error) = &stored.value {
            findings.push(Finding::about("pool-unreadable", format!("pools/{name}"), error.to_string()));
        }
    }
    findings.sort();
    findings
}

/// What readable assignments list, with the node. A key that two list is a double grant.
fn listed<'a>(snapshot: &'a Snapshot, findings: &mut Vec<Finding>) -> BTreeMap<ClaimKey, &'a NodeId> {
    let mut listed: BTreeMap<ClaimKey, &NodeId> = BTreeMap::new();
    for (node, assignment) in assignments(snapshot) {
        for key in assignment.claims() {
            if let Some(other) = listed.insert(key.clone(), node)
                && other != node
            {
                findings.push(Finding {
                    code: "double-grant",
                    keys: vec![node_key(other, "assignment"), node_key(node, "assignment")],
                    message: format!("{key} is in the assignments of {other} and of {node}"),
                });
            }
        }
    }
    listed
}

/// Every claim that an assignment lists is there and the node's.
fn claims_of_assignments(snapshot: &Snapshot, listed: &BTreeMap<ClaimKey, &NodeId>, findings: &mut Vec<Finding>) {
    for (key, node) in listed {
        let fault = match snapshot.claims.get(key).map(|stored| stored.ok()) {
            None => "is missing".to_owned(),
            Some(None) => continue, // it cannot be read, which is said already
            Some(Some(claim)) if !claim.is_bound() => format!("cools for {}", claim.node),
            Some(Some(claim)) if claim.node != **node => format!("is bound to {}", claim.node),
            Some(Some(_)) => continue,
        };
        findings.push(Finding {
            code: "claim-missing",
            keys: vec![node_key(node, "assignment"), claim_key(key)],
            message: format!("the assignment of {node} lists {key}, but the claim {fault}"),
        });
    }
}

/// Every bound claim is in the assignment of its node. What an unreadable assignment lists cannot be known.
fn assignments_of_claims(snapshot: &Snapshot, listed: &BTreeMap<ClaimKey, &NodeId>, findings: &mut Vec<Finding>) {
    for (key, claim) in bound(snapshot) {
        let is_listed = listed.get(key).is_some_and(|node| **node == claim.node);
        let unknown = snapshot.nodes.get(&claim.node).and_then(|record| record.assignment.as_ref());
        if is_listed || unknown.is_some_and(|stored| stored.ok().is_none()) {
            continue;
        }
        findings.push(Finding {
            code: "claim-orphan",
            keys: vec![claim_key(key)],
            message: format!("it is bound to {}, whose assignment does not list it", claim.node),
        });
    }
}

/// No address is bound whole to one node and by a port to another, or without its assignment saying that both are one.
fn whole_and_by_port(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let mut whole: Option<(&ClaimKey, &Claim)> = None;
    // Claims are in the order of domain, address, port, an address before its ports.
    for (key, claim) in bound(snapshot) {
        let Some(port) = key.port else {
            whole = Some((key, claim));
            continue;
        };
        if let Some((address, owner)) = whole.filter(|(address, _)| address.ip == key.ip && address.domain == key.domain)
            && owner.node != claim.node
        {
            findings.push(Finding {
                code: "double-grant",
                keys: vec![claim_key(address), claim_key(key)],
                message: format!("{} is bound whole to {} and its port {port} to {}", key.ip, owner.node, claim.node),
            });
        }
    }
}

fn assignments(snapshot: &Snapshot) -> impl Iterator<Item = (&NodeId, &Assignment)> {
    snapshot.nodes.iter().filter_map(|(node, record)| Some((node, record.assignment.as_ref()?.ok()?)))
}

fn bound(snapshot: &Snapshot) -> impl Iterator<Item = (&ClaimKey, &Claim)> {
    snapshot.claims.iter().filter_map(|(key, stored)| Some((key, stored.ok()?))).filter(|(_, claim)| claim.is_bound())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::lab::Lab;
    use crate::plan::testing::make::*;

    fn codes(lab: &Lab) -> Vec<&'static str> {
        check(&lab.snapshot).into_iter().map(|finding| finding.code).collect()
    }

    fn lab() -> Lab {
        let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"]), shared("us", &["10.1.0.1/32"], "30000-30001")]);
        lab.join(label("a"));
        lab.join(label("b"));
        lab.run();
        lab
    }

    #[test]
    fn nothing_is_wrong_after_a_pass() {
        assert_eq!(codes(&lab()), Vec::<&str>::new());
    }

    #[test]
    fn a_missing_claim_is_found() {
        let mut lab = lab();
        lab.delete_claim("10.0.0.1");
        assert_eq!(codes(&lab), ["claim-missing"]);
    }

    #[test]
    fn an_orphan_is_found() {
        let mut lab = lab();
        lab.put_claim("10.0.0.9", "a");
        lab.put_claim("10.0.0.10", "nobody");
        assert_eq!(codes(&lab), ["claim-orphan", "claim-orphan"]);
    }

    #[test]
    fn a_double_grant_is_found() {
        let mut lab = lab();
        let stolen = lab.record("a").assignment.clone();
        lab.edit("b", |record, _| {
            record.assignment = stolen;
            if let Some(Ok(assignment)) = record.assignment.as_mut().map(|stored| &mut stored.value) {
                assignment.node = id("b");
            }
        });
        assert!(codes(&lab).contains(&"double-grant"));
    }

    #[test]
    fn an_address_that_is_bound_whole_and_by_port_is_found() {
        let mut lab = lab();
        lab.put_claim("10.0.0.1/31000", "b");
        assert_eq!(codes(&lab), ["claim-orphan", "double-grant"]);
    }

    #[test]
    fn an_unreadable_claim_is_found() {
        let mut lab = lab();
        lab.spoil_claim("10.0.0.77");
        assert_eq!(codes(&lab), ["claim-unreadable"]);
    }
}
