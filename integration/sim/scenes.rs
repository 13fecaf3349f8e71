//! Scenes in which only one thing goes wrong, and everybody goes on with what he has: no child is stopped, nobody moves. The
//! random scripts cannot ask for that much, because there too much goes wrong at once.

use std::collections::BTreeMap;
use std::time::Duration;

use enlist::agent::decide::applied::Given;
use enlist::store::api::Op;
use enlist::store::keys::Role;
use tokio::time::Instant;

use super::script::{Fault, Node, Step, Who};
use super::setup::write;
use super::world::World;
use super::{QUIET_MAX, checker, number};
use crate::history::steps::Allowed;

const SEEDS: u64 = 40;
/// With nothing going wrong, everybody has what he asks for within this.
const SOON: Duration = Duration::from_secs(60);

type Uses = BTreeMap<Node, Given>;

/// Who runs and has something. Whoever waits may be served at any time.
fn uses(world: &World) -> Uses {
    world.running().into_iter().filter_map(|node| Some((node, world.machine(node).uses()?))).collect()
}

/// Addresses and ports: the generation and the pool may change over a restore.
fn places(uses: &Uses) -> BTreeMap<Node, String> {
    uses.iter().map(|(node, given)| (*node, given.summary())).collect()
}

async fn settled(world: &mut World, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let mut quiet_for = 0;
    while quiet_for < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.look_after().await;
        let unrest = checker::unrest(&world.sight());
        quiet_for = if unrest.is_empty() { quiet_for + 1 } else { 0 };
        if Instant::now() > deadline {
            return Err(format!("no quiet after {limit:?}: {}", unrest.join("; ")));
        }
    }
    Ok(())
}

/// What was wrong since the journals were emptied: who was disturbed, who uses something else.
fn disturbed(world: &World, before: &Uses) -> Result<(), String> {
    let ended = world.ended_without_cause.first().cloned().or_else(|| world.used_twice());
    if let Some(ended) = ended {
        return Err(ended);
    }
    let mut after = uses(world);
    after.retain(|node, _| before.contains_key(node));
    if places(&after) != places(before) {
        return Err(format!("used {:?}, uses {:?}", places(before), places(&after)));
    }
    for node in after.into_keys() {
        let journal = world.machine(node).journal();
        if !journal.is_empty() {
            return Err(format!("n{node} was disturbed: {journal:?}"));
        }
    }
    Ok(())
}

async fn steps(world: &mut World, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        world.step(&step).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Plays a scene with many seeds.
fn play<F: AsyncFn(&mut World, &mut fastrand::Rng) -> Result<(), String>>(name: &str, scene: F) {
    let seeds = number("SIM_SEED").map_or(1..=SEEDS, |seed| seed..=seed);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let result = runtime.block_on(async {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut world = World::new(seed, 6, seed.is_multiple_of(2), false).await;
            steps(&mut world, (0..5).map(Step::Join)).await;
            settled(&mut world, SOON).await?;
            let played = scene(&mut world, &mut rng).await;
            if number("SIM_TRACE").is_some() {
                super::timeline::tell(&world.source.eras());
            }
            played.and(checker::history(&world.source, world.destination(), Allowed::default()))
        });
        if let Err(why) = result {
            panic!("scene {name}, seed {seed}: {why}");
        }
    }
}

/// Race 67. Since the backup some have changed places, one has left, one is new; and some restores are of an empty store.
#[test]
fn a_store_that_forgot_costs_nobody_anything() {
    play("the store forgot", async |world, rng| {
        world.step(&Step::Fault(Fault::BackUp)).await;
        let pools = ["a", "s", "w", "h"];
        for _ in 0..3 {
            let node = rng.usize(..5);
            // It leaves first: who merely says something else keeps an address that its new pool would not give it back.
            let change = Step::Change { node, pool: pools[rng.usize(..4)], ports: rng.usize(..2) };
            steps(world, [Step::Leave(node), change]).await;
        }
        steps(world, [Step::Leave(rng.usize(..5)), Step::Join(5)]).await;
        settled(world, SOON).await?;
        let before = uses(world);
        before.keys().for_each(|node| drop(world.machine(*node).journal()));
        let disaster = match rng.u8(..3) {
            0 => Fault::Empty { source: true },
            _ => Fault::Restore { source: true, writes: rng.usize(..3) * 40, raised: rng.bool() },
        };
        world.step(&Step::Fault(disaster)).await;
        // The operator's word that what is gone from the source may go at the destination.
        world.calm().await;
        settled(world, QUIET_MAX).await?;
        disturbed(world, &before)
    });
}

/// Since the backup some have registered; the restore raises the revisions above everything that was seen, and leaves no past to be
/// asked. One of them cannot say yet what it uses, and a newcomer asks for an address at once.
#[test]
fn a_restore_with_raised_revisions_takes_nothing_from_anybody() {
    play("revisions raised", async |world, rng| {
        let pool = ["a", "s", "w", "h"][rng.usize(..4)];
        steps(world, [Step::Leave(3), Step::Leave(4)]).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        settled(world, SOON).await?;
        steps(world, [Step::Fault(Fault::BackUp)]).await;
        let ask = |node| Step::Change { node, pool, ports: 0 };
        steps(world, [ask(3), ask(4)]).await;
        settled(world, SOON).await?;
        let before = uses(world);
        before.keys().for_each(|node| drop(world.machine(*node).journal()));
        let cut = rng.bool();
        if cut {
            steps(world, [Step::Fault(Fault::Cut(Who::Node(4)))]).await;
        }
        let restore = Fault::Restore { source: true, writes: rng.usize(..2) * 60, raised: true };
        steps(world, [Step::Fault(restore), Step::Change { node: 5, pool, ports: 0 }]).await;
        tokio::time::sleep(Duration::from_secs(rng.u64(1..10))).await;
        world.calm().await;
        settled(world, QUIET_MAX).await?;
        disturbed(world, &before)
    });
}

/// Race 70. With nobody there to answer, agents that start again use what they have, on a host that was booted again too.
#[test]
fn all_roles_are_down_and_agents_start_again() {
    play("all roles are down", async |world, rng| {
        let before = uses(world);
        for (_, process) in std::mem::take(&mut world.roles) {
            process.kill().await;
        }
        for node in 0..5 {
            match rng.u8(..3) {
                0 => steps(world, [Step::Stop(node), Step::Join(node)]).await,
                1 => steps(world, [Step::Kill(node), Step::Join(node)]).await,
                _ => steps(world, [Step::Stop(node), Step::Reboot(node)]).await,
            }
        }
        tokio::time::sleep(SOON).await;
        before.keys().for_each(|node| drop(world.machine(*node).journal()));
        disturbed(world, &before).map_err(|why| format!("without roles: {why}"))?;
        for role in Role::ALL {
            world.start_role(role, 0);
        }
        settled(world, SOON).await?;
        disturbed(world, &before)
    });
}

/// Race 67. An address was given on since the backup; its new owner cannot say so yet, and its former one starts again.
#[test]
fn an_address_that_is_anothers_since_the_backup_stays_his() {
    play("given on since the backup", async |world, rng| {
        let ask = |node| Step::Change { node, pool: "w", ports: 0 };
        steps(world, [Step::Leave(3), Step::Leave(4), ask(4)]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        // There are two addresses, and 4 has one of them.
        let gone = [Step::Leave(3), Step::Stop(3), Step::Kill(3)][rng.usize(..3)].clone();
        // One that is killed must have got its address after the backup: else nothing tells it that it was away for long.
        let (before, after) = if matches!(gone, Step::Kill(_)) { (true, false) } else { (false, true) };
        let back_up = |is_due: bool| is_due.then_some(Step::Fault(Fault::BackUp));
        steps(world, back_up(before)).await;
        steps(world, [ask(3)]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        steps(world, back_up(after)).await;
        let had = world.machine(3).uses().map(|given| given.addresses);
        steps(world, [gone]).await;
        tokio::time::sleep(Duration::from_secs(45)).await;
        steps(world, [ask(5)]).await;
        settled(world, SOON).await?;
        let before = uses(world);
        assert_eq!(before.get(&5).map(|given| given.addresses.clone()), had, "there is no other address");
        before.keys().for_each(|node| drop(world.machine(*node).journal()));
        let restore = Fault::Restore { source: true, writes: rng.usize(..2) * 60, raised: rng.bool() };
        steps(world, [Fault::Cut(Who::Node(5)), restore].map(Step::Fault)).await;
        steps(world, [Step::Join(3)]).await;
        tokio::time::sleep(Duration::from_secs(rng.u64(5..15))).await;
        world.calm().await;
        settled(world, QUIET_MAX).await?;
        disturbed(world, &before)
    });
}

/// Race 66. Nothing happened to any node since the backup, so its last event is in it; other writes moved everybody's view on, and
/// the restored store passes that again before anybody is back.
#[test]
fn what_a_restored_store_does_before_anybody_looks_is_missed_by_nobody() {
    play("the store went on since", async |world, rng| {
        world.step(&Step::Fault(Fault::BackUp)).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.step(&Step::Fault(Fault::Restore { source: true, writes: 0, raised: rng.bool() })).await;
        world.step(&Step::Join(5)).await;
        tokio::time::sleep(Duration::from_millis(rng.u64(1..60))).await;
        for number in 0..80 {
            write(&world.source.etcd().store(), Op::put("elsewhere", number.to_string())).await;
        }
        settled(world, SOON).await
    });
}
