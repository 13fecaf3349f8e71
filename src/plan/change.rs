//! What a plan wants written: for each node one change, all or nothing, with the compares that make it safe.
//!
//! In the words of the model; [`crate::allocator`] turns it into a nested transaction. Every compare here is there for a
//! race that was found: take none out.

use std::net::IpAddr;

use crate::model::assignment::{Answer, Assignment};
use crate::model::claim::{Claim, ClaimKey};
use crate::model::finding::Finding;
use crate::model::hold::Hold;
use crate::model::lineage::Mark;
use crate::model::names::{DomainName, NodeId, Revision};
use crate::plan::brake::{Brake, BrakeState};

/// What a pass decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// At most one for each node, in the order in which nodes are served.
    pub changes: Vec<Change>,
    /// What is wrong with stored things. They stop nothing.
    pub findings: Vec<Finding>,
    /// Whether mass loss is seen.
    pub brake: Brake,
    /// What the brake does about it.
    pub brake_state: BrakeState,
    /// Releases that would be due but wait for the driver's budget (brake on, extended holds over).
    pub releases_deferred: usize,
    /// Marks that live nodes hold and the store has lost: it was restored.
    pub lost: Vec<Mark>,
}

/// What people are told of a change: from, to, why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// What the node had: its place, `waiting` or `nothing`; empty = it keeps its answer.
    pub from: String,
    /// What it has now, in the same words.
    pub to: String,
    /// Why. Empty = nothing to tell.
    pub why: String,
}

impl Note {
    /// Another answer.
    pub fn new(from: Option<&Answer>, to: Option<&Answer>, why: impl Into<String>) -> Note {
        Note { from: in_words(from), to: in_words(to), why: why.into() }
    }

    /// Tells a better reason, if there is anything to tell.
    pub fn because(&mut self, why: impl Into<String>) {
        if !self.why.is_empty() {
            self.why = why.into();
        }
    }

    /// Something else than its answer changed.
    pub fn aside(why: impl Into<String>) -> Note {
        Note { why: why.into(), ..Note::default() }
    }
}

fn in_words(answer: Option<&Answer>) -> String {
    match answer {
        None => "nothing".into(),
        Some(Answer::Waiting(_)) => "waiting".into(),
        Some(Answer::Bound(bound)) => {
            let addresses: Vec<String> = bound.addresses.iter().map(ToString::to_string).collect();
            let ports: Vec<String> = bound.ports.iter().map(|(name, port)| format!("{name}={port}")).collect();
            let ports = if ports.is_empty() { String::new() } else { format!(" {}", ports.join(",")) };
            format!("{}{ports} ({})", addresses.join(","), bound.terms.pool)
        }
    }
}

/// All or nothing for one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The node.
    pub node: NodeId,
    /// What it is, for logs and tests.
    pub action: Action,
    /// What the log tells. Empty when nothing that people follow changed.
    pub note: Note,
    /// All must hold at the moment of writing.
    pub compares: Vec<Compare>,
    /// Each key at most once.
    pub writes: Vec<Write>,
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A first answer with addresses.
    Assign,
    /// Same addresses and ports, new `asked`, `instance` or terms.
    Refresh,
    /// Other addresses or ports; the old ones go to `leaving`.
    Move,
    /// An answer without addresses.
    Wait,
    /// Acknowledged: the claims of `leaving` are given up.
    Settle,
    /// The node is away: `hold` is put (`seen`).
    HoldSeen,
    /// Its clock is started (`held`).
    HoldStart,
    /// Its clock is started once more under the brake.
    HoldExtend,
    /// Its claims are given up, the assignment is deleted.
    Release,
    /// After a restore: what the store says that a live node has is given up, because the node uses something else.
    Void,
    /// Label, status and hold of a node that was released long ago are deleted.
    Forget,
    /// Claims put right that no assignment accounts for, or the reverse.
    Repair,
}

/// A key a compare or a write names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `nodes/<node>/label`
    Label(NodeId),
    /// `nodes/<node>/status`
    Status(NodeId),
    /// `nodes/<node>/assignment`
    Assignment(NodeId),
    /// `nodes/<node>/hold`
    Hold(NodeId),
    /// `nodes/<node>/hold/clock`
    Clock(NodeId),
    /// `claims/<domain>/<ip>[/<port>]`
    Claim(ClaimKey),
}

/// What must hold at the moment of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key's mod_revision; [`Revision::NONE`] = it is absent.
    Modified(Subject, Revision),
    /// The key's create_revision; [`Revision::NONE`] = it is absent.
    Created(Subject, Revision),
    /// No port of this address is claimed by anybody (range compare under `claims/<domain>/<ip>/`).
    NoPortsClaimed(DomainName, IpAddr),
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Put an assignment.
    Assignment(NodeId, Assignment),
    /// Put a hold.
    Hold(NodeId, Hold),
    /// Put `hold/clock` on a lease of so many seconds, granted for this request.
    Clock(NodeId, u64),
    /// Put a claim that is bound.
    Bind(ClaimKey, Claim),
    /// Put a claim that is cooling, on a lease of so many seconds, granted for this request.
    Cool(ClaimKey, Claim, u64),
    /// Delete a key.
    Delete(Subject),
}

impl Write {
    /// The key it writes.
    pub fn subject(&self) -> Subject {
        match self {
            Write::Assignment(node, _) => Subject::Assignment(node.clone()),
            Write::Hold(node, _) => Subject::Hold(node.clone()),
            Write::Clock(node, _) => Subject::Clock(node.clone()),
            Write::Bind(key, _) | Write::Cool(key, ..) => Subject::Claim(key.clone()),
            Write::Delete(subject) => subject.clone(),
        }
    }
}
