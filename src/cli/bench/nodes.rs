//! The nodes of a bench: the same for the floor and for the real agents, so that both write the same bytes.

use crate::agent::AgentSettings;
use crate::model::asked::Asked;
use crate::model::assignment::{Answer, Assignment, Bound, Terms};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::label::{Label, Want};
use crate::model::names::{InstanceId, NodeId, PoolName, Revision};
use crate::model::pool::{OnIsolation, Sharing};
use crate::model::status::{Phase, Status};
use crate::model::variables::Variables;

/// The pool of all of them: one address and one port each, room for 262,000.
pub const POOL: &str = "{kind: Pool, name: bench, cidrs: [10.0.0.0/14], ports: 30000-32767, hold: 10m, cooldown: 60s}";
/// The group that all of them are in.
pub const GROUP: &str = "{kind: Group, name: all, selector: role=web, port: main}";
/// The lease of each, as in the floor: renewing it is not what is measured.
pub const LEASE_TTL_S: u64 = 600;

const ZONES: [&str; 3] = ["eu-1", "eu-2", "us-1"];

/// The n-th node's id.
///
/// # Errors
/// None for numbers that exist.
pub fn id(n: usize) -> anyhow::Result<NodeId> {
    Ok(format!("node-{n:06}").parse()?)
}

/// The number in a node's id, or in a key that ends with it.
pub fn number_of(key: &[u8]) -> Option<usize> {
    let digits = key.get(key.len().checked_sub(6)?..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An installation's name as real agents make it: 36 characters.
pub fn token(kind: &str, n: usize) -> String {
    format!("{n:08x}-{kind:0>4.4}-4000-8000-{n:012x}")
}

fn variables(n: usize) -> anyhow::Result<Variables> {
    let mut variables = Variables::default();
    variables.insert("zone", ZONES.get(n % ZONES.len()).copied().unwrap_or_default())?;
    variables.insert("role", "web")?;
    variables.insert("gpu", &(n % 4).to_string())?;
    Ok(variables)
}

/// What the n-th agent is told.
///
/// # Errors
/// When a name is not valid, which only a change of this file can do.
pub fn settings(n: usize) -> anyhow::Result<AgentSettings> {
    let mut settings = AgentSettings::new(id(n)?);
    settings.variables = variables(n)?;
    settings.description = "video cache".into();
    settings.annotations = [("serial".to_owned(), format!("{n:012}"))].into();
    settings.lease_ttl = std::time::Duration::from_secs(LEASE_TTL_S);
    settings.no_host_facts = true;
    Ok(settings)
}

/// Everything that is written for one node, with the values that the real protocol would write.
pub struct Values {
    pub id: NodeId,
    pub label: Label,
    pub joining: Status,
    pub registered: Status,
    pub assignment: Assignment,
    pub claim: Claim,
    pub address: ClaimKey,
    pub port: ClaimKey,
}

/// Of the n-th node.
///
/// # Errors
/// When a name is not valid, which only a change of this file can do.
pub fn values(n: usize) -> anyhow::Result<Values> {
    let settings = settings(n)?;
    let instance: InstanceId = token("1", n).parse()?;
    let label = Label {
        id: settings.id.clone(),
        instance: instance.clone(),
        boot: token("2", 1).parse()?,
        run: token("3", n).parse()?,
        temporary: std::net::SocketAddr::from(([127, 0, 0, 1], 49_311)),
        variables: settings.variables,
        description: settings.description,
        since: "2026-01-01T00:00:00Z".into(),
        ports: settings.ports.clone(),
        want: Want::default(),
        holding: None,
        ephemeral: false,
        annotations: settings.annotations,
    };
    let joining = Status {
        instance: instance.clone(),
        boot: label.boot.clone(),
        run: label.run.clone(),
        phase: Phase::Joining,
        generation: Revision::NONE,
        message: String::new(),
        refused: Vec::new(),
    };
    let ip = std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0001 + u32::try_from(n).unwrap_or(0)));
    let pool: PoolName = "bench".parse()?;
    let terms = Terms {
        pool: pool.clone(),
        domain: "default".parse()?,
        sharing: Sharing::Exclusive,
        hold_s: 600,
        cooldown_s: 60,
        on_isolation: OnIsolation::Keep,
    };
    let generation = Revision(1_000 + i64::try_from(n).unwrap_or(0));
    let address = ClaimKey { domain: terms.domain.clone(), ip, port: None };
    let port = ClaimKey { port: Some(30_000), ..address.clone() };
    let bound = Bound { terms, addresses: vec![ip], ports: settings.ports.into_iter().map(|name| (name, 30_000)).collect() };
    Ok(Values {
        assignment: Assignment {
            node: label.id.clone(),
            instance,
            generation,
            asked: Asked::of(&label, Sharing::Exclusive),
            answer: Answer::Bound(bound),
            leaving: Vec::new(),
            mark: None,
        },
        claim: Claim { node: label.id.clone(), pool, state: ClaimState::Bound },
        address,
        port,
        registered: Status { phase: Phase::Registered, generation, ..joining.clone() },
        joining,
        id: label.id.clone(),
        label,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_number_is_found_in_a_key() {
        assert_eq!(number_of(b"/enlist/nodes/node-000042"), Some(42));
        assert_eq!(number_of(b"/e"), None);
        assert_eq!(number_of(id(70_000).unwrap().as_str().as_bytes()), Some(70_000));
        assert_eq!(token("1", 7).len(), 36);
    }
}
