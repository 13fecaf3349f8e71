//! The sample nodes: each has other variables, the real agent, and a command that listens.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::AgentSettings;
use crate::model::names::NodeId;

/// The zones and roles that the nodes take in turn.
const ZONES: [&str; 3] = ["eu-1", "eu-2", "edge"];
const ROLES: [&str; 4] = ["web", "web", "db", "train"];

/// The settings of the n-th sample node, counted from 0.
///
/// # Errors
/// When an id or a variable is not valid, which only a change of this file can cause.
pub(super) fn sample(n: u16, state_dir: impl FnOnce(&str) -> PathBuf, program: OsString) -> anyhow::Result<AgentSettings> {
    let id: NodeId = format!("sample-{}", n + 1).parse()?;
    let pick = |list: &[&'static str], turn: usize| list.get(turn % list.len()).copied().unwrap_or_default();
    let turn = usize::from(n);
    let role = pick(&ROLES, turn / ZONES.len() + turn % ZONES.len());
    let mut settings = AgentSettings::new(id.clone());
    settings.variables.insert("zone", pick(&ZONES, turn))?;
    settings.variables.insert("role", role)?;
    settings.variables.insert("gpu", &(turn % 3).to_string())?;
    settings.description = "a sample node of enlist dev".into();
    settings.ports = vec!["http".parse()?];
    if role == "db" {
        settings.ports.push("metrics".parse()?);
    }
    settings.state_dir = Some(state_dir(id.as_str()));
    settings.command = vec![program, "sample-service".into()];
    settings.stop_timeout = Duration::from_secs(2);
    // The nodes of a killed demonstration should soon count as lost.
    settings.lease_ttl = Duration::from_secs(10);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::dev::SAMPLE;
    use crate::model::documents::{Document, parse};

    #[test]
    fn eight_nodes_use_every_pool_and_every_group() {
        let nodes: Vec<AgentSettings> = (0..8).map(|n| sample(n, |id| PathBuf::from(id), "enlist".into()).unwrap()).collect();
        let ids: BTreeSet<_> = nodes.iter().map(|node| node.id.clone()).collect();
        assert_eq!(ids.len(), 8);
        for document in parse("sample.yaml", SAMPLE).unwrap() {
            let selector = match &document {
                Document::Pool(pool) => &pool.selector,
                Document::Group(group) => &group.selector,
            };
            let matching = nodes.iter().filter(|node| selector.matches(&node.variables)).count();
            assert!(matching > 0, "{} {}", document.kind(), document.name());
        }
    }
}
