//! What kind of member a node is. Pure.
//!
//! | status | assignment | member |
//! |---|---|---|
//! | `registered`, its generation the assignment's | bound | `ready` |
//! | `registered` (another generation), `joining` | any, or none | `joining` |
//! | `failed` | any, or none | `failed` |
//! | `draining` | any, or none | `draining` |
//! | `stopped` | bound | `stopped`: its address is held for it |
//! | none | bound | `suspect`: it stopped answering, its address is held |
//! | `stopped`, none | waiting, or none | no member: released, only remembered |
//! | `left` | any | no member |
//! | no label | any | no member: there is nothing to select on |
//! | one of them cannot be read | | stays as it was: nothing is taken from a node whose word is not understood |

use crate::model::assignment::Bound;
use crate::model::group::{Member, MemberState};
use crate::model::names::{NodeId, PortName, Revision};
use crate::model::ports::Ports;
use crate::model::status::Phase;
use crate::plan::snapshot::NodeRecord;

/// What a node is to every group that selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No member of anything.
    Gone,
    /// A member in this state.
    Is(MemberState),
    /// Its status or assignment cannot be read: it stays what it was.
    Unclear,
}

/// What a node is by its record.
pub fn standing(record: &NodeRecord) -> Standing {
    let Some(_) = &record.label else { return Standing::Gone };
    let assignment = match &record.assignment {
        None => None,
        Some(seen) => match &seen.value {
            Ok(assignment) => Some(assignment),
            Err(_) => return Standing::Unclear,
        },
    };
    let bound = assignment.is_some_and(|assignment| assignment.bound().is_some());
    let away = |state| if bound { Standing::Is(state) } else { Standing::Gone };
    let Some(status) = &record.status else { return away(MemberState::Suspect) };
    let Ok(status) = &status.value else { return Standing::Unclear };
    match status.phase {
        Phase::Left => Standing::Gone,
        Phase::Stopped => away(MemberState::Stopped),
        Phase::Draining => Standing::Is(MemberState::Draining),
        Phase::Failed => Standing::Is(MemberState::Failed),
        Phase::Registered if bound && assignment.is_some_and(|a| a.generation == status.generation) => {
            Standing::Is(MemberState::Ready)
        }
        Phase::Registered | Phase::Joining => Standing::Is(MemberState::Joining),
    }
}

/// A member as it is stored, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenMember {
    /// `None` = it does not parse.
    pub member: Option<Member>,
    /// When its key was last written.
    pub mod_revision: Revision,
}

/// Mass loss, and what an operator said of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caution {
    /// The brake is on: suspects stay published.
    pub brake: bool,
    /// mod_revision of `brakes/manager`: suspects that were written before it are let go.
    pub released: Revision,
}

impl Caution {
    /// Whether a suspect is to be published.
    pub(super) fn publishes(self, written: Option<&WrittenMember>) -> bool {
        if !self.brake || self.released == Revision::NONE {
            return self.brake;
        }
        match written.and_then(|written| Some((written.member.as_ref()?, written.mod_revision))) {
            // One that was let go stays so, although its key is now newer than the release.
            Some((member, at)) if member.state == MemberState::Suspect => member.published && at > self.released,
            _ => true,
        }
    }
}

/// The member that a node should be; `None` = none. `port` = the only port to publish.
pub fn member(
    node: &NodeId,
    record: &NodeRecord,
    port: Option<&PortName>,
    caution: Caution,
    written: Option<&WrittenMember>,
) -> Option<Member> {
    let state = match standing(record) {
        Standing::Gone => return None,
        Standing::Is(state) => state,
        Standing::Unclear => {
            let unknown = || Member {
                node: node.clone(),
                addresses: Vec::new(),
                ports: Ports::default(),
                state: MemberState::Joining,
                published: false,
            };
            return Some(written.and_then(|written| written.member.clone()).unwrap_or_else(unknown));
        }
    };
    let bound = record.assignment.as_ref().and_then(|seen| seen.ok()).and_then(|assignment| assignment.bound());
    let ports = bound.map(|bound| ports(bound, port)).unwrap_or_default();
    Some(Member {
        node: node.clone(),
        addresses: bound.map(|bound| bound.addresses.clone()).unwrap_or_default(),
        ports,
        state,
        published: match state {
            MemberState::Ready => true,
            MemberState::Suspect => caution.publishes(written),
            _ => false,
        },
    })
}

fn ports(bound: &Bound, only: Option<&PortName>) -> Ports {
    bound.ports.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)).map(|(n, p)| (n.clone(), *p)).collect()
}
