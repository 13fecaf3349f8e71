//! The proof, from the files alone: what must always hold, at every revision of both histories, and every registration that an
//! agent wrote down is in the history with what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use enlist::model::names::{NodeId, Revision};
use enlist::model::status::Phase;
use enlist::plan::snapshot::{NodeRecord, Snapshot};
use enlist::store::api::Event;
use enlist::store::keys::{NodePart, ParsedKey, Prefix};

use super::file::{Recorded, read};
use super::host::Said;
use super::uses::Uses;
use super::world::World;
use crate::history::copies::Copies;
use crate::history::source::Walk;
use crate::history::steps::{Allowed, Times};

/// Beyond this many findings only their number is of interest.
const FINDINGS_MAX: usize = 50;

/// What the files say.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Proof {
    pub(crate) source_revisions: u64,
    pub(crate) destination_revisions: u64,
    pub(crate) relay_states: u64,
    pub(crate) registrations: u64,
    pub(crate) releases: u64,
    /// Lines of agents that know of a registration; one may be known several times.
    pub(crate) written_down_by_agents: u64,
    /// How often an address of a pool that withdraws was taken into use.
    pub(crate) uses_that_withdraw: u64,
    /// The longest time in which no registration was acknowledged.
    pub(crate) longest_without_progress_ms: u64,
    /// Revisions that neither file has.
    pub(crate) holes: u64,
    pub(crate) findings: Vec<String>,
}

/// What a node was given: addresses and ports.
type Given = (Vec<String>, BTreeMap<String, u16>);

/// What the history says of registrations.
#[derive(Default)]
struct Ledger {
    given: BTreeMap<(String, i64), BTreeSet<Given>>,
    acknowledged: BTreeSet<(String, i64)>,
    registrations: u64,
    releases: u64,
    last_ms: u64,
    longest_ms: u64,
}

impl Ledger {
    fn take(&mut self, node: &NodeId, part: NodePart, before: Option<&NodeRecord>, after: &Snapshot, ms: u64) {
        let after = after.nodes.get(node);
        let bound = |record: Option<&NodeRecord>| {
            let assignment = record?.assignment.as_ref()?.ok()?;
            assignment.bound().map(|bound| (assignment.generation.0, bound.clone()))
        };
        match part {
            NodePart::Assignment => match (bound(before), bound(after)) {
                (_, Some((generation, bound))) => {
                    let ports = bound.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect();
                    let given = (bound.addresses.iter().map(ToString::to_string).collect(), ports);
                    self.given.entry((node.to_string(), generation)).or_default().insert(given);
                }
                (Some(_), None) => self.releases += 1,
                (None, None) => {}
            },
            NodePart::Status => {
                let registered = |record: Option<&NodeRecord>| {
                    let status = record?.status.as_ref()?.ok()?;
                    (status.phase == Phase::Registered).then(|| (status.run.clone(), status.generation))
                };
                let now = registered(after);
                if let Some((_, generation)) = &now
                    && now != registered(before)
                {
                    self.registrations += 1;
                    self.acknowledged.insert((node.to_string(), generation.0));
                    self.progress(ms);
                }
            }
            _ => {}
        }
    }

    fn progress(&mut self, ms: u64) {
        self.longest_ms = self.longest_ms.max(ms.saturating_sub(self.last_ms));
        self.last_ms = ms;
    }
}

/// Whether a pool was written more than once: what a node has may move then.
fn pools_change(prefix: &Prefix, source: &PathBuf) -> bool {
    let changes = |event: &Event| match event {
        Event::Put(kv) => kv.version > 1 && matches!(prefix.parse(&kv.key), ParsedKey::Pool(_)),
        Event::Delete { .. } => false,
    };
    read(source).any(|recorded| recorded.events.iter().any(changes))
}

/// Reads the files of a run, and proves.
pub(crate) fn prove(folder: &Path) -> Proof {
    let mut proof = Proof::default();
    let mut ledger = Ledger::default();
    let (source, destination) = (folder.join("source.jsonl"), folder.join("destination.jsonl"));
    let prefix = Prefix::default();
    let allowed = Allowed { pools_change: pools_change(&prefix, &source), ..Allowed::default() };
    let mut walk = Walk::new(prefix.clone(), allowed, Times::default());
    let mut last = Revision(1);
    for Recorded { revision, ms, events } in read(&source) {
        proof.holes += hole(&mut last, revision);
        let nodes: Vec<(NodeId, NodePart)> = events.iter().filter_map(|event| node(&prefix, event)).collect();
        let before: Vec<Option<NodeRecord>> = nodes.iter().map(|(id, _)| walk.snapshot().nodes.get(id).cloned()).collect();
        proof.findings.extend(walk.take(revision, events));
        for ((id, part), before) in nodes.iter().zip(&before) {
            ledger.take(id, *part, before.as_ref(), walk.snapshot(), ms);
        }
    }
    proof.source_revisions = walk.revisions();
    let mut copies = Copies::new(prefix, read(&source).map(|recorded| (recorded.revision, recorded.events)));
    let mut last = Revision(1);
    for Recorded { revision, events, .. } in read(&destination) {
        proof.holes += hole(&mut last, revision);
        proof.destination_revisions += 1;
        proof.findings.extend(copies.take(revision, events).map(|why| format!("destination {why}")));
    }
    proof.relay_states = copies.states();
    (proof.registrations, proof.releases) = (ledger.registrations, ledger.releases);
    proof.longest_without_progress_ms = ledger.longest_ms;
    let mut uses = Uses::default();
    for path in World::journals(folder) {
        let mut of_host = Uses::default();
        for line in std::fs::read_to_string(path).unwrap().lines() {
            match serde_json::from_str(line).unwrap() {
                Said::Uses { id, addresses, ms } => of_host.changed(&id, addresses, ms),
                Said::Over { ms } => of_host.over(ms),
                Said::Ended { id, why } => proof.findings.push(format!("the agent of {id} ended by itself: {why}")),
                Said::Registered { id, generation, addresses, ports } => {
                    proof.written_down_by_agents += 1;
                    let key = (id, generation);
                    let given = ledger.given.get(&key).is_some_and(|given| given.contains(&(addresses.clone(), ports.clone())));
                    if !given || !ledger.acknowledged.contains(&key) {
                        let (id, generation) = key;
                        let what = format!("of generation {generation} with {addresses:?} {ports:?}");
                        proof.findings.push(format!("a registration of {id} {what} was acknowledged, but is not in the history"));
                    }
                }
            }
        }
        of_host.over(u64::MAX);
        uses.add(of_host);
    }
    proof.uses_that_withdraw = uses.count();
    proof.findings.extend(uses.findings());
    let many = proof.findings.len();
    if many > FINDINGS_MAX {
        proof.findings.truncate(FINDINGS_MAX);
        proof.findings.push(format!("and {} more", many - FINDINGS_MAX));
    }
    proof
}

fn hole(last: &mut Revision, revision: Revision) -> u64 {
    let missing = revision.0 - last.0 - 1;
    *last = revision;
    u64::try_from(missing).unwrap()
}

fn node(prefix: &Prefix, event: &Event) -> Option<(NodeId, NodePart)> {
    match prefix.parse(event.key()) {
        ParsedKey::Node(node, part) => Some((node, part)),
        _ => None,
    }
}
