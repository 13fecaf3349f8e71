//! For tests: a store, and what agents, operators and clocks do to it.

use std::net::IpAddr;

use crate::model::assignment::{Assignment, Reason};
use crate::model::claim::{Claim, ClaimState};
use crate::model::finding::Finding;
use crate::model::label::Label;
use crate::model::names::{NodeId, Revision};
use crate::model::pool::Pool;
use crate::model::status::{Phase, Refused, Status};
use crate::plan::change::{Action, Plan};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored, Unreadable};
use crate::plan::{Pass, plan};

use super::apply::{apply, put};
use super::make::{id, key};

/// A store and an allocator over it.
#[derive(Debug, Clone, Default)]
pub struct Lab {
    /// What is stored.
    pub snapshot: Snapshot,
    /// What the driver gives.
    pub pass: Pass,
}

impl Lab {
    /// A store with pools.
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Self {
        let mut lab = Lab::default();
        lab.pass.now_text = "2026-01-01T00:00:00Z".into();
        pools.into_iter().for_each(|pool| lab.put_pool(pool));
        lab
    }

    fn tick(&mut self) -> Revision {
        self.snapshot.revision = self.snapshot.revision.next();
        self.snapshot.revision
    }

    /// An operator writes a pool.
    pub fn put_pool(&mut self, pool: Pool) {
        let revision = self.tick();
        let stored = put(self.snapshot.pools.get(&pool.name), revision, pool.clone(), false);
        self.snapshot.pools.insert(pool.name, stored);
    }

    /// An operator changes a pool.
    pub fn edit_pool(&mut self, name: &str, edit: impl FnOnce(&mut Pool)) {
        let mut pool = self.snapshot.pools[&name.parse().unwrap()].value.clone().unwrap();
        edit(&mut pool);
        self.put_pool(pool);
    }

    /// An operator deletes a pool.
    pub fn delete_pool(&mut self, name: &str) {
        self.tick();
        self.snapshot.pools.remove(&name.parse().unwrap());
    }

    /// All about one node.
    pub fn record(&self, node: &str) -> &NodeRecord {
        &self.snapshot.nodes[&id(node)]
    }

    /// All about one node, to be changed at a new revision.
    pub fn edit(&mut self, node: &str, edit: impl FnOnce(&mut NodeRecord, Revision)) {
        let revision = self.tick();
        let record = self.snapshot.nodes.entry(id(node)).or_default();
        edit(record, revision);
        if record.is_empty() {
            self.snapshot.nodes.remove(&id(node));
        }
    }

    /// An agent joins with a label: an equal one is not written again, `hold` goes, its clock is left to its lease.
    pub fn join(&mut self, label: Label) {
        let node = label.id.to_string();
        let status = status(&label);
        self.edit(&node, |record, revision| {
            if record.label.as_ref().and_then(|label| label.ok()) != Some(&label) {
                record.label = Some(put(record.label.as_ref(), revision, label, false));
            }
            record.status = Some(put(record.status.as_ref(), revision, status, true));
            record.hold = None;
        });
    }

    /// A live agent writes another label.
    pub fn relabel(&mut self, label: Label) {
        let node = label.id.to_string();
        self.edit(&node, |record, revision| record.label = Some(put(record.label.as_ref(), revision, label, false)));
    }

    /// The agent changes its status.
    pub fn status(&mut self, node: &str, edit: impl FnOnce(&mut Status)) {
        self.edit(node, |record, revision| {
            let mut status = record.status.as_ref().unwrap().value.clone().unwrap();
            edit(&mut status);
            let leased = status.phase.is_live();
            record.status = Some(put(record.status.as_ref(), revision, status, leased));
        });
    }

    /// The agent applies its answer and says so.
    pub fn acknowledge(&mut self, node: &str) {
        let assignment = self.assignment(node).clone();
        let phase = if assignment.bound().is_some() { Phase::Registered } else { Phase::Joining };
        self.status(node, |status| {
            status.phase = phase;
            status.generation = assignment.generation;
            status.refused.clear();
        });
    }

    /// The agent finds a port of its answer in use on its host.
    pub fn refuse(&mut self, node: &str, ip: &str, port: u16) {
        let ip = ip.parse().unwrap();
        self.status(node, |status| status.refused.push(Refused { ip, port }));
    }

    /// The agent stops properly.
    pub fn stop(&mut self, node: &str) {
        self.status(node, |status| status.phase = Phase::Stopped);
    }

    /// The agent leaves for good.
    pub fn leave(&mut self, node: &str) {
        self.status(node, |status| status.phase = Phase::Left);
    }

    /// The node falls silent.
    pub fn die(&mut self, node: &str) {
        self.edit(node, |record, _| record.status = None);
    }

    /// The clock of a hold ends.
    pub fn clock_ends(&mut self, node: &str) {
        self.edit(node, |record, _| {
            assert!(record.clock.take().is_some(), "{node} has no clock");
        });
    }

    /// A cooling ends.
    pub fn cooling_ends(&mut self, claim: &str) {
        self.tick();
        let stored = self.snapshot.claims.remove(&key(claim)).unwrap();
        assert!(stored.leased && !stored.value.unwrap().is_bound(), "{claim} does not cool");
    }

    /// All coolings end.
    pub fn all_coolings_end(&mut self) {
        self.tick();
        self.snapshot.claims.retain(|_, stored| stored.ok().is_none_or(Claim::is_bound));
    }

    /// Somebody writes a claim by hand.
    pub fn put_claim(&mut self, claim: &str, node: &str) {
        let revision = self.tick();
        let value = Claim { node: id(node), pool: "by-hand".parse().unwrap(), state: ClaimState::Bound };
        self.snapshot.claims.insert(key(claim), put(None, revision, value, false));
    }

    /// Somebody deletes a claim by hand.
    pub fn delete_claim(&mut self, claim: &str) {
        self.tick();
        self.snapshot.claims.remove(&key(claim)).unwrap();
    }

    /// Somebody writes a claim that does not parse.
    pub fn spoil_claim(&mut self, claim: &str) {
        let revision = self.tick();
        let stored = put(None, revision, (), false);
        let value = Err(Unreadable::Invalid("not JSON".into()));
        let Stored { create_revision, mod_revision, leased, .. } = stored;
        self.snapshot.claims.insert(key(claim), Stored { value, create_revision, mod_revision, leased });
    }

    /// The operator releases the brake.
    pub fn release_brake(&mut self) {
        self.snapshot.brake_released = self.tick();
    }

    /// What a pass would do.
    pub fn plan(&self) -> Plan {
        plan(&self.snapshot, &self.pass)
    }

    /// One pass: every change of it must hold on the snapshot that it was planned on.
    pub fn step(&mut self) -> Plan {
        let plan = self.plan();
        let (next, lost) = apply(&self.snapshot, &plan);
        assert_eq!(lost, Vec::new(), "a change does not hold on its own snapshot");
        self.snapshot = next;
        plan
    }

    /// Passes until nothing is left to do. Returns every action with its node.
    pub fn run(&mut self) -> Vec<(Action, NodeId)> {
        let mut actions = Vec::new();
        for _ in 0..20 {
            let plan = self.step();
            if plan.changes.is_empty() {
                return actions;
            }
            actions.extend(plan.changes.into_iter().map(|change| (change.action, change.node)));
        }
        panic!("passes do not come to rest: {actions:?}");
    }

    /// A node's answer.
    pub fn assignment(&self, node: &str) -> &Assignment {
        self.record(node).assignment.as_ref().unwrap().ok().unwrap()
    }

    /// Whether a node has no answer at all.
    pub fn has_no_answer(&self, node: &str) -> bool {
        self.snapshot.nodes.get(&id(node)).is_none_or(|record| record.assignment.is_none())
    }

    /// A bound node's addresses as text.
    pub fn addresses(&self, node: &str) -> String {
        let bound = self.assignment(node).bound().unwrap_or_else(|| panic!("{node} waits"));
        bound.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// A bound node's ports, `name=number`.
    pub fn ports(&self, node: &str) -> String {
        let bound = self.assignment(node).bound().unwrap_or_else(|| panic!("{node} waits"));
        bound.ports.iter().map(|(name, port)| format!("{name}={port}")).collect::<Vec<_>>().join(",")
    }

    /// Why a node waits; `None` = it is bound or has no answer.
    pub fn reason(&self, node: &str) -> Option<Reason> {
        use crate::model::assignment::Answer;
        match &self.record(node).assignment.as_ref()?.ok()?.answer {
            Answer::Waiting(waiting) => Some(waiting.reason),
            Answer::Bound(_) => None,
        }
    }

    /// What every claim is: `bound NODE` or `cooling NODE`.
    pub fn claim(&self, claim: &str) -> Option<String> {
        let claim = self.snapshot.claims.get(&key(claim))?.ok()?;
        Some(format!("{} {}", if claim.is_bound() { "bound" } else { "cooling" }, claim.node))
    }

    /// The findings of a plan made now, by code.
    pub fn findings(&self, code: &str) -> Vec<Finding> {
        self.plan().findings.into_iter().filter(|finding| finding.code == code).collect()
    }
}

/// The status of an agent that just joined.
fn status(label: &Label) -> Status {
    Status {
        instance: label.instance.clone(),
        boot: label.boot.clone(),
        run: label.run.clone(),
        phase: Phase::Joining,
        generation: Revision::NONE,
        message: String::new(),
        refused: Vec::new(),
    }
}
