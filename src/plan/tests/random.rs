//! Random stories. After every single change, on time or late, nothing is wrong; passes come to rest; what fits stays.

use proptest::prelude::*;

use crate::model::label::{Holding, Label, Want};
use crate::model::names::NodeId;
use crate::model::pool::{AtOnce, OnMismatch, Sharing};
use crate::model::status::Phase;
use crate::plan::allocate::asker::address_key;
use crate::plan::change::{Action, Change, Plan, Write};
use crate::plan::check::check;
use crate::plan::index::Index;
use crate::plan::pools::Pools;
use crate::plan::snapshot::Snapshot;
use crate::plan::testing::apply::apply_change;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

const NODES: usize = 7;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Join(usize, usize),
    Relabel(usize, usize),
    Acknowledge(usize),
    Refuse(usize, usize),
    Drain(usize),
    Stop(usize),
    Leave(usize),
    Die(usize),
    DeleteLabel(usize),
    ClockEnds(usize),
    CoolingsEnd,
    CoolingEnds(usize),
    EditPool(usize, usize),
    ReleaseBrake,
    /// A pass whose changes are applied now.
    Pass,
    /// A pass whose changes are applied when `Late` comes.
    PlanForLater,
    Late,
}

impl Op {
    /// The node that it is about.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Op::Join(n, _) | Op::Relabel(n, _) | Op::Refuse(n, _) => Some(*n),
            Op::Acknowledge(n) | Op::Drain(n) | Op::Stop(n) | Op::Leave(n) | Op::Die(n) => Some(*n),
            Op::DeleteLabel(n) | Op::ClockEnds(n) => Some(*n),
            _ => None,
        }
    }
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let node = 0..NODES;
    prop_oneof![
        6 => (node.clone(), 0..VARIANTS).prop_map(|(n, v)| Op::Join(n, v)),
        3 => (node.clone(), 0..VARIANTS).prop_map(|(n, v)| Op::Relabel(n, v)),
        5 => node.clone().prop_map(Op::Acknowledge),
        2 => (node.clone(), 0..3usize).prop_map(|(n, i)| Op::Refuse(n, i)),
        1 => node.clone().prop_map(Op::Drain),
        1 => node.clone().prop_map(Op::Stop),
        1 => node.clone().prop_map(Op::Leave),
        3 => node.clone().prop_map(Op::Die),
        1 => node.clone().prop_map(Op::DeleteLabel),
        4 => node.clone().prop_map(Op::ClockEnds),
        1 => Just(Op::CoolingsEnd),
        3 => (0..4usize).prop_map(Op::CoolingEnds),
        2 => (0..4usize, 0..8usize).prop_map(|(p, e)| Op::EditPool(p, e)),
        1 => Just(Op::ReleaseBrake),
        12 => Just(Op::Pass),
        3 => Just(Op::PlanForLater),
        3 => Just(Op::Late),
    ]
}

const VARIANTS: usize = 8;
const POOLS: [&str; 4] = ["dual", "eu", "own", "sh"];

pub(super) fn name(n: usize) -> String {
    format!("node-{n}")
}

fn variant(n: usize, variant: usize) -> Label {
    let node = name(n);
    let ports = |ports: &[&str]| label_with_ports(&node, ports);
    match variant {
        0 => ports(&["main"]),
        1 => ports(&["http", "metrics"]),
        2 => ports(&[]),
        3 => ports(&["http"]),
        4 => label_wanting(&node, "10.0.0.3"),
        5 => Label { want: Want { addresses: Vec::new(), ports: [("main".parse().unwrap(), 30001)].into() }, ..ports(&["main"]) },
        6 => Label { ephemeral: true, ..ports(&["main"]) },
        _ => Label { instance: "other".parse().unwrap(), temporary: "192.0.2.2:4000".parse().unwrap(), ..ports(&["main"]) },
    }
}

pub(super) fn lab() -> Lab {
    let mut lab = Lab::new([
        crate::model::pool::Pool { priority: 2, ports: "30000-30002".parse().unwrap(), ..pool("eu", &["10.0.0.0/29"]) },
        crate::model::pool::Pool { priority: 1, on_mismatch: OnMismatch::Move, ..pool("dual", &["10.0.0.4/30", "fd00::/126"]) },
        shared("sh", &["10.1.0.0/31", "fd01::1/128"], "30000-30002"),
        host("own", &[], "30000-30001"),
    ]);
    lab.pass.release_budget = 1;
    lab
}

/// Executes an operation if it makes sense now.
pub(super) fn execute(lab: &mut Lab, op: &Op) {
    let live = |lab: &Lab, n: usize| {
        let record = lab.snapshot.nodes.get(&id(&name(n)));
        record.is_some_and(|record| record.is_live() && record.label.is_some())
    };
    match op {
        Op::Join(n, v) => lab.join(variant(*n, *v)),
        Op::Relabel(n, v) if live(lab, *n) => lab.relabel(Label { instance: instance(lab, *n), ..variant(*n, *v) }),
        Op::Acknowledge(n) if live(lab, *n) && !lab.has_no_answer(&name(*n)) => lab.acknowledge(&name(*n)),
        Op::Refuse(n, at) if live(lab, *n) => refuse(lab, *n, *at),
        Op::Drain(n) if live(lab, *n) => lab.status(&name(*n), |status| status.phase = Phase::Draining),
        Op::Stop(n) if live(lab, *n) => lab.stop(&name(*n)),
        Op::Leave(n) if live(lab, *n) => lab.leave(&name(*n)),
        Op::Die(n) if live(lab, *n) => lab.die(&name(*n)),
        Op::DeleteLabel(n) if live(lab, *n) => lab.edit(&name(*n), |record, _| record.label = None),
        Op::ClockEnds(n) => {
            let record = lab.snapshot.nodes.get(&id(&name(*n)));
            if record.is_some_and(|record| record.clock.is_some()) {
                lab.clock_ends(&name(*n));
            }
        }
        Op::CoolingsEnd => lab.all_coolings_end(),
        Op::CoolingEnds(at) => {
            let cooling = lab.snapshot.claims.iter().filter(|(_, stored)| stored.leased).map(|(key, _)| key.clone());
            if let Some(key) = cooling.clone().nth(*at % cooling.count().max(1)) {
                lab.snapshot.revision = lab.snapshot.revision.next();
                lab.snapshot.claims.remove(&key);
            }
        }
        Op::EditPool(pool, edit) => edit_pool(lab, POOLS[*pool], *edit),
        Op::ReleaseBrake => lab.release_brake(),
        _ => {}
    }
}

fn instance(lab: &Lab, n: usize) -> crate::model::names::InstanceId {
    lab.record(&name(n)).label.as_ref().unwrap().ok().unwrap().instance.clone()
}

fn refuse(lab: &mut Lab, n: usize, at: usize) {
    if lab.has_no_answer(&name(n)) {
        return;
    }
    let bound = lab.assignment(&name(n)).bound().cloned();
    let port = bound.as_ref().and_then(|bound| bound.ports.values().nth(at).copied());
    if let (Some(bound), Some(port)) = (bound, port) {
        lab.refuse(&name(n), &bound.addresses[0].to_string(), port);
    }
}

fn edit_pool(lab: &mut Lab, pool: &str, edit: usize) {
    let there = lab.snapshot.pools.contains_key(&pool.parse().unwrap());
    match edit {
        0 if there => lab.delete_pool(pool),
        1 if !there => {
            let fresh = self::lab().snapshot.pools[&pool.parse().unwrap()].value.clone().unwrap();
            lab.put_pool(fresh);
        }
        2 if there => lab.edit_pool(pool, |pool| {
            pool.selector = if pool.selector.to_string().is_empty() { "never".parse().unwrap() } else { "".parse().unwrap() };
        }),
        3 if there => lab.edit_pool(pool, |pool| {
            pool.exclude = if pool.exclude.is_empty() { vec!["10.0.0.2/31".parse().unwrap()] } else { Vec::new() };
        }),
        4 if there && pool != "own" => lab.edit_pool(pool, |pool| {
            pool.reserve = [(id("node-1"), vec!["10.0.0.5".parse().unwrap()])].into();
        }),
        5 if there => lab.edit_pool(pool, |pool| {
            pool.on_mismatch = match pool.on_mismatch {
                OnMismatch::Keep => OnMismatch::Move,
                OnMismatch::Move => OnMismatch::Keep,
            };
        }),
        // Frozen while it has assignments, invalid while it overlaps: neither may ever mix the two kinds.
        7 if there && pool != "own" => lab.edit_pool(pool, |pool| {
            pool.sharing = match pool.sharing {
                Sharing::Exclusive => Sharing::Shared,
                _ => Sharing::Exclusive,
            };
        }),
        6 if there => lab.edit_pool(pool, |pool| {
            pool.cooldown = std::time::Duration::ZERO;
            pool.move_at_once = AtOnce::Count(1);
        }),
        _ => {}
    }
}

/// Applies a plan change by change; late ones may lose, on-time ones must not. Nothing may be wrong at any revision.
fn apply_checked(lab: &mut Lab, plan: &Plan, is_late: bool) {
    for change in &plan.changes {
        let before = lab.snapshot.clone();
        match apply_change(&mut lab.snapshot, change) {
            Ok(()) => check_change(&before, &lab.snapshot, change),
            Err(compare) => assert!(is_late, "{compare:?} does not hold on its own snapshot: {change:#?}"),
        }
        let findings = check(&lab.snapshot);
        assert!(findings.is_empty(), "{findings:#?}\nafter {change:#?}");
    }
}

/// What no change may do, however late it comes.
fn check_change(before: &Snapshot, after: &Snapshot, change: &Change) {
    let record = before.nodes.get(&change.node).cloned().unwrap_or_default();
    match change.action {
        Action::HoldSeen | Action::HoldStart | Action::HoldExtend | Action::Release | Action::Forget => {
            assert!(!record.is_live(), "a live node loses something: {change:#?}");
        }
        Action::Assign | Action::Refresh | Action::Move | Action::Wait => {
            // It may have stopped meanwhile (its status is the same key): then it is held like any other.
            assert!(record.status.is_some() && record.label.is_some(), "an answer to a node that is away: {change:#?}");
            let assignment = after.nodes[&change.node].assignment.as_ref().unwrap().ok().unwrap();
            assert!(assignment.leaving.len() <= 2);
            assert!(assignment.asked.answers(record.label.as_ref().unwrap().ok().unwrap()), "{change:#?}");
            if let Some(old) = record.assignment.as_ref().and_then(|stored| stored.ok()) {
                let same = old.answer_without_terms() == assignment.answer_without_terms();
                assert_eq!(old.generation == assignment.generation, same, "{change:#?}");
                assert!(old.generation <= assignment.generation);
            }
        }
        Action::Settle | Action::Repair | Action::Void => {}
    }
    for write in &change.writes {
        if let Write::Bind(key, claim) = write
            && let Some(stored) = before.claims.get(key)
        {
            assert_eq!(stored.ok().unwrap().node, claim.node, "a cooling claim of another is taken: {change:#?}");
        }
    }
}

/// Addresses and ports.
type Given = (Vec<std::net::IpAddr>, Vec<(String, u16)>);

impl crate::model::assignment::Assignment {
    fn answer_without_terms(&self) -> Option<Given> {
        let bound = self.bound()?;
        let ports = bound.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect();
        Some((bound.addresses.clone(), ports))
    }
}

/// Passes until nothing is left to do.
fn rest(lab: &mut Lab) {
    for _ in 0..12 {
        let plan = lab.plan();
        if plan.changes.is_empty() {
            return;
        }
        apply_checked(lab, &plan, false);
    }
    panic!("passes do not come to rest: {:#?}", lab.plan().changes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_wrong_at_any_revision_and_passes_come_to_rest(ops in proptest::collection::vec(op(), 1..60)) {
        let mut lab = lab();
        let mut late: Vec<Plan> = Vec::new();
        for op in &ops {
            match op {
                Op::Pass => {
                    let plan = lab.plan();
                    prop_assert_eq!(&plan, &lab.plan());
                    apply_checked(&mut lab, &plan, false);
                }
                Op::PlanForLater => late.push(lab.plan()),
                Op::Late if !late.is_empty() => {
                    let plan = late.remove(0);
                    apply_checked(&mut lab, &plan, true);
                }
                op => execute(&mut lab, op),
            }
        }
        rest(&mut lab);
        for plan in late {
            apply_checked(&mut lab, &plan, true);
        }
        rest(&mut lab);
    }

    #[test]
    fn what_fits_stays_while_its_node_is_alive_or_held(ops in proptest::collection::vec(op(), 1..60)) {
        let mut lab = lab();
        for op in &ops {
            // Whatever others do, and whatever a pass does: a node that is left alone keeps what it has.
            let touched = match op {
                Op::Join(n, _) | Op::Relabel(n, _) | Op::Refuse(n, _) | Op::Leave(n) | Op::ClockEnds(n) => Some(id(&name(*n))),
                _ => None,
            };
            let before: Vec<(NodeId, _)> = lab.snapshot.nodes.iter()
                .filter_map(|(node, record)| {
                    let assignment = record.assignment.as_ref()?.ok()?.clone();
                    // One whose label asks for something else by now may get it at any time.
                    let asks_else = record.label.as_ref().is_some_and(|label| !assignment.asked.answers(label.ok().unwrap()));
                    (!asks_else).then_some((node.clone(), assignment))
                })
                .filter(|_| !matches!(op, Op::ReleaseBrake))
                .filter(|(node, assignment)| Some(node) != touched.as_ref() && assignment.bound().is_some())
                .collect();
            execute(&mut lab, op);
            // Pools that move are left out, and so are ports that somebody refuses.
            let moves = lab.snapshot.pools.values().any(|pool| pool.ok().unwrap().on_mismatch == OnMismatch::Move && matches!(op, Op::EditPool(..)));
            rest(&mut lab);
            for (node, assignment) in before {
                let now = lab.snapshot.nodes.get(&node).and_then(|record| record.assignment.as_ref());
                let now = now.and_then(|stored| stored.ok()).and_then(|now| now.answer_without_terms());
                let was_move = lab.snapshot.pools.get(&assignment.bound().unwrap().terms.pool)
                    .is_some_and(|pool| pool.ok().unwrap().on_mismatch == OnMismatch::Move);
                if !moves && !was_move {
                    prop_assert_eq!(now, assignment.answer_without_terms(), "{} moved after {:?}", node, op);
                }
            }
        }
    }

    #[test]
    fn after_a_restore_every_live_node_gets_back_what_it_holds(
        before in proptest::collection::vec(op(), 1..40),
        between in proptest::collection::vec(op(), 1..40),
        order in proptest::collection::vec(0..NODES, 0..20),
        ghosts_last in any::<bool>(),
    ) {
        let mut lab = lab();
        before.iter().for_each(|op| if matches!(op, Op::Pass) { rest(&mut lab) } else { execute(&mut lab, op) });
        rest(&mut lab);
        let backup = lab.snapshot.clone();
        between.iter().for_each(|op| if matches!(op, Op::Pass) { rest(&mut lab) } else { execute(&mut lab, op) });
        rest(&mut lab);
        // What live, bound nodes use now. Pools are put back as they are: the operator applies them again.
        let using: Vec<(NodeId, Label, crate::model::assignment::Assignment)> = lab.snapshot.nodes.iter()
            .filter(|(_, record)| record.is_live() && record.status.as_ref().unwrap().ok().unwrap().phase != Phase::Draining)
            .filter_map(|(node, record)| {
                let label = record.label.as_ref()?.ok()?.clone();
                let assignment = record.assignment.as_ref()?.ok()?.clone();
                assignment.bound()?;
                (assignment.asked.answers(&label)).then_some((node.clone(), label, assignment))
            })
            .collect();
        let pools = std::mem::replace(&mut lab.snapshot, backup).pools;
        lab.snapshot.pools = pools;
        let allowed: Vec<bool> = using.iter().map(|(node, _, used)| is_allowed(&lab.snapshot, node, used)).collect();
        lab.pass.held_only = true;
        // Nobody but those is there any more; some ghosts' statuses are still in the store for a while.
        let is_used = |node: &NodeId| using.iter().any(|(user, ..)| user == node);
        let silence = |lab: &mut Lab| {
            for record in lab.snapshot.nodes.iter_mut().filter(|(node, _)| !is_used(node)).map(|(_, record)| record) {
                record.status = None;
            }
        };
        if !ghosts_last {
            silence(&mut lab);
        }
        let back = |lab: &mut Lab, (node, label, used): &(NodeId, Label, crate::model::assignment::Assignment)| {
            let now = lab.snapshot.nodes.get(node).and_then(|record| record.assignment.as_ref()).and_then(|stored| stored.ok());
            let bound = used.bound().unwrap();
            let is_same = now.is_some_and(|now| now == used);
            let is_newer = now.is_some_and(|now| now.generation > used.generation);
            prop_assume!(!is_newer);
            let holding = (!is_same).then(|| Box::new(Holding { generation: used.generation, addresses: bound.addresses.clone(), ports: bound.ports.clone(), mark: None }));
            let label = Label { holding: holding.or_else(|| label.holding.clone()), ..label.clone() };
            lab.join(label);
            Ok(())
        };
        for at in order {
            if let Some(user) = using.get(at % using.len().max(1)) {
                let already = lab.snapshot.nodes.get(&user.0).and_then(|r| r.label.as_ref()).and_then(|l| l.ok()).is_some_and(|l| l.holding.is_some());
                if !already { back(&mut lab, user)?; }
            }
            rest_only(&mut lab);
        }
        for user in &using {
            let already = lab.snapshot.nodes.get(&user.0).and_then(|r| r.label.as_ref()).and_then(|l| l.ok()).is_some_and(|l| l.holding.is_some());
            if !already { back(&mut lab, user)?; }
        }
        rest_only(&mut lab);
        silence(&mut lab);
        rest_only(&mut lab);
        // What cools out of a pool that is not there any more cools to its end.
        lab.all_coolings_end();
        rest_only(&mut lab);
        for ((node, _, used), allowed) in using.iter().zip(allowed) {
            if allowed && is_allowed(&lab.snapshot, node, used) {
                let now = lab.snapshot.nodes[node].assignment.as_ref().and_then(|stored| stored.ok());
                let now = now.and_then(|now| now.answer_without_terms());
                prop_assert_eq!(now, used.answer_without_terms(), "{} got something else back", node);
            }
        }
        lab.pass.held_only = false;
        rest(&mut lab);
    }
}

/// Whether the pools' rules of today would give a node what it has.
fn is_allowed(snapshot: &Snapshot, node: &NodeId, used: &crate::model::assignment::Assignment) -> bool {
    let index = Index::of(snapshot);
    let pools = Pools::new(snapshot, &index);
    let bound = used.bound().unwrap();
    let Some(view) = pools.get(&bound.terms.pool) else { return false };
    let families = if bound.terms.sharing == Sharing::Host { 1 } else { view.families().count() };
    view.fault.is_none()
        && view.pool.sharing == bound.terms.sharing
        && view.pool.selector.to_string().is_empty()
        && bound.addresses.len() == families
        && bound.ports.values().all(|port| view.pool.ports.contains(*port))
        // An address that cools the other way (its pool was of the other kind) must cool to its end.
        && !bound.addresses.iter().any(|ip| {
            let is_whole = snapshot.claims.contains_key(&address_key(&bound.terms.domain, ip));
            let has_ports = snapshot.claims.keys().any(|key| key.ip == *ip && key.port.is_some());
            if bound.terms.sharing == Sharing::Exclusive { has_ports && !is_whole } else { is_whole }
        })
        && bound.addresses.iter().all(|ip| {
            view.gives(ip) && pools.reserved_for(&view.pool.domain, ip).is_none_or(|owner| owner == node)
        })
}

/// Passes to rest, restored or not: `Void` and the releases of silent owners are allowed then.
fn rest_only(lab: &mut Lab) {
    for _ in 0..20 {
        let plan = lab.plan();
        if plan.changes.is_empty() {
            return;
        }
        for change in &plan.changes {
            let mut next = lab.snapshot.clone();
            apply_change(&mut next, change).unwrap_or_else(|compare| panic!("{compare:?} does not hold: {change:#?}"));
            lab.snapshot = next;
            let findings = check(&lab.snapshot);
            assert!(findings.is_empty(), "{findings:#?}\nafter {change:#?}");
        }
    }
    panic!("passes do not come to rest: {:#?}", lab.plan().changes);
}
