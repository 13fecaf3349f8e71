//! `enlist leave [NODE…]`: a node goes for good, and what it had is released at once.
//!
//! Without a name it is this host's agent that is asked, over the socket in its state directory. With a name it is the
//! status that is written, which only a node that is away lets others do: a live one would write over it.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::args::{Common, FlagSettings};
use super::content::{self, Content};
use super::exit::{Exit, Fault};
use super::{output, site};
use crate::model::names::{BootId, InstanceId, NodeId, Revision, RunId};
use crate::model::status::{Phase, Status};
use crate::plan::snapshot::NodeRecord;
use crate::reconcile::Site;
use crate::store::api::{Compare, Op, Txn};
use crate::store::keys::{NodePart, Prefix};
use crate::store::wire::Stored as _;
use crate::telemetry;

/// Nodes that are away leave for good; without NODE the agent on this host is asked to
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which nodes; without any this host's agent
    #[arg(value_name = "NODE")]
    nodes: Vec<NodeId>,
    /// Also a node that is silent: it may only be cut off, and go on using what it has
    #[arg(long)]
    force: bool,
    /// The agent's state directory, without NODE [default: that of this host's id]
    #[arg(long, value_name = "DIR", conflicts_with = "nodes")]
    state_dir: Option<String>,
    /// The agent's id, if it is not this host's name
    #[arg(long, conflicts_with = "nodes")]
    id: Option<String>,
}

/// Does it.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let mut flags = FlagSettings::default();
    flags.value("--state-dir", "agent.state_dir", args.state_dir.as_deref());
    flags.value("--id", "agent.id", args.id.as_deref());
    let loaded = common.settings(flags)?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    if args.nodes.is_empty() {
        return super::ask::to_leave(&loaded).await;
    }
    let site = site::connect(loaded.source()?).await?;
    let mut leaving = Vec::new();
    for node in args.nodes.iter().collect::<BTreeSet<_>>() {
        leaving.extend(look(&site, node, args.force).await?);
    }
    for leaving in leaving {
        leaving.write(&site).await?;
    }
    Ok(Exit::Ok)
}

/// A node that is away, and the status that says that it left.
pub struct Leaving {
    node: NodeId,
    status: Status,
    seen: Vec<(NodePart, Revision)>,
}

/// What to do about a node that is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Write this status, if these parts are still as they were seen.
    Write(Status, Vec<(NodePart, Revision)>),
    /// It has left already.
    Already,
    /// There is no such node.
    Unknown,
    /// Not without `--force`.
    AskForForce,
    /// Its agent is there.
    Live(Option<Phase>),
}

/// Whether a node may be made to leave; `None` = it has left already, which is said.
///
/// # Errors
/// [`Fault::NotFound`], or [`Fault::Conflict`] when it is live, or silent without `force`.
pub async fn look(site: &Site, node: &NodeId, force: bool) -> anyhow::Result<Option<Leaving>> {
    let content = read_node(site, node).await?;
    let record = content.nodes().remove(node).unwrap_or_default();
    let conflict = |text: String| Err(Fault::Conflict(text).into());
    match decide(&record, force) {
        Decision::Unknown => Err(Fault::NotFound(format!("there is no node {node}")).into()),
        Decision::Already => {
            output::line(format_args!("node {node} has left"))?;
            Ok(None)
        }
        Decision::Live(phase) => {
            let phase = phase.map_or("of a format this enlist does not read", Phase::as_str);
            conflict(format!(
                "node {node} is live (its status is {phase}): stop its agent first, or use enlist leave on its host"
            ))
        }
        Decision::AskForForce => conflict(format!(
            "node {node} is silent: it may only be cut off, and still use what it has. If it is gone for good: --force"
        )),
        Decision::Write(status, seen) => Ok(Some(Leaving { node: node.clone(), status, seen })),
    }
}

impl Leaving {
    /// Writes `left`.
    ///
    /// # Errors
    /// [`Fault::Conflict`] when the node came back meanwhile.
    pub async fn write(&self, site: &Site) -> anyhow::Result<()> {
        let node = &self.node;
        let txn = transaction(&site.prefix, node, &self.status, &self.seen);
        let answer = site.store.txn(txn).await.with_context(|| format!("failed to write that {node} has left"))?;
        if !answer.succeeded {
            return Err(Fault::Conflict(format!("node {node} changed in the same moment: look again")).into());
        }
        output::line(format_args!("node {node} has left; what it had is released"))
    }
}

async fn read_node(site: &Site, node: &NodeId) -> anyhow::Result<Content> {
    content::read(site, &[&format!("nodes/{node}")]).await
}

fn decide(record: &NodeRecord, force: bool) -> Decision {
    let Some(status) = &record.status else {
        if record.is_empty() {
            return Decision::Unknown;
        }
        return if force { Decision::Write(status_of_absent(record), seen(record)) } else { Decision::AskForForce };
    };
    match &status.value {
        Err(_) => Decision::Live(None),
        Ok(status) if status.phase == Phase::Left => Decision::Already,
        // No agent keeps it: the node is as silent as one without a status.
        Ok(_) if record.is_unleased() && !force => Decision::AskForForce,
        Ok(status) if record.is_live() => Decision::Live(Some(status.phase)),
        Ok(status) => Decision::Write(Status { phase: Phase::Left, message: String::new(), ..status.clone() }, seen(record)),
    }
}

/// The status in the name of a node that wrote none: of the installation that the label, or else the assignment, names.
fn status_of_absent(record: &NodeRecord) -> Status {
    let label = record.label.as_ref().and_then(|label| label.ok());
    let assignment = record.assignment.as_ref().and_then(|assignment| assignment.ok());
    let instance = label.map(|label| &label.instance).or(assignment.map(|assignment| &assignment.instance)).cloned();
    Status {
        instance: instance.unwrap_or_else(unknown::<InstanceId>),
        boot: label.map_or_else(unknown::<BootId>, |label| label.boot.clone()),
        run: label.map_or_else(unknown::<RunId>, |label| label.run.clone()),
        phase: Phase::Left,
        generation: assignment.map_or(Revision::NONE, |assignment| assignment.generation),
        message: String::new(),
        refused: Vec::new(),
    }
}

/// A token for what nobody knows. It obeys the rule of tokens, so that the status stays readable.
fn unknown<T: std::str::FromStr>() -> T
where
    T::Err: std::fmt::Debug,
{
    #[expect(clippy::unwrap_used, reason = "the literal obeys the rule of every token")]
    "unknown".parse().unwrap()
}

fn seen(record: &NodeRecord) -> Vec<(NodePart, Revision)> {
    vec![
        (NodePart::Label, record.label.as_ref().map_or(Revision::NONE, |stored| stored.mod_revision)),
        (NodePart::Status, record.status.as_ref().map_or(Revision::NONE, |stored| stored.mod_revision)),
        (NodePart::Assignment, record.assignment.as_ref().map_or(Revision::NONE, |stored| stored.mod_revision)),
    ]
}

/// Race: the node may join again between our look and our word; then nothing is written.
fn transaction(prefix: &Prefix, node: &NodeId, status: &Status, seen: &[(NodePart, Revision)]) -> Txn {
    let compare = |(part, revision): &(NodePart, Revision)| Compare::Modified(prefix.node(node, *part), *revision);
    Txn {
        compares: seen.iter().map(compare).collect(),
        then: vec![Op::put(prefix.node(node, NodePart::Status), status.encode())],
        otherwise: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::plan::snapshot::{Stored, Unreadable};

    fn record(phase: Option<Phase>) -> NodeRecord {
        let status = phase.map(|phase| Stored {
            value: Ok(Status { phase, ..status_of_absent(&NodeRecord::default()) }),
            create_revision: Revision(5),
            mod_revision: Revision(7),
            leased: phase.is_live(),
        });
        let clock = Stored { value: Ok(()), create_revision: Revision(6), mod_revision: Revision(6), leased: true };
        NodeRecord { status, clock: Some(Box::new(clock)), ..NodeRecord::default() }
    }

    #[test]
    fn who_may_be_made_to_leave() {
        let is_written = |decision: Decision| matches!(decision, Decision::Write(Status { phase: Phase::Left, .. }, _));
        assert!(is_written(decide(&record(Some(Phase::Stopped)), false)));
        assert_eq!(decide(&record(None), false), Decision::AskForForce);
        assert!(is_written(decide(&record(None), true)));
        for live in [Phase::Joining, Phase::Registered, Phase::Failed, Phase::Draining] {
            assert_eq!(decide(&record(Some(live)), true), Decision::Live(Some(live)));
        }
        assert_eq!(decide(&record(Some(Phase::Left)), false), Decision::Already);
        // A status on a live phase that is on no lease is nobody's: the node is silent.
        let mut unleased = record(Some(Phase::Registered));
        unleased.status.as_mut().unwrap().leased = false;
        assert_eq!(decide(&unleased, false), Decision::AskForForce);
        assert!(is_written(decide(&unleased, true)));
        assert_eq!(decide(&NodeRecord::default(), true), Decision::Unknown);
    }

    #[test]
    fn an_unreadable_status_counts_as_live() {
        let mut record = record(Some(Phase::Stopped));
        record.status.as_mut().unwrap().value = Err(Unreadable::Newer(2));
        assert_eq!(decide(&record, true), Decision::Live(None));
    }

    #[test]
    fn a_node_that_comes_back_meanwhile_wins() {
        let node: NodeId = "edge-7".parse().unwrap();
        let Decision::Write(status, seen) = decide(&record(Some(Phase::Stopped)), false) else { panic!("not written") };
        let txn = transaction(&Prefix::default(), &node, &status, &seen);
        let expected = |part, revision| Compare::Modified(Prefix::default().node(&node, part), Revision(revision));
        assert_eq!(
            txn.compares,
            [expected(NodePart::Label, 0), expected(NodePart::Status, 7), expected(NodePart::Assignment, 0)]
        );
    }
}
