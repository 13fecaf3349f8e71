//! A picture that is kept up, change by change, says and decides what one made anew does. And whoever the index does not
//! name needs nothing.

use proptest::prelude::*;

use super::random::{Op, execute, lab, name, op};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::model::hold::{Hold, HoldState};
use crate::model::label::Holding;
use crate::model::names::{NodeId, Revision};
use crate::plan::allocate::serve::serve;
use crate::plan::away::is_due;
use crate::plan::change::Plan;
use crate::plan::index::Index;
use crate::plan::picture::Picture;
use crate::plan::plan;
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored, Unreadable};
use crate::plan::taken::Taken;
use crate::plan::testing::apply::apply_change;
use crate::plan::testing::lab::Lab;
use crate::plan::world::World;

/// What nobody of ours writes: hands, restores, other programs.
#[derive(Debug, Clone, Copy)]
enum Harm {
    SpoilLabel,
    SpoilStatus,
    /// It is copied, or put by hand.
    UnleaseStatus,
    SpoilAssignment,
    DropAssignment,
    SpoilClaim,
    DropClaim,
    /// A claim is bound to a node that does not list it.
    Grab,
    Stray,
    DropStray,
    StaleHold,
    Hold,
    /// It is away, or left, and the clock of an extended hold runs.
    Extend,
    /// What cannot be read of a node is deleted.
    Mend,
}

#[derive(Debug, Clone)]
enum Event {
    Told(Op),
    Harm(Harm, usize),
}

fn event() -> impl Strategy<Value = Event> {
    use Harm::*;
    let harm = prop::sample::select(vec![
        SpoilLabel,
        SpoilStatus,
        UnleaseStatus,
        SpoilAssignment,
        DropAssignment,
        SpoilClaim,
        DropClaim,
        Grab,
        Stray,
        DropStray,
        StaleHold,
        Hold,
        Extend,
        Mend,
    ]);
    prop_oneof![6 => op().prop_map(Event::Told), 1 => (harm, 0..7usize).prop_map(|(harm, n)| Event::Harm(harm, n))]
}

fn spoil<T>(stored: Option<&mut Stored<T>>) {
    if let Some(stored) = stored {
        stored.value = Err(Unreadable::Invalid("spoilt".into()));
    }
}

fn harm(lab: &mut Lab, harm: Harm, n: usize) {
    let snapshot = &mut lab.snapshot;
    snapshot.revision = snapshot.revision.next();
    let now = snapshot.revision;
    let node: NodeId = name(n).parse().unwrap();
    let claim = snapshot.claims.keys().nth(n % snapshot.claims.len().max(1)).cloned();
    let address = ClaimKey { domain: "default".parse().unwrap(), ip: format!("10.0.0.{n}").parse().unwrap(), port: None };
    let bound = Claim { node: node.clone(), pool: "eu".parse().unwrap(), state: ClaimState::Bound };
    let stored = Stored { value: Ok(bound), create_revision: now, mod_revision: now, leased: false };
    let record = snapshot.nodes.get_mut(&node);
    match harm {
        Harm::SpoilLabel => spoil(record.and_then(|record| record.label.as_mut())),
        Harm::SpoilStatus => spoil(record.and_then(|record| record.status.as_mut())),
        Harm::UnleaseStatus => drop(record.and_then(|record| record.status.as_mut()).map(|status| status.leased = false)),
        Harm::SpoilAssignment => spoil(record.and_then(|record| record.assignment.as_mut())),
        Harm::DropAssignment => drop(record.map(|record| record.assignment = None)),
        Harm::SpoilClaim => spoil(claim.and_then(|key| snapshot.claims.get_mut(&key))),
        Harm::DropClaim => drop(claim.map(|key| snapshot.claims.remove(&key))),
        Harm::Grab => drop(snapshot.claims.insert(claim.filter(|_| n.is_multiple_of(2)).unwrap_or(address), stored)),
        Harm::Stray => drop(snapshot.strays.insert(format!("claims/default/10.0.0.{n}/x"), address)),
        Harm::DropStray => drop(snapshot.strays.pop_first()),
        Harm::StaleHold => {
            if let Some(record) = record.filter(|record| record.is_live()) {
                let clock = Stored { value: Ok(()), create_revision: now, mod_revision: now, leased: n.is_multiple_of(2) };
                record.clock = Some(Box::new(clock));
                let hold = Hold { state: HoldState::Held, extended: false, seconds: 60, since: String::new() };
                record.hold = n
                    .is_multiple_of(3)
                    .then(|| Box::new(Stored { value: Ok(hold), create_revision: now, mod_revision: now, leased: false }));
            }
        }
        Harm::Hold => {
            let old = record.as_ref().and_then(|record| record.assignment.as_ref()?.ok()).and_then(|old| old.bound().cloned());
            let label = record.and_then(|record| record.label.as_mut()?.value.as_mut().ok());
            if let (Some(label), Some(bound)) = (label, old) {
                let generation = Revision(now.0 - 1);
                label.holding =
                    Some(Box::new(Holding { generation, addresses: bound.addresses, ports: bound.ports, mark: None }));
            }
        }
        Harm::Extend => {
            if let Some(record) = record.filter(|record| record.assignment.is_some()) {
                record.status.take_if(|status| status.ok().is_none_or(|status| status.phase.is_live()));
                let hold = Hold { state: HoldState::Held, extended: true, seconds: 3_600, since: String::new() };
                record.hold = Some(Box::new(Stored { value: Ok(hold), create_revision: now, mod_revision: now, leased: false }));
                record.clock = Some(Box::new(Stored { value: Ok(()), create_revision: now, mod_revision: now, leased: true }));
            }
        }
        Harm::Mend => {
            if let Some(record) = record {
                record.label.take_if(|label| label.value.is_err());
                record.status.take_if(|status| status.value.is_err());
                record.assignment.take_if(|assignment| assignment.value.is_err());
            }
        }
    }
    snapshot.nodes.retain(|_, record| !record.is_empty());
}

/// Whether all of a node can be read: what the stories tell needs that.
fn is_whole(lab: &Lab, n: usize) -> bool {
    lab.snapshot.nodes.get(&name(n).parse::<NodeId>().unwrap()).is_none_or(|record| {
        record.label.as_ref().is_none_or(|label| label.value.is_ok())
            && record.status.as_ref().is_none_or(|status| status.value.is_ok())
            && record.assignment.as_ref().is_none_or(|assignment| assignment.value.is_ok())
    })
}

/// Applies what still holds of a plan.
fn apply(snapshot: &mut Snapshot, plan: &Plan) {
    for change in &plan.changes {
        let _ = apply_change(snapshot, change);
    }
}

/// Brings a picture up to a snapshot with the calls that a view makes. `claims_first`: an event of claims may come before
/// or after that of the assignment that lists them.
fn catch_up(picture: &mut Picture, snapshot: &Snapshot, claims_first: bool) {
    picture.set_revision(snapshot.revision);
    picture.set_brake_released(snapshot.brake_released);
    if claims_first {
        catch_up_claims(picture, snapshot);
    }
    let before = picture.snapshot().clone();
    for name in before.pools.keys().filter(|name| !snapshot.pools.contains_key(*name)) {
        picture.set_pool(name.clone(), None);
    }
    for (name, stored) in &snapshot.pools {
        picture.set_pool(name.clone(), Some(stored.clone()));
    }
    let nothing = NodeRecord::default();
    for node in before.nodes.keys().chain(snapshot.nodes.keys()) {
        let (old, new) = (before.nodes.get(node).unwrap_or(&nothing), snapshot.nodes.get(node).unwrap_or(&nothing));
        if old.assignment != new.assignment {
            picture.set_assignment(node, new.assignment.clone());
        }
        picture.change_node(node, |record| *record = NodeRecord { assignment: record.assignment.clone(), ..new.clone() });
    }
    if !claims_first {
        catch_up_claims(picture, snapshot);
    }
    let strays: Vec<String> =
        picture.snapshot().strays.keys().filter(|key| !snapshot.strays.contains_key(*key)).cloned().collect();
    strays.into_iter().for_each(|key| picture.set_stray(key, None));
    for (key, address) in &snapshot.strays {
        picture.set_stray(key.clone(), Some(address.clone()));
    }
}

fn catch_up_claims(picture: &mut Picture, snapshot: &Snapshot) {
    let gone: Vec<ClaimKey> =
        picture.snapshot().claims.keys().filter(|key| !snapshot.claims.contains_key(*key)).cloned().collect();
    gone.into_iter().for_each(|key| picture.set_claim(key, None));
    for (key, stored) in &snapshot.claims {
        if picture.snapshot().claims.get(key) != Some(stored) {
            picture.set_claim(key.clone(), Some(stored.clone()));
        }
    }
}

/// Serves everybody whom the index does not name.
fn others_need_nothing(lab: &Lab) {
    let index = Index::of(&lab.snapshot);
    let world = World::new(&lab.snapshot, &index, &lab.pass);
    let waved_through: Vec<_> = index.extended_before(lab.snapshot.brake_released).collect();
    for (node, record) in lab.snapshot.nodes.iter().filter(|(_, record)| !record.is_live()) {
        let is_named = index.absent().contains(node) || waved_through.contains(&node);
        assert!(is_named || !is_due(&world, node, record), "{node} is away and not named, and there is something to do for it");
    }
    if world.pools.any_moves() {
        return;
    }
    let mut taken = Taken::of(&lab.snapshot);
    taken.begin(&index);
    for (node, record) in lab.snapshot.nodes.iter().filter(|(node, record)| record.is_live() && !index.due().contains(*node)) {
        assert_eq!(serve(&world, &mut taken, node, record), None, "{node} is not named and needs something");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_picture_that_is_kept_up_decides_what_one_made_anew_does(
        events in proptest::collection::vec((event(), any::<bool>()), 1..60),
    ) {
        let mut lab = lab();
        let mut picture = Picture::of(lab.snapshot.clone());
        let mut late = Vec::new();
        for (event, claims_first) in &events {
            let before = lab.snapshot.clone();
            match event {
                Event::Told(Op::Pass) => apply(&mut lab.snapshot, &plan(&before, &lab.pass)),
                Event::Told(Op::PlanForLater) => late.push(plan(&before, &lab.pass)),
                Event::Told(Op::Late) => late.pop().iter().for_each(|plan| apply(&mut lab.snapshot, plan)),
                Event::Told(op) if op.node().is_none_or(|n| is_whole(&lab, n)) => execute(&mut lab, op),
                Event::Told(_) => {}
                Event::Harm(kind, n) => harm(&mut lab, *kind, *n),
            }
            lab.snapshot = crate::plan::sound(&lab.snapshot).into_owned();
            catch_up(&mut picture, &lab.snapshot, *claims_first);
            prop_assert_eq!(picture.index(), &Index::of(&lab.snapshot));
            prop_assert_eq!(picture.plan(&lab.pass), plan(&lab.snapshot, &lab.pass));
            others_need_nothing(&lab);
        }
    }
}
