//! The whole role on models of etcd, on paused time: followed, killed, doubled, faulty, restored.

use std::time::Duration;

use super::*;
use crate::reconcile::Site;
use crate::reconcile::testing::{Refusing, Running, context, until};
use crate::relay::guard::Refusal;
use crate::relay::{RelaySettings, run};
use crate::store::api::Store;
use crate::store::memory::faults::{FaultPlan, Faults};
use crate::store::memory::{MemoryEtcd, MemoryOptions};
use crate::store::wire::RoleReport;

const SOON: Duration = Duration::from_secs(30);

struct Rig {
    source: MemoryEtcd,
    destination: MemoryEtcd,
    settings: RelaySettings,
    started: u64,
}

impl Rig {
    fn new() -> Self {
        Rig::with(MemoryOptions::default())
    }

    fn with(destination: MemoryOptions) -> Self {
        Rig {
            source: MemoryEtcd::new(),
            destination: MemoryEtcd::with_options(destination),
            settings: RelaySettings { source_name: "edge".into(), ..RelaySettings::default() },
            started: 0,
        }
    }

    fn start(&mut self) -> Running {
        self.start_on(self.source.store(), self.destination.store())
    }

    fn start_on(&mut self, source: Store, destination: Store) -> Running {
        self.started += 1;
        let context = context(&format!("relay/{}", self.started), self.started);
        let source = Site { store: source, prefix: prefix("/s") };
        let destination = Site { store: destination, prefix: prefix("/d") };
        Running::start(&context, run(source, destination, self.settings.clone(), context.clone()))
    }

    async fn put(&self, key: &str, value: &str) {
        self.source.store().txn(then(Op::put(format!("/s/nodes/{key}"), value.to_owned()))).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.source.store().txn(then(Op::delete(format!("/s/nodes/{key}")))).await.unwrap();
    }

    async fn meddle(&self, op: Op) {
        self.destination.store().txn(then(op)).await.unwrap();
    }

    /// So many labels in one transaction's time.
    async fn fill(&self, nodes: usize) {
        for node in 0..nodes {
            self.put(&format!("n{node:03}/label"), "1").await;
        }
    }

    fn is_equal(&self) -> bool {
        let copies = copies(&self.destination.at_revision(self.destination.revision()), "/d/manager/");
        checkpoint_of(&self.destination.at_revision(self.destination.revision())).is_some_and(|c| c.partial.is_none())
            && copies == self::copies(&self.source.at_revision(self.source.revision()), "/s/")
    }

    async fn equal(&self) {
        until("the copies equal the source", SOON, || self.is_equal()).await;
    }

    fn report(&self) -> Option<RoleReport> {
        let now = self.destination.at_revision(self.destination.revision());
        now.get(&"/d/roles/relay".into()).map(|kv| RoleReport::decode(&kv.value).unwrap())
    }

    /// How often something below `manager/` was written.
    fn writes(&self) -> usize {
        let below = |event: &Event| event.key().as_str().unwrap().starts_with("/d/manager/");
        self.destination.history().values().filter(|events| events.iter().any(below)).count()
    }

    fn partial_states(&self) -> usize {
        let partial = |event: &&Event| match event {
            Event::Put(kv) => Checkpoint::decode(&kv.value).is_ok_and(|checkpoint| checkpoint.partial.is_some()),
            Event::Delete { .. } => false,
        };
        self.destination.history().values().flatten().filter(partial).count()
    }

    /// Every complete state that the destination ever had equals the source's at the checkpoint's revision, and these
    /// never went back.
    fn assert_cuts(&self) {
        let checkpoint_key: Key = "/d/manager/checkpoint".into();
        let mut last = Revision::NONE;
        let mut complete = 0;
        for (revision, events) in self.destination.history() {
            if !events.iter().any(|event| *event.key() == checkpoint_key) {
                continue;
            }
            let state = self.destination.at_revision(revision);
            let Some(checkpoint) = checkpoint_of(&state).filter(|checkpoint| checkpoint.partial.is_none()) else { continue };
            assert!(checkpoint.revision >= last, "went back at {revision}: {} after {last}", checkpoint.revision);
            last = checkpoint.revision;
            complete += 1;
            let source = self.source.at_revision(checkpoint.revision);
            assert_eq!(copies(&state, "/d/manager/"), copies(&source, "/s/"), "at {revision}");
        }
        assert!(complete > 0);
    }
}

fn then(op: Op) -> Txn {
    Txn { then: vec![op], ..Txn::default() }
}

fn checkpoint_of(state: &BTreeMap<Key, KeyValue>) -> Option<Checkpoint> {
    Some(Checkpoint::decode(&state.get(&"/d/manager/checkpoint".into())?.value).unwrap())
}

fn copies(state: &BTreeMap<Key, KeyValue>, root: &str) -> BTreeMap<String, Bytes> {
    state
        .iter()
        .filter_map(|(key, kv)| Some((key.as_str()?.strip_prefix(root)?.to_owned(), kv.value.clone())))
        .filter(|(key, _)| key.starts_with("nodes/"))
        .filter(|(key, _)| ["label", "status", "assignment"].iter().any(|part| key.ends_with(part)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_follows_and_a_quiet_source_causes_no_writes() {
    let mut rig = Rig::new();
    rig.put("a/label", "1").await;
    let relay = rig.start();
    rig.equal().await;
    for value in 0..20 {
        rig.put("a/label", &value.to_string()).await;
        rig.put("b/status", &value.to_string()).await;
        rig.equal().await;
    }
    rig.delete("b/status").await;
    rig.equal().await;
    let writes = rig.writes();
    // An hour of somebody else's writes, below `nodes/` too, with several verifying reads.
    for minute in 0..60 {
        rig.source.store().txn(then(Op::put("/other", minute.to_string()))).await.unwrap();
        rig.put("a/hold", &minute.to_string()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(rig.writes(), writes);
    relay.stop().await.unwrap();
    let relay = rig.start();
    until("it leads again", SOON, || rig.report().is_some_and(|report| report.identity == "relay/2")).await;
    tokio::time::sleep(SOON).await;
    assert_eq!(rig.writes(), writes, "a restart with nothing to do writes nothing");
    assert_eq!(rig.report().unwrap().lag, 0);
    drop(relay);
    rig.assert_cuts();
}

#[tokio::test(start_paused = true)]
async fn deletions_during_downtime_arrive_also_over_a_compaction() {
    let mut rig = Rig::new();
    rig.fill(30).await;
    let relay = rig.start();
    rig.equal().await;
    relay.kill();
    rig.delete("n003/label").await;
    rig.put("n004/label", "2").await;
    rig.source.compact(rig.source.revision()).unwrap();
    let _relay = rig.start();
    rig.equal().await;
    rig.assert_cuts();
}

#[tokio::test(start_paused = true)]
async fn of_two_relays_one_writes_and_the_other_takes_over() {
    let mut rig = Rig::new();
    rig.fill(5).await;
    let first = rig.start();
    rig.equal().await;
    let _second = rig.start();
    for round in 0..20 {
        rig.put("n001/label", &format!("x{round}")).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    rig.equal().await;
    assert_eq!(rig.report().unwrap().identity, "relay/1");
    first.kill();
    rig.delete("n001/label").await;
    rig.equal().await;
    until("the second says that it leads", SOON, || rig.report().is_some_and(|r| r.identity == "relay/2")).await;
    rig.assert_cuts();
}

#[tokio::test(start_paused = true)]
async fn a_loop_and_a_second_source_are_refused_at_the_start_also_beside_a_leader() {
    let mut rig = Rig::new();
    rig.fill(2).await;
    let first = rig.start();
    rig.equal().await;
    let before = copies(&rig.destination.at_revision(rig.destination.revision()), "/d/manager/");

    let other = MemoryEtcd::new();
    rig.settings.source_name = "core".into();
    let error = rig.start_on(other.store(), rig.destination.store()).ended().await.unwrap_err().to_string();
    assert!(error.contains("\"edge\"") && error.contains("\"core\"") && error.contains("--adopt"), "{error}");
    assert_eq!(copies(&rig.destination.at_revision(rig.destination.revision()), "/d/manager/"), before);

    let site = |prefix: &str| Site { store: rig.source.store(), prefix: prefix.parse().unwrap() };
    let context = context("relay/loop", 9);
    let error = run(site("/s"), site("/s/nodes/x"), rig.settings.clone(), context).await.unwrap_err().to_string();
    assert!(error.contains("loop"), "{error}");

    first.stop().await.unwrap();
    rig.settings.adopt = true;
    other.store().txn(then(Op::put("/s/nodes/o/label", "1"))).await.unwrap();
    let _adopting = rig.start_on(other.store(), rig.destination.store());
    until("the other source's copies", SOON, || {
        let state = rig.destination.at_revision(rig.destination.revision());
        copies(&state, "/d/manager/").keys().eq(["nodes/o/label"]) && checkpoint_of(&state).is_some_and(|c| c.source == "core")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_source_emptied_while_it_was_down_empties_nothing_before_the_brake_is_released() {
    let mut rig = Rig::new();
    rig.fill(20).await;
    let relay = rig.start();
    rig.equal().await;
    relay.stop().await.unwrap();
    rig.source.store().txn(then(Op::Delete(prefix("/s").range()))).await.unwrap();
    let _relay = rig.start();
    until("the brake is said", SOON, || rig.report().is_some_and(|report| report.brake.contains("empty"))).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(copies(&rig.destination.at_revision(rig.destination.revision()), "/d/manager/").len(), 20);
    rig.meddle(Op::put("/d/brakes/relay", "{}")).await;
    rig.equal().await;
    until("the brake is off", SOON, || rig.report().is_some_and(|report| report.brake.is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn most_of_the_source_gone_by_a_read_goes_after_a_second_one_and_all_of_it_by_events_at_once() {
    let mut rig = Rig::new();
    rig.fill(20).await;
    let relay = rig.start();
    rig.equal().await;
    relay.stop().await.unwrap();
    for node in 0..15 {
        rig.delete(&format!("n{node:03}/label")).await;
    }
    let _relay = rig.start();
    rig.equal().await;
    rig.source.store().txn(then(Op::Delete(prefix("/s").range()))).await.unwrap();
    rig.equal().await;
    rig.assert_cuts();
}

#[tokio::test(start_paused = true)]
async fn a_restored_source_is_followed_while_it_runs_and_while_it_is_down() {
    let mut rig = Rig::new();
    rig.fill(5).await;
    let backup = rig.source.snapshot();
    rig.put("ghost/label", "1").await;
    let relay = rig.start();
    rig.equal().await;
    rig.source.restore(backup.clone());
    rig.equal().await;
    rig.put("ghost/label", "2").await;
    rig.equal().await;
    relay.kill();
    rig.source.restore(backup.clone());
    // Past the revision that the copies are at.
    for value in 0..8 {
        rig.put("n000/label", &value.to_string()).await;
    }
    let relay = rig.start();
    rig.equal().await;
    // The same while it runs: a resumed watch alone would skip what is new and keep the ghost.
    rig.put("ghost/label", "3").await;
    rig.equal().await;
    rig.source.restore(backup);
    for value in 10..18 {
        rig.put("n000/label", &value.to_string()).await;
    }
    rig.equal().await;
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_restored_emptied_or_full_destination_is_complete_again() {
    let mut rig = Rig::new();
    rig.fill(5).await;
    let _relay = rig.start();
    rig.equal().await;
    let backup = rig.destination.snapshot();
    rig.put("new/label", "1").await;
    rig.delete("n001/label").await;
    rig.equal().await;
    rig.destination.restore(backup);
    rig.equal().await;
    rig.destination.empty();
    rig.equal().await;
    rig.destination.set_full(true);
    for value in 0..50 {
        rig.put("n002/label", &format!("full{value}")).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let before = rig.writes();
    rig.destination.set_full(false);
    until("the copies equal the source", Duration::from_secs(120), || rig.is_equal()).await;
    assert!(rig.writes() - before <= 2, "many updates while it was full leave one pending write");
}

/// The view never saw the relay's last write, and the restored store is past what the view saw: nothing says that it stepped
/// back, and the revision that is waited for does not come.
#[tokio::test(start_paused = true)]
async fn a_destination_restored_to_before_a_write_that_was_not_seen_yet_is_complete_again() {
    let mut rig = Rig::new();
    rig.fill(5).await;
    let faults = Faults::new(1, FaultPlan::default());
    let relay = rig.start_on(rig.source.store(), faults.client(rig.destination.store()).store());
    rig.equal().await;
    // Its view has all of that; from now on the destination's events take longer than what follows.
    tokio::time::sleep(SOON).await;
    faults.set_plan(FaultPlan { watch_delay_max: Duration::from_secs(100_000), ..FaultPlan::default() });
    // (All but the first: the watch waits for that one by the former plan.)
    rig.meddle(Op::put("/d/manager/nodes/n000/note", "foreign")).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    for other in 0..50 {
        rig.meddle(Op::put("/other", other.to_string())).await;
    }
    let backup = rig.destination.snapshot();
    for other in 0..2_000 {
        rig.meddle(Op::put("/other", other.to_string())).await;
    }
    rig.put("n000/label", "2").await;
    rig.equal().await;
    rig.destination.restore(backup);
    faults.calm();
    let began = tokio::time::Instant::now();
    rig.equal().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(relay);
}

/// As after a pause, in which another relay led: the copies are newer than the view of the source.
#[tokio::test(start_paused = true)]
async fn a_view_older_than_the_checkpoint_is_no_restore() {
    let mut rig = Rig::new();
    rig.fill(5).await;
    let faults = Faults::new(1, FaultPlan::default());
    let relay = rig.start_on(faults.client(rig.source.store()).store(), rig.destination.store());
    rig.equal().await;
    tokio::time::sleep(SOON).await;
    faults.set_plan(FaultPlan { watch_delay_max: Duration::from_secs(100_000), ..FaultPlan::default() });
    rig.put("n000/label", "1").await;
    rig.put("n000/label", "2").await;
    let revision = rig.source.revision();
    let (_, stored) = rig.destination.store().get("/d/manager/checkpoint").await.unwrap();
    let ahead = Checkpoint { revision, ..Checkpoint::decode(&stored.unwrap().value).unwrap() };
    rig.meddle(Op::put("/d/manager/checkpoint", ahead.encode())).await;
    rig.equal().await;
    let checkpoints = rig.destination.history().into_values().flatten().filter_map(|event| match event {
        Event::Put(kv) if kv.key == "/d/manager/checkpoint".into() => Some(Checkpoint::decode(&kv.value).unwrap().revision),
        _ => None,
    });
    let checkpoints: Vec<Revision> = checkpoints.collect();
    assert!(checkpoints.is_sorted(), "{checkpoints:?}");
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_away_shows_as_lag_in_seconds() {
    let mut rig = Rig::new();
    rig.fill(2).await;
    let faults = Faults::new(1, FaultPlan::default());
    let client = faults.client(rig.source.store());
    let _relay = rig.start_on(client.store(), rig.destination.store());
    rig.equal().await;
    let lag = |rig: &Rig| rig.report().map(|report| (report.lag, report.counters["lag_s"]));
    until("no lag", SOON, || lag(&rig) == Some((0, 0))).await;
    client.cut();
    until("a lag of a minute", Duration::from_secs(90), || lag(&rig).is_some_and(|(lag, lag_s)| lag > 0 && lag_s >= 60)).await;
    client.heal();
    until("no lag", SOON, || lag(&rig) == Some((0, 0))).await;
}

#[tokio::test(start_paused = true)]
async fn changes_by_another_hand_are_put_right_and_counted() {
    let mut rig = Rig::new();
    rig.fill(3).await;
    let _relay = rig.start();
    rig.equal().await;
    rig.meddle(Op::put("/d/manager/nodes/n000/label", "x")).await;
    rig.meddle(Op::delete("/d/manager/nodes/n001/label")).await;
    rig.meddle(Op::put("/d/manager/nodes/ghost/label", "x")).await;
    rig.meddle(Op::put("/d/manager/nodes/ghost/note", "x")).await;
    rig.equal().await;
    rig.meddle(Op::delete("/d/manager/checkpoint")).await;
    rig.equal().await;
    until("it is counted", SOON, || {
        rig.report().is_some_and(|r| r.counters["drift"] == 3 && r.counters["foreign"] == 1 && r.findings == 1)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_less_gets_smaller_parts() {
    let mut rig = Rig::with(MemoryOptions { max_txn_ops: 40, request_bytes_max: 200_000, ..MemoryOptions::default() });
    for node in 0..100 {
        rig.put(&format!("n{node:03}/label"), &"x".repeat(10_000)).await;
    }
    rig.put("large/label", &"x".repeat(190_000)).await;
    let _relay = rig.start();
    until("all but the large one is there", SOON, || {
        copies(&rig.destination.at_revision(rig.destination.revision()), "/d/manager/").len() == 100
    })
    .await;
    until("the large one is named", SOON, || {
        checkpoint_of(&rig.destination.at_revision(rig.destination.revision()))
            .is_some_and(|checkpoint| checkpoint.partial.is_none() && checkpoint.left_out == ["nodes/large/label"])
    })
    .await;
}

/// Whatever is lost, late or doubled on the way, and whoever is killed: complete states only, none goes back, all is equal
/// in the end.
#[tokio::test(start_paused = true)]
async fn faults_and_kills_from_many_seeds() {
    let (mut injected, mut partial) = (0, 0);
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::with(MemoryOptions { max_txn_ops: 16, request_bytes_max: 100_000, ..MemoryOptions::default() });
        let faults = Faults::new(
            seed,
            FaultPlan {
                delay_max: Duration::from_millis(20),
                unreachable: 0.05,
                answer_lost: 0.1,
                late: 0.1,
                duplicate: 0.2,
                watch_broken: 0.02,
                watch_stalled: 0.002,
                watch_delay_max: Duration::from_millis(30),
                ..FaultPlan::default()
            },
        );
        rig.settings.leader_ttl = Duration::from_secs(2);
        let mut relays: Vec<Running> = Vec::new();
        for _ in 0..400 {
            if relays.len() < 2 {
                let source = faults.client(rig.source.store()).store();
                let destination = faults.client(rig.destination.store()).store();
                relays.push(rig.start_on(source, destination));
            }
            let key = format!("n{}/{}", random.u8(0..8), random.choice(["label", "status", "assignment"]).unwrap());
            match random.u8(0..20) {
                0..12 => rig.put(&key, &random.u32(..).to_string().repeat(1_000)).await,
                12..18 => rig.delete(&key).await,
                18 if random.bool() => drop(relays.remove(random.usize(0..relays.len()))),
                18 => rig.source.break_watches(),
                _ => rig.source.compact(rig.source.revision()).unwrap_or_default(),
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await;
        }
        faults.calm();
        until("late requests are done", Duration::from_secs(60), || faults.under_way() == 0).await;
        // A stalled watch is found out by its silence, a killed leader by its lease.
        let equal = until("the copies equal the source", Duration::from_secs(600), || rig.is_equal());
        if tokio::time::timeout(Duration::from_secs(590), equal).await.is_err() {
            let state = rig.destination.at_revision(rig.destination.revision());
            panic!("seed {seed}: {:?} {:?} {:?}", rig.report(), checkpoint_of(&state), rig.source.revision());
        }
        rig.assert_cuts();
        let counts = faults.counts();
        partial += rig.partial_states();
        injected += counts.answers_lost + counts.late + counts.duplicates + counts.watches_broken;
    }
    assert!(injected > 500 && partial > 50, "the faults had an effect: {injected}, {partial} partial states");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_a_restore_of_the_destination_took_back_is_not_waited_for() {
    let mut rig = Rig::new();
    rig.fill(3).await;
    let _relay = rig.start();
    rig.equal().await;
    let backup = rig.destination.snapshot();
    for value in 0..200 {
        rig.put("n000/label", &value.to_string()).await;
        rig.equal().await;
    }
    // The source goes on before the relay has seen the restore: its next write loses a compare and lists the destination anew,
    // and a listing that begins anew cannot tell that the store stepped back.
    rig.destination.restore(backup);
    rig.put("n000/label", "after").await;
    rig.equal().await;
}

/// Behaviour 75: by either store.
#[tokio::test(start_paused = true)]
async fn refused_leader_gives_up_and_an_admitted_standby_copies() {
    for by_source in [true, false] {
        let mut rig = Rig::new();
        rig.put("a/label", "1").await;
        let (source, destination) = (rig.source.store(), rig.destination.store());
        let gate = Refusing::new(if by_source { &source } else { &destination });
        let first = match by_source {
            true => rig.start_on(gate.store(), destination),
            false => rig.start_on(source, gate.store()),
        };
        rig.equal().await;
        until("the first leads", SOON, || rig.report().is_some_and(|report| report.identity == "relay/1")).await;
        let second = rig.start();
        tokio::time::sleep(Duration::from_secs(5)).await;
        gate.refuse(true);
        rig.put("b/label", "1").await;
        let leads = || rig.report().is_some_and(|report| report.identity == "relay/2");
        until("the second leads", Duration::from_secs(60), leads).await;
        rig.equal().await;
        rig.assert_cuts();
        first.stop().await.unwrap();
        second.stop().await.unwrap();
    }
}

/// What a newer relay wrote stops this one, also while it leads, and for as long as it is there.
#[tokio::test(start_paused = true)]
async fn newer_checkpoint_stops_the_relay_and_is_left_alone() {
    let mut rig = Rig::new();
    rig.put("a/label", "1").await;
    let relay = rig.start();
    rig.equal().await;
    rig.meddle(Op::put("/d/manager/checkpoint", r#"{"v":2}"#)).await;
    rig.put("b/label", "1").await;
    let error = relay.ended().await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Refusal::Newer(2))), "{error:#}");
    let error = rig.start().ended().await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Refusal::Newer(2))), "{error:#}");
    let now = rig.destination.at_revision(rig.destination.revision());
    assert_eq!(now.get(&"/d/manager/checkpoint".into()).unwrap().value, r#"{"v":2}"#);
    assert!(!now.contains_key(&"/d/manager/nodes/b/label".into()));
}
