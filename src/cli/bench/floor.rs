//! The floor: what etcd itself can do. A fixed sequence of writes, blind, one phase after another, by a client that watches
//! nothing and decides nothing. It is frozen: the pipeline is measured against it, so changing it is not how to get faster.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::time::Instant;

use super::nodes::{LEASE_TTL_S, Values, values};
use super::numbers::rate;
use super::progress::Bar;
use crate::model::group::Member;
use crate::model::group::MemberState;
use crate::model::names::Revision;
use crate::store::api::{Compare, LeaseId, Op, OpResult, Store, Txn};
use crate::store::keys::{NodePart, Prefix};
use crate::store::wire::Stored;

/// Requests under way in the phases of single nodes.
pub(super) const IN_FLIGHT: usize = 256;
/// Requests under way in the phases of batches.
pub(super) const BATCHES_IN_FLIGHT: usize = 4;
/// Nested transactions in one.
pub(super) const NESTED: usize = 64;
/// Flat puts in one transaction.
pub(super) const FLAT: usize = 120;

/// Nodes per second of each phase, and of all of them one after another.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// ① The grant of a lease of its own.
    pub grant: f64,
    /// ② Label and status.
    pub join: f64,
    /// ③ Claims and assignment.
    pub allocate: f64,
    /// ④ The acknowledgement.
    pub acknowledge: f64,
    /// ⑤ Copies and a group's member.
    pub copies: f64,
    /// All.
    pub whole: f64,
    /// All but the grants.
    pub without_grants: f64,
}

/// The writes of one node.
pub(super) struct Writes {
    pub store: Store,
    pub prefix: Prefix,
}

struct Run<'a> {
    writes: Writes,
    nodes: Vec<Values>,
    bar: &'a Bar,
}

/// Writes it, and says how fast that was.
///
/// # Errors
/// When etcd refuses a write, or a compare that must hold does not.
pub async fn floor(store: &Store, prefix: &Prefix, nodes: usize, bar: &Bar) -> anyhow::Result<Floor> {
    let nodes = (0..nodes).map(values).collect::<anyhow::Result<Vec<_>>>()?;
    let run = Run { writes: Writes { store: store.clone(), prefix: prefix.clone() }, nodes, bar };
    let (leases, grant) = timed(run.grant()).await?;
    let (joined, join) = timed(run.join(&leases)).await?;
    let (_, allocate) = timed(run.allocate(&joined)).await?;
    let (_, acknowledge) = timed(run.acknowledge(&leases, &joined)).await?;
    let (_, copies) = timed(run.copies()).await?;
    let count = run.nodes.len();
    let rest = join + allocate + acknowledge + copies;
    Ok(Floor {
        grant: rate(count, grant),
        join: rate(count, join),
        allocate: rate(count, allocate),
        acknowledge: rate(count, acknowledge),
        copies: rate(count, copies),
        whole: rate(count, grant + rest),
        without_grants: rate(count, rest),
    })
}

async fn timed<T>(phase: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Duration)> {
    let began = Instant::now();
    let done = phase.await?;
    Ok((done, began.elapsed()))
}

impl Writes {
    pub async fn grant(&self) -> anyhow::Result<LeaseId> {
        Ok(self.store.grant(LEASE_TTL_S).await.context("failed to grant a lease")?.0)
    }

    pub fn join(&self, node: &Values, lease: LeaseId) -> Txn {
        let key = |part| self.prefix.node(&node.id, part);
        Txn {
            compares: vec![
                Compare::Modified(key(NodePart::Label), Revision::NONE),
                Compare::Modified(key(NodePart::Status), Revision::NONE),
            ],
            then: vec![
                Op::put(key(NodePart::Label), node.label.encode()),
                Op::Put { key: key(NodePart::Status), value: node.joining.encode(), lease },
                Op::get(key(NodePart::Assignment)),
            ],
            otherwise: Vec::new(),
        }
    }

    /// For a node that joined at this revision.
    pub fn allocation(&self, node: &Values, joined: Revision) -> Txn {
        let key = |part| self.prefix.node(&node.id, part);
        let (address, port) = (self.prefix.claim(&node.address), self.prefix.claim(&node.port));
        Txn {
            compares: vec![
                Compare::Modified(key(NodePart::Label), joined),
                Compare::Created(key(NodePart::Status), joined),
                Compare::Modified(key(NodePart::Assignment), Revision::NONE),
                Compare::Modified(address.clone(), Revision::NONE),
                Compare::Empty(self.prefix.claims_under(&node.address.domain, node.address.ip)),
            ],
            then: vec![
                Op::put(address, node.claim.encode()),
                Op::put(port, node.claim.encode()),
                Op::put(key(NodePart::Assignment), node.assignment.encode()),
            ],
            otherwise: Vec::new(),
        }
    }

    pub fn acknowledgement(&self, node: &Values, lease: LeaseId, joined: Revision) -> Txn {
        let key = self.prefix.node(&node.id, NodePart::Status);
        Txn {
            compares: vec![Compare::Modified(key.clone(), joined)],
            then: vec![Op::Put { key, value: node.registered.encode(), lease }],
            otherwise: Vec::new(),
        }
    }

    /// The member's key, and all copies but the second one of the status.
    pub fn first_copies(&self, node: &Values) -> [Op; 4] {
        let copy = |part, value| Op::put(self.prefix.copy(&node.id, part), value);
        let member = Member {
            node: node.id.clone(),
            addresses: vec![node.address.ip],
            ports: node.assignment.bound().map(|bound| bound.ports.clone()).unwrap_or_default(),
            state: MemberState::Ready,
            published: true,
        };
        [
            copy(NodePart::Label, node.label.encode()),
            copy(NodePart::Status, node.joining.encode()),
            copy(NodePart::Assignment, node.assignment.encode()),
            Op::put(self.prefix.member("all", &node.id), member.encode()),
        ]
    }

    /// In a later request than the first one: a key may be written once in each.
    pub fn second_copy(&self, node: &Values) -> Op {
        Op::put(self.prefix.copy(&node.id, NodePart::Status), node.registered.encode())
    }

    pub async fn write(&self, txn: Txn) -> anyhow::Result<Revision> {
        let answer = self.store.txn(txn).await.context("failed to write the floor")?;
        let nested = answer.results.iter().all(|result| match result {
            OpResult::Txn(nested) => nested.succeeded,
            _ => true,
        });
        ensure!(answer.succeeded && nested, "the floor needs a prefix of its own: something is there already");
        Ok(answer.header.revision)
    }
}

impl Run<'_> {
    async fn grant(&self) -> anyhow::Result<Vec<LeaseId>> {
        let grants = stream::iter(0..self.nodes.len()).map(async |_| {
            let lease = self.writes.grant().await?;
            self.bar.add(1);
            anyhow::Ok(lease)
        });
        grants.buffered(IN_FLIGHT).try_collect().await
    }

    /// Answers the revision of each join: the later phases compare it.
    async fn join(&self, leases: &[LeaseId]) -> anyhow::Result<Vec<Revision>> {
        let pairs = self.nodes.iter().zip(leases);
        let joins = stream::iter(pairs).map(async |(node, lease)| self.write(self.writes.join(node, *lease), 1).await);
        joins.buffered(IN_FLIGHT).try_collect().await
    }

    async fn allocate(&self, joined: &[Revision]) -> anyhow::Result<()> {
        let pairs: Vec<_> = self.nodes.iter().zip(joined).collect();
        let batches = stream::iter(pairs.chunks(NESTED)).map(async |batch| {
            let then = batch.iter().map(|(node, joined)| Op::Txn(self.writes.allocation(node, **joined))).collect();
            self.write(Txn { then, ..Txn::default() }, batch.len()).await.map(drop)
        });
        batches.buffered(BATCHES_IN_FLIGHT).try_collect().await
    }

    async fn acknowledge(&self, leases: &[LeaseId], joined: &[Revision]) -> anyhow::Result<()> {
        let nodes = self.nodes.iter().zip(leases.iter().zip(joined));
        let acknowledgements = stream::iter(nodes).map(async |(node, (lease, joined))| {
            self.write(self.writes.acknowledgement(node, *lease, *joined), 1).await.map(drop)
        });
        acknowledgements.buffered(IN_FLIGHT).try_collect().await
    }

    /// Five puts a node.
    async fn copies(&self) -> anyhow::Result<()> {
        let first: Vec<Op> = self.nodes.iter().flat_map(|node| self.writes.first_copies(node)).collect();
        let second: Vec<Op> = self.nodes.iter().map(|node| self.writes.second_copy(node)).collect();
        let told = AtomicUsize::new(0);
        let batches = stream::iter(first.chunks(FLAT).chain(second.chunks(FLAT))).map(async |batch| {
            self.write(Txn { then: batch.to_vec(), ..Txn::default() }, 0).await?;
            let before = told.fetch_add(batch.len(), Relaxed);
            self.bar.add((before + batch.len()) / 5 - before / 5);
            anyhow::Ok(())
        });
        batches.buffered(BATCHES_IN_FLIGHT).try_collect().await
    }

    async fn write(&self, txn: Txn, nodes: usize) -> anyhow::Result<Revision> {
        let revision = self.writes.write(txn).await?;
        self.bar.add(nodes);
        Ok(revision)
    }
}
