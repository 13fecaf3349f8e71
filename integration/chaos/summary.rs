//! What a run did and what was found: a table for people, JSON for machines.

use std::collections::BTreeMap;

use serde::Serialize;

use super::prove::Proof;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) seed: u64,
    pub(crate) etcd: String,
    pub(crate) minutes: f64,
    pub(crate) agents: usize,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) story: BTreeMap<&'static str, u64>,
    pub(crate) connections: u64,
    pub(crate) recorder_reopened: u64,
    pub(crate) recorder_holes: u64,
    /// Until nothing was left to do, after the last fault was over.
    pub(crate) quiet_after_ms: u64,
    #[serde(flatten)]
    pub(crate) proof: Proof,
}

impl Summary {
    /// Whether all is as it must be: nothing found, nothing missed, and something to find it in.
    pub(crate) fn is_good(&self) -> bool {
        let holes = self.recorder_holes + self.proof.holes;
        holes == 0 && self.proof.findings.is_empty() && self.proof.registrations > 0 && self.proof.relay_states > 0
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "chaos: etcd {}, seed {}, {:.1} minutes of faults, {} agents",
            self.etcd, self.seed, self.minutes, self.agents
        )];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<34} {value:>10}"));
        for (kind, count) in &self.faults {
            row(&format!("fault: {kind}"), count.to_string());
        }
        row("faults", self.faults.values().sum::<u64>().to_string());
        for (what, count) in &self.story {
            row(&format!("story: {what}"), count.to_string());
        }
        let proof = &self.proof;
        row("registrations", proof.registrations.to_string());
        row("lines of agents that know of one", proof.written_down_by_agents.to_string());
        row("uses in a pool that withdraws", proof.uses_that_withdraw.to_string());
        row("releases", proof.releases.to_string());
        row("revisions checked, source", proof.source_revisions.to_string());
        row("revisions checked, destination", proof.destination_revisions.to_string());
        row("relay states checked", proof.relay_states.to_string());
        row("longest time without progress", format!("{:.1} s", proof.longest_without_progress_ms as f64 / 1e3));
        row("quiet after the last fault", format!("{:.1} s", self.quiet_after_ms as f64 / 1e3));
        row("holes", (self.recorder_holes + proof.holes).to_string());
        row("findings", proof.findings.len().to_string());
        lines.extend(proof.findings.iter().map(|finding| format!("  ! {finding}")));
        lines.join("\n")
    }
}
