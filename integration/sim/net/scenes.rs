//! Scenes in which one member, or the way to it, goes wrong, and nobody may be disturbed: two others are there. No lease ends, no
//! role loses its lead, and a node that joins meanwhile is served while the trouble lasts.

use std::time::Duration;

use enlist::store::api::Event;
use enlist::store::keys::{NodePart, ParsedKey};
use tokio::time::Instant;

use super::log::Log;
use super::network::LinkFault;
use super::script::{Fault, MEMBERS, ROLE_HOSTS, Script, Step, Who};
use super::world::World;
use super::{checker, simulate, watched};
use crate::sim::world::World as Memory;

/// Who is there before.
const NODES: usize = 3;
/// Who joins meanwhile: as many as members, since each begins with one of them by chance.
const JOINERS: usize = 3;
/// How long the trouble lasts.
const LASTS: Duration = Duration::from_secs(20);
/// Who joins has told so within this: half a call's time at a member that says nothing, and a moment at the next one.
const JOINED: Duration = Duration::from_millis(4_500);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);

/// Within which time all is in order again, while the trouble lasts.
#[derive(Clone, Copy)]
struct Served(Duration);

/// A connection that is closed is made anew at another member, and so is one whose token was refused.
const SOON: Served = Served(Duration::from_secs(4));
/// A member without a leader ends its streams after three election time-outs; a connection over which nothing comes is given up
/// after 13 s at the latest.
const LATER: Served = Served(Duration::from_secs(15));

/// How long it takes until all is quiet; an error says what is not, after `limit`.
async fn quiet(world: &mut World, limit: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    loop {
        watched(world, LOOK).await?;
        world.look_after().await;
        let unrest = checker::unrest(&world.sight());
        if unrest.is_empty() {
            return Ok(began.elapsed());
        }
        if began.elapsed() > limit {
            return Err(format!("no quiet within {limit:?}: {}", unrest.join("; ")));
        }
    }
}

/// Waits until those who join have told so.
async fn joined(world: &mut World) -> Result<Duration, String> {
    let (began, etcd) = (Instant::now(), world.source.etcd().clone());
    let status = |node| Memory::prefix().key(format_args!("nodes/n{node}/status"));
    loop {
        let stored = etcd.at_revision(etcd.revision());
        let late = (NODES..NODES + JOINERS).find(|node| !stored.contains_key(&status(*node)));
        match late {
            None => return Ok(began.elapsed()),
            Some(node) if began.elapsed() > JOINED => return Err(format!("n{node} has not joined within {JOINED:?}")),
            Some(_) => watched(world, LOOK).await?,
        }
    }
}

/// The story that each of them is.
async fn story(world: &mut World, faults: &[Fault], Served(served): Served, log: &Log) -> Result<(), String> {
    for node in 0..NODES {
        world.step(&Step::Join(node)).await;
    }
    quiet(world, Duration::from_secs(20)).await?;
    // Later, all leads and watches have settled.
    watched(world, Duration::from_secs(5)).await?;
    let before = world.source.etcd().revision();
    for fault in faults {
        log.line(format_args!("{fault:?}"));
        world.fault(fault, LASTS);
    }
    watched(world, Duration::from_secs(1)).await?;
    for node in NODES..NODES + JOINERS {
        world.step(&Step::Join(node)).await;
    }
    let joined = joined(world).await?;
    let served = joined + quiet(world, served.saturating_sub(joined)).await?;
    log.line(format_args!("joined after {joined:?}, served after {served:?}"));
    world.calm().await;
    quiet(world, Duration::from_secs(20)).await?;
    let events = world.source.etcd().history_from(before.next()).into_values().flatten();
    let deleted: Vec<String> = events.filter_map(ended).collect();
    if deleted.is_empty() { Ok(()) } else { Err(format!("somebody was disturbed: {} ended", deleted.join(", "))) }
}

/// A key that goes only when a lease ends.
fn ended(event: Event) -> Option<String> {
    let Event::Delete { key, .. } = event else { return None };
    match Memory::prefix().parse(&key) {
        ParsedKey::Node(_, NodePart::Status) | ParsedKey::Leader(..) => Some(key.to_string()),
        _ => None,
    }
}

/// The same on the way of every client to one member.
fn links(member: usize, fault: LinkFault) -> Vec<Fault> {
    let who = (0..NODES + JOINERS).map(Who::Node).chain((0..ROLE_HOSTS).map(Who::Roles));
    who.map(|who| Fault::Link { who, member: Some(member), fault }).collect()
}

/// Plays it with each member; `faults` says what happens to one.
fn scene(name: &str, auth: bool, served: Served, faults: fn(usize) -> Vec<Fault>) {
    for member in 0..MEMBERS {
        // One seed: whoever uses a certain member, one of the plays hits it.
        let seed = 1;
        let script = Script { nodes: NODES + JOINERS, two_stores: false, auth, steps: Vec::new() };
        let faults = faults(member);
        let played =
            simulate(seed, script, async move |world, _, log| story(world, &faults, served, log).await.map(|()| Duration::ZERO));
        if let Err(why) = played {
            panic!("scene {name}, seed {seed}: with member {member}: {why}");
        }
    }
}

/// The leader stands still while a wiped member is there, and others join.
async fn wiped(world: &mut World, member: usize, log: &Log) -> Result<(), String> {
    for node in 0..NODES {
        world.step(&Step::Join(node)).await;
    }
    quiet(world, Duration::from_secs(20)).await?;
    let source = world.clusters[0].clone();
    world.fault(&Fault::Wipe { member }, Duration::from_secs(1));
    watched(world, Duration::from_secs(3)).await?;
    let leader = source.leader().ok_or("there is no leader")?;
    let alone = source.alone(member).ok_or("nobody was wiped")?;
    let before = alone.revision();
    world.fault(&Fault::Pause { member: leader }, Duration::from_secs(8));
    watched(world, Duration::from_secs(1)).await?;
    for node in NODES..NODES + JOINERS {
        world.step(&Step::Join(node)).await;
    }
    world.calm().await;
    let served = quiet(world, Duration::from_secs(60)).await?;
    log.line(format_args!("served after {served:?}"));
    if alone.revision() == before { Ok(()) } else { Err("the wiped member was written to".to_owned()) }
}

#[test]
fn a_wiped_member_takes_nobody_along() {
    for member in 0..MEMBERS {
        let script = Script { nodes: NODES + JOINERS, two_stores: false, auth: false, steps: Vec::new() };
        let played = simulate(1, script, async move |world, _, log| wiped(world, member, log).await.map(|()| Duration::ZERO));
        if let Err(why) = played {
            panic!("scene a wiped member, seed 1: with member {member}: {why}");
        }
    }
}

#[test]
fn a_member_crashes() {
    scene("a member crashes", false, SOON, |member| vec![Fault::Crash { member, silently: false }]);
}

#[test]
fn a_member_loses_its_power() {
    scene("a member loses its power", false, LATER, |member| vec![Fault::Crash { member, silently: true }]);
}

#[test]
fn a_member_stands_still() {
    scene("a member stands still", false, LATER, |member| vec![Fault::Pause { member }]);
}

#[test]
fn a_member_is_cut_off_from_the_others() {
    scene("a member is cut off from the others", false, LATER, |member| vec![Fault::Isolate { member }]);
}

#[test]
fn the_way_to_a_member_is_cut() {
    scene("the way to a member is cut", false, LATER, |member| links(member, LinkFault::Cut));
}

#[test]
fn the_way_from_a_member_is_cut() {
    scene("the way from a member is cut", false, LATER, |member| links(member, LinkFault::Deaf));
}

#[test]
fn only_the_way_to_a_member_is_cut() {
    scene("only the way to a member is cut", false, LATER, |member| links(member, LinkFault::Mute));
}

#[test]
fn everything_to_and_from_a_member_is_late() {
    scene("everything to and from a member is late", false, LATER, |member| links(member, LinkFault::Held));
}

#[test]
fn tokens_run_out() {
    scene("tokens run out", true, SOON, |_| vec![Fault::ForgetTokens]);
}

#[test]
fn users_change() {
    scene("users change", true, SOON, |_| vec![Fault::ChangeUsers]);
}
