//! Why a node is a member of a group, or is not: the manager's own steps, for one node. Changes nothing. Pure.

use crate::manager::state;
use crate::manager::view::View;
use crate::model::group::{GroupKey, MemberState};
use crate::model::names::NodeId;

/// What a node is to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// A member.
    Member {
        /// In this state.
        state: MemberState,
        /// Whether consumers are told of it.
        published: bool,
    },
    /// The selector does not match, a variable that the group is keyed by is missing, or another group of the definition is the
    /// node's.
    NotSelected,
    /// It belongs there, but its definition has as many groups as it may have.
    AboveLimit,
    /// The copies are not complete, or not everything was read: nothing can be said.
    Unknown,
    /// It would belong there, but there is nothing of it: it left, or what it had was released.
    Gone,
}

impl View {
    /// What a node is to a group. The name of a keyed definition alone means whichever of its groups is the node's.
    pub fn membership(&mut self, group: &GroupKey, node: &NodeId) -> Membership {
        if !self.is_ready() {
            return Membership::Unknown;
        }
        self.refuse();
        let of_definition = self.roster.places(node).find(|place| place.name() == group.name());
        let Some(place) = of_definition.filter(|place| group.values().is_empty() || *place == group) else {
            return Membership::NotSelected;
        };
        if self.refused.get(place.name()).is_some_and(|refused| refused.contains(place)) {
            return Membership::AboveLimit;
        }
        let written = self.written.get(place).and_then(|written| written.members.get(node));
        let record = self.copies.nodes().get(node);
        match record.and_then(|record| state::member(node, record, None, self.caution, written)) {
            None => Membership::Gone,
            Some(member) => Membership::Member { state: member.state, published: member.published },
        }
    }
}
