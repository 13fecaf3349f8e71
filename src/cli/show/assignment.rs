//! Assignments, as `get assignments` shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::{Shown, Stores, joined, pairs};
use crate::cli::content::{Content, stored};
use crate::model::assignment::{Answer, Assignment, Terms};
use crate::model::names::Revision;
use crate::store::keys::{NodePart, ParsedKey};

/// The allocator's answer to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AssignmentObject {
    /// The node.
    pub node: String,
    /// bound, waiting, or unreadable.
    pub state: String,
    /// Why it waits, as a code; empty when bound.
    pub reason: String,
    /// The same in words.
    pub message: String,
    /// What it has, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// By port name.
    pub ports: BTreeMap<String, u16>,
    /// Where from and on what terms; null while it waits.
    pub terms: Option<TermsObject>,
    /// The revision at which it was planned.
    pub generation: i64,
    /// The installation it was given to.
    pub instance: String,
    /// Claims of earlier generations that are still bound, as `domain/address[/port]`.
    pub leaving: Vec<String>,
    /// When it was last written, as a store revision.
    pub revision: i64,
}

/// The terms of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TermsObject {
    /// The pool.
    pub pool: String,
    /// Its routing domain.
    pub domain: String,
    /// exclusive, shared or host.
    pub sharing: String,
    /// Seconds that it is kept while the node is away.
    pub hold_s: u64,
    /// Seconds of cooling after that.
    pub cooldown_s: u64,
    /// keep or withdraw.
    pub on_isolation: String,
}

impl From<&Terms> for TermsObject {
    fn from(terms: &Terms) -> Self {
        TermsObject {
            pool: terms.pool.to_string(),
            domain: terms.domain.to_string(),
            sharing: terms.sharing.to_string(),
            hold_s: terms.hold_s,
            cooldown_s: terms.cooldown_s,
            on_isolation: terms.on_isolation.to_string(),
        }
    }
}

impl Shown for AssignmentObject {
    const SOURCE: &'static [&'static str] = &["nodes"];
    const MANAGER: &'static [&'static str] = &[];
    const HEADINGS: &'static [&'static str] = &["NODE", "STATE", "POOL", "ADDRESSES", "PORTS", "GENERATION", "REASON"];
    const NARROW: &'static [&'static str] = &["GENERATION", "POOL"];
    const WIDE: &'static [&'static str] = &["DOMAIN", "SHARING", "LEAVING", "MESSAGE"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        let parsed = stores.source.into_iter().flat_map(Content::parsed);
        let assignments = parsed.filter_map(|(key, kv)| match key {
            ParsedKey::Node(node, NodePart::Assignment) => Some((node, stored::<Assignment>(kv))),
            _ => None,
        });
        assignments
            .map(|(node, stored)| match &stored.value {
                Ok(assignment) => assignment_object(assignment, stored.mod_revision),
                Err(fault) => unreadable(node.as_str(), &fault.to_string(), stored.mod_revision),
            })
            .collect()
    }

    fn name(&self) -> String {
        self.node.clone()
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.node.clone(),
            self.state.clone(),
            self.terms.as_ref().map(|terms| terms.pool.clone()).unwrap_or_default(),
            joined(&self.addresses),
            pairs(&self.ports),
            self.generation.to_string(),
            self.reason.clone(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let term = |pick: fn(&TermsObject) -> &String| self.terms.as_ref().map(pick).cloned().unwrap_or_default();
        vec![term(|terms| &terms.domain), term(|terms| &terms.sharing), joined(&self.leaving), self.message.clone()]
    }
}

/// One assignment.
pub fn assignment_object(assignment: &Assignment, revision: Revision) -> AssignmentObject {
    let (state, reason, message) = match &assignment.answer {
        Answer::Bound(_) => ("bound", String::new(), String::new()),
        Answer::Waiting(waiting) => ("waiting", waiting.reason.to_string(), waiting.message.clone()),
    };
    let bound = assignment.bound();
    let leaving = assignment.leaving.iter().flat_map(|leaving| leaving.claims());
    AssignmentObject {
        node: assignment.node.to_string(),
        state: state.into(),
        reason,
        message,
        addresses: bound.map(|bound| bound.addresses.clone()).unwrap_or_default(),
        ports: bound.into_iter().flat_map(|bound| &bound.ports).map(|(name, port)| (name.to_string(), *port)).collect(),
        terms: bound.map(|bound| (&bound.terms).into()),
        generation: assignment.generation.0,
        instance: assignment.instance.to_string(),
        leaving: leaving.map(|claim| claim.to_string()).collect(),
        revision: revision.0,
    }
}

fn unreadable(node: &str, fault: &str, revision: Revision) -> AssignmentObject {
    AssignmentObject {
        node: node.into(),
        state: "unreadable".into(),
        reason: String::new(),
        message: fault.into(),
        addresses: Vec::new(),
        ports: BTreeMap::new(),
        terms: None,
        generation: 0,
        instance: String::new(),
        leaving: Vec::new(),
        revision: revision.0,
    }
}
