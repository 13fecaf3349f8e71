//! Prints the progress of nodes line by line: joining → assigned → registered. Pure: a record in, lines out.

use std::collections::BTreeMap;

use crate::cli::show::{joined, pairs};
use crate::model::assignment::{Answer, Assignment};
use crate::model::names::{NodeId, Revision};
use crate::model::status::Phase;
use crate::plan::snapshot::NodeRecord;

/// The printed progress of each node.
#[derive(Debug, Default)]
pub(super) struct Story {
    told: BTreeMap<NodeId, Told>,
}

/// The printed progress of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    joined: bool,
    /// The last printed answer: its generation, and whether it was bound.
    answer: Option<(Revision, bool)>,
    registered: Revision,
    phase: Option<Phase>,
    message: String,
}

impl Story {
    /// The new lines of a node. Steps that passed between two calls are printed too: they did happen.
    pub(super) fn tell(&mut self, node: &NodeId, record: &NodeRecord) -> Vec<String> {
        let told = self.told.entry(node.clone()).or_default();
        let mut lines = Vec::new();
        let mut say = |word: &str, text: String| lines.push(format!("{node:<10} {word:<11} {text}").trim_end().to_owned());
        let label = record.label.as_ref().and_then(|label| label.ok());
        let status = record.status.as_ref().and_then(|status| status.ok());
        let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
        if let Some(label) = label.filter(|_| !told.joined) {
            told.joined = true;
            // The facts of the host are the same for all nodes here.
            say("joining", pairs(label.variables.iter().filter(|(name, _)| !name.starts_with("host/"))));
        }
        if let Some(assignment) = assignment {
            let answer = (assignment.generation, assignment.bound().is_some());
            if told.answer != Some(answer) {
                told.answer = Some(answer);
                let (word, text) = answered(assignment);
                say(word, text);
            }
        }
        let Some(status) = status else { return lines };
        let is_new = told.phase != Some(status.phase) || told.message != status.message;
        (told.phase, told.message) = (Some(status.phase), status.message.clone());
        match status.phase {
            Phase::Registered if told.registered != status.generation => {
                told.registered = status.generation;
                say("registered", format!("generation {}", status.generation));
            }
            Phase::Failed if is_new => say("failed", status.message.clone()),
            Phase::Draining | Phase::Stopped | Phase::Left if is_new => say(status.phase.as_str(), String::new()),
            _ => {}
        }
        lines
    }
}

fn answered(assignment: &Assignment) -> (&'static str, String) {
    match &assignment.answer {
        Answer::Bound(bound) => {
            let ports = pairs(&bound.ports);
            ("assigned", format!("{} {ports} from pool {}", joined(&bound.addresses), bound.terms.pool))
        }
        Answer::Waiting(waiting) => ("waiting", format!("{} ({})", waiting.message, waiting.reason)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::plan::snapshot::Stored;

    fn stored<T: crate::store::wire::Stored>(json: &str) -> Option<Stored<T>> {
        let value = Ok(T::decode(json.as_bytes()).unwrap());
        Some(Stored { value, create_revision: Revision(1), mod_revision: Revision(1), leased: false })
    }

    #[test]
    fn every_step_is_printed_once() {
        let node: NodeId = "sample-1".parse().unwrap();
        let mut story = Story::default();
        let mut record = NodeRecord {
            label: stored(
                r#"{"v":1,"id":"sample-1","instance":"i","boot":"b","run":"r","temporary":{"ip":"::1","port":1},"variables":{"zone":"eu-1","host/arch":"x"}}"#,
            ),
            status: stored(r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"joining"}"#),
            ..NodeRecord::default()
        };
        assert_eq!(story.tell(&node, &record), ["sample-1   joining     zone=eu-1"]);
        assert!(story.tell(&node, &record).is_empty());
        record.assignment = stored(
            r#"{"v":1,"node":"sample-1","instance":"i","state":"bound","pool":"eu-1","domain":"default","sharing":"exclusive","addresses":["127.20.0.9"],"ports":{"http":30001},"generation":7,"asked":"0000000000000000","hold_s":1,"cooldown_s":1,"on_isolation":"keep","leaving":[]}"#,
        );
        record.status = stored(r#"{"v":1,"instance":"i","boot":"b","run":"r","phase":"registered","generation":7}"#);
        let expected = ["sample-1   assigned    127.20.0.9 http=30001 from pool eu-1", "sample-1   registered  generation 7"];
        assert_eq!(story.tell(&node, &record), expected);
        assert!(story.tell(&node, &record).is_empty());
    }
}
