//! What the agent shows of itself in this process and at its temporary endpoint.

use super::{Actor, AgentState, Wish};
use crate::agent::host::Face;
use crate::model::status::Phase;

impl Actor {
    /// Tells whoever watches in this process, and who asks at the temporary endpoint.
    pub(super) fn publish(&self) {
        let assignment = self.applied.as_ref().filter(|_| self.started).map(|applied| &applied.assignment);
        let joined = self.joined.as_ref().is_some_and(|joined| self.is_written(joined));
        let Wish { phase, message, .. } = &self.wish;
        // After every step, and most change nothing: so nothing is made before it is known to be other.
        let is_told = |told: &AgentState| {
            (told.phase, told.joined, told.assignment.as_ref(), &told.message) == (*phase, joined, assignment, message)
        };
        self.ties.tell.send_if_modified(|told| {
            let changed = !is_told(told);
            if changed {
                *told = AgentState { phase: *phase, assignment: assignment.cloned(), message: message.clone(), joined };
            }
            changed
        });
        let ready = *phase == Phase::Registered;
        let phase = if self.joined.is_some() { phase.as_str() } else { "" };
        let generation = assignment.map_or(0, |assignment| assignment.generation.0);
        let bound = assignment.and_then(|assignment| assignment.bound());
        let addresses = bound.map(|bound| &bound.addresses[..]).unwrap_or_default();
        let ports = || bound.into_iter().flat_map(|bound| &bound.ports);
        let is_shown = |face: &Face| {
            (face.phase.as_str(), face.generation, &face.addresses[..], &face.message) == (phase, generation, addresses, message)
                && face.ready == ready
                && face
                    .ports
                    .iter()
                    .map(|(name, port)| (name.as_str(), port))
                    .eq(ports().map(|(name, port)| (name.as_str(), port)))
        };
        self.face.send_if_modified(|face| {
            let changed = !is_shown(face);
            if changed {
                let ports = ports().map(|(name, port)| (name.to_string(), *port)).collect();
                let (phase, addresses, message) = (phase.to_owned(), addresses.to_vec(), message.clone());
                *face = Face { phase, generation, addresses, ports, message, ready, ..std::mem::take(face) };
            }
            changed
        });
    }
}
