//! Who keeps what its pool would not assign to it today: a pool that changes moves nobody unless it says so, so an operator
//! has to be told who still has something outside.

use std::collections::BTreeMap;

use crate::model::assignment::Bound;
use crate::model::finding::Finding;
use crate::model::names::{NodeId, PoolName};
use crate::model::pool::{OnMismatch, Sharing};
use crate::model::variables::Variables;
use crate::plan::index::Index;
use crate::plan::pools::{PoolView, Pools};
use crate::plan::snapshot::Snapshot;

/// So many nodes are named in a finding.
const NAMED_MAX: usize = 5;

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mismatch {
    /// The selector does not match the node's variables.
    Selector,
    /// The pool lists other families.
    Family,
    /// An address is outside of `cidrs`, excluded, or reserved for another node.
    Address,
    /// A port is outside of `ports`.
    Port,
}

impl Mismatch {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Mismatch::Selector => "selector",
            Mismatch::Family => "family",
            Mismatch::Address => "address",
            Mismatch::Port => "port",
        }
    }
}

impl Pools<'_> {
    /// Why a pool would not assign this to the node today; `None` = it would. Without variables the selector is left out.
    pub fn mismatch(
        &self,
        view: &PoolView<'_>,
        (node, variables): (&NodeId, Option<&Variables>),
        bound: &Bound,
    ) -> Option<Mismatch> {
        let families = if view.pool.sharing == Sharing::Host { 1 } else { view.families().count() };
        let is_anothers = |ip| self.reserved_for(&view.pool.domain, ip).is_some_and(|owner| owner != node);
        if variables.is_some_and(|variables| !view.pool.selector.matches(variables)) {
            return Some(Mismatch::Selector);
        }
        if bound.addresses.len() != families {
            return Some(Mismatch::Family);
        }
        if bound.addresses.iter().any(|ip| !view.gives(ip) || is_anothers(ip)) {
            return Some(Mismatch::Address);
        }
        bound.ports.values().any(|port| !view.pool.ports.contains(*port)).then_some(Mismatch::Port)
    }
}

/// The nodes of each pool that keep what the pool would not assign to them today, with the first reason. Pools without such
/// nodes are left out, and so are answers on other terms than the pool's: those freeze it, which is said elsewhere.
pub fn outside(snapshot: &Snapshot, pools: &Pools<'_>) -> BTreeMap<PoolName, Vec<(NodeId, Mismatch)>> {
    let mut outside: BTreeMap<PoolName, Vec<(NodeId, Mismatch)>> = BTreeMap::new();
    for (node, record) in &snapshot.nodes {
        let bound = record.assignment.as_ref().and_then(|stored| stored.ok()).and_then(|assignment| assignment.bound());
        let Some(bound) = bound else { continue };
        let Some(view) = pools.get(&bound.terms.pool) else { continue };
        if view.pool.domain != bound.terms.domain || view.pool.sharing != bound.terms.sharing {
            continue;
        }
        let variables = record.label.as_ref().and_then(|stored| stored.ok()).map(|label| &label.variables);
        if let Some(mismatch) = pools.mismatch(view, (node, variables), bound) {
            outside.entry(bound.terms.pool.clone()).or_default().push((node.clone(), mismatch));
        }
    }
    outside
}

/// One finding for each pool that has such nodes. It looks at every node: for commands, not for passes.
pub fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let index = Index::of(snapshot);
    let pools = Pools::new(snapshot, &index);
    let finding = |(name, nodes): (PoolName, Vec<(NodeId, Mismatch)>)| {
        let then = match pools.get(&name).map(|view| view.pool.on_mismatch) {
            Some(OnMismatch::Move) => "they are moved, `move_at_once` at a time, where something better is free",
            _ => "they keep it until they leave, or are moved with on_mismatch: move",
        };
        Finding::about("pool-outside", format!("pools/{name}"), format!("{}; {then}", in_words(&nodes)))
    };
    outside(snapshot, &pools).into_iter().map(finding).collect()
}

/// `2 nodes have what the pool would not assign to them today: a (address), b (port)`
pub fn in_words(nodes: &[(NodeId, Mismatch)]) -> String {
    let named: Vec<String> = nodes.iter().take(NAMED_MAX).map(|(node, why)| format!("{node} ({})", why.as_str())).collect();
    let more = if nodes.len() > NAMED_MAX { ", …" } else { "" };
    let (count, who) = (nodes.len(), if nodes.len() == 1 { "node has" } else { "nodes have" });
    format!("{count} {who} what the pool would not assign today: {}{more}", named.join(", "))
}
