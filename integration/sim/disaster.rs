//! What goes wrong in a world, and how often it had an effect.

use std::time::Duration;

use enlist::agent::AgentExit;
use enlist::agent::exit::Ending;
use enlist::store::api::{KeyRange, LeaseId, Op};
use enlist::store::keys::Role;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::process::{At, Grip};
use super::script::{Fault, Node, Who};
use super::setup::write;
use super::world::World;

/// Disasters that had an effect; those of single calls and watches are counted by [`enlist::store::memory::faults`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    pub(crate) pauses: u64,
    pub(crate) crashes: u64,
    pub(crate) expired: u64,
    pub(crate) deposed: u64,
    pub(crate) jumped_clocks: u64,
    pub(crate) restored: u64,
    pub(crate) raised: u64,
    pub(crate) emptied: u64,
    pub(crate) compacted: u64,
    pub(crate) elections: u64,
    pub(crate) store_cut: u64,
    pub(crate) calls_cut: u64,
    pub(crate) rivals: u64,
    pub(crate) bad_claims: u64,
    pub(crate) greedy_labels: u64,
    pub(crate) strangers: u64,
}

/// An agent is paused for less than the shortest cooldown of a pool that withdraws, and not again before it has settled:
/// that is what the promise of `withdraw` covers.
const AGENT_PAUSE_MAX: Duration = Duration::from_secs(4);
const AGENT_PAUSES_APART: Duration = Duration::from_secs(60);

impl World {
    pub(super) async fn fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Plan(plan) => self.faults.set_plan(plan.clone()),
            Fault::Cut(who) => self.grip(*who).iter().for_each(|grip| grip.cut(true)),
            Fault::Heal(who) => self.grip(*who).iter().for_each(|grip| grip.cut(false)),
            Fault::CutAnswers(who) => self.grip(*who).iter().for_each(Grip::cut_answers),
            Fault::CutCalls(who) => self.grip(*who).iter().for_each(|grip| {
                self.done.calls_cut += 1;
                grip.cut_calls();
            }),
            Fault::CutDestination => {
                self.done.store_cut += u64::from(!self.one_store);
                self.link_to_destination(true);
            }
            Fault::HealDestination => self.link_to_destination(false),
            Fault::BreakWatches => {
                self.source.etcd().break_watches();
                self.destination.etcd().break_watches();
            }
            Fault::Compact => {
                for etcd in [self.source.etcd(), self.destination.etcd()] {
                    // Twice in a row is refused, as by etcd.
                    self.done.compacted += u64::from(etcd.compact(etcd.revision()).is_ok());
                }
            }
            Fault::Elect => {
                self.done.elections += 1;
                self.source.etcd().elect();
                self.destination.etcd().elect();
            }
            Fault::Full(full) => {
                self.source.etcd().set_full(*full);
            }
            Fault::Depose(role) => self.depose(*role).await,
            Fault::Expire(share) => self.expire(*share).await,
            Fault::ExpireNode(node) => self.expire_node(*node).await,
            Fault::JumpClocks(seconds) => {
                let grips = self.agents.values().map(|agent| &agent.grip).chain(self.roles.values().map(|role| &role.grip));
                (1..).zip(grips).for_each(|(share, grip)| grip.clock.jump(*seconds / share));
            }
            Fault::Crash(who, at) => self.grip(*who).into_iter().for_each(|grip| grip.crash_at(*at)),
            Fault::Pause(who, at, lasts) => self.pause(*who, *at, *lasts),
            Fault::BackUp => {
                self.source.back_up();
                self.destination.back_up();
            }
            Fault::Restore { source, writes, raised } => {
                let store = if *source || self.one_store { &mut self.source } else { &mut self.destination };
                let is_older = store.restore(*raised);
                self.done.restored += u64::from(is_older);
                self.done.raised += u64::from(is_older && *raised);
                self.note_unproven();
                let store = if *source || self.one_store { &mut self.source } else { &mut self.destination };
                store.etcd().set_full(false);
                let client = store.etcd().store();
                for write_number in 0..*writes {
                    // Something else in the same store is written to: the revision passes what was seen before.
                    write(&client, Op::put("elsewhere", write_number.to_string())).await;
                }
            }
            Fault::Empty { source } => {
                self.done.emptied += 1;
                let store = if *source || self.one_store { &mut self.source } else { &mut self.destination };
                store.empty();
                store.etcd().set_full(false);
                // The operator applies his documents again.
                self.define_all(*source).await;
            }
        }
    }

    /// Nodes that are dead, wrote no last word, and are given something by the backup that was put in.
    fn note_unproven(&mut self) {
        let stored = self.source.etcd().at_revision(self.source.etcd().revision());
        let running = self.running();
        let is_given = |node: &Node| stored.contains_key(&World::prefix().key(format_args!("nodes/n{node}/assignment")));
        let is_dead = |node: &Node| !running.contains(node) && !self.machine(*node).ended_in_order();
        let unproven: Vec<Node> = (0..self.nodes()).filter(|node| is_dead(node) && is_given(node)).collect();
        self.unproven.extend(unproven);
    }

    fn grip(&self, who: Who) -> Option<Grip> {
        match who {
            Who::Node(node) => self.agents.get(&node).map(|process| process.grip.clone()),
            Who::Role(role, instance) => self.roles.get(&(role, instance)).map(|process| process.grip.clone()),
        }
    }

    /// The second cluster is out of everybody's reach.
    fn link_to_destination(&self, cut: bool) {
        if self.one_store {
            return;
        }
        for link in self.roles.values().filter_map(|process| process.grip.links.get(1)) {
            if cut { link.cut() } else { link.heal() }
        }
    }

    /// Somebody deletes the leader's key.
    async fn depose(&mut self, role: Role) {
        let store = if role == Role::Allocator { &self.source } else { &self.destination }.etcd().store();
        let leaders = store.read_all(World::prefix().leaders(role), None).await.unwrap().kvs;
        if let Some(leader) = leaders.into_iter().min_by_key(|kv| kv.create_revision) {
            self.done.deposed += 1;
            write(&store, Op::delete(leader.key)).await;
        }
    }

    /// The leases of a share of the nodes run out at once.
    async fn expire(&mut self, share: f64) {
        let store = self.source.etcd().store();
        let statuses = store.read_all(KeyRange::prefix("/enlist/nodes/"), None).await.unwrap().kvs;
        let mut leases: Vec<LeaseId> = statuses
            .iter()
            .filter(|kv| kv.key.as_str().is_some_and(|key| key.ends_with("/status")) && kv.lease != LeaseId::NONE)
            .map(|kv| kv.lease)
            .collect();
        leases.truncate((leases.len() as f64 * share).ceil() as usize);
        for lease in leases {
            self.done.expired += u64::from(store.revoke(lease).await.is_ok());
        }
    }

    /// The lease of this node's status runs out.
    async fn expire_node(&mut self, node: Node) {
        let store = self.source.etcd().store();
        let status = store.get(World::prefix().key(format_args!("nodes/n{node}/status"))).await.unwrap().1;
        if let Some(lease) = status.map(|kv| kv.lease).filter(|lease| *lease != LeaseId::NONE) {
            self.done.expired += u64::from(store.revoke(lease).await.is_ok());
        }
    }

    fn pause(&mut self, who: Who, at: At, lasts: Duration) {
        let Some(grip) = self.grip(who) else { return };
        let mut lasts = lasts;
        if let Who::Node(node) = who {
            // A pause of one is a pause of all that are in its process.
            let node = if self.is_together() { 0 } else { node };
            if self.paused_until.get(&node).is_some_and(|until| until.elapsed() < AGENT_PAUSES_APART) {
                return;
            }
            lasts = lasts.min(AGENT_PAUSE_MAX);
            // It begins with a call, which may be some seconds from now.
            self.paused_until.insert(node, Instant::now() + lasts);
        }
        self.done.pauses += 1;
        grip.pause_at(at, lasts);
    }

    /// What had an effect, when all is over.
    pub(crate) fn end_of_story(&mut self) -> Done {
        let nodes: Vec<Who> = self.agents.keys().map(|node| Who::Node(*node)).collect();
        let roles: Vec<Who> = self.roles.keys().map(|(role, instance)| Who::Role(*role, *instance)).collect();
        nodes.into_iter().chain(roles).for_each(|who| self.note_clock(who));
        self.done
    }

    /// Counts what only shows afterwards. Roles that crashed are started again by whoever supervises them; neither they nor
    /// agents end by themselves without a cause.
    pub(crate) async fn look_after(&mut self) {
        let crashed: Vec<_> = self.roles.iter().filter(|(_, process)| process.task.is_finished()).map(|(key, _)| *key).collect();
        for (role, instance) in crashed {
            self.done.crashes += 1;
            self.note_clock(Who::Role(role, instance));
            if let Some(process) = self.roles.remove(&(role, instance)) {
                match process.task.await {
                    Err(killed) if killed.is_cancelled() => {}
                    other => self.ended_without_cause.push(format!("{role} {instance} ended by itself: {other:?}")),
                }
            }
            self.start_role(role, instance);
        }
        let ended: Vec<Node> = self.agents.iter().filter(|(_, agent)| agent.task.is_finished()).map(|(node, _)| *node).collect();
        for node in ended {
            self.note_clock(Who::Node(node));
            if let Some(process) = self.agents.remove(&node) {
                self.judge(node, process.task.await);
            }
        }
    }

    /// Whether an agent may end so.
    pub(super) fn judge(&mut self, node: Node, exit: Result<AgentExit, JoinError>) {
        // A keep-alive of a dead process that is late, an election or a restore lets its lease live longer than anybody waits.
        let outlived = self.faults.counts().late + self.done.elections + self.done.restored > 0;
        let fine = match &exit {
            Ok(AgentExit { ending: Ending::Stopped | Ending::Left, .. }) => true,
            Ok(AgentExit { ending: Ending::Conflict(why), .. }) if outlived && why.contains("still has it after") => true,
            Ok(AgentExit { ending: Ending::Conflict(_) | Ending::Superseded(_), .. }) => self.contested.contains(&node),
            Ok(_) => false,
            Err(error) => error.is_cancelled(),
        };
        if !fine {
            self.ended_without_cause.push(format!("the agent of n{node} ended without a cause: {exit:?}"));
        }
    }

    fn note_clock(&mut self, who: Who) {
        self.done.jumped_clocks += self.grip(who).map_or(0, |grip| u64::from(grip.clock.seen() > 0));
    }
}
