//! The whole role, behind a relay, on models of etcd and paused time: followed, killed, doubled, faulty, restored.

use std::time::Duration;

use super::*;
use crate::manager::ManagerSettings;
use crate::plan::brake::BrakeState;
use crate::reconcile::Site;
use crate::reconcile::testing::{Refusing, Running, context, until};
use crate::relay::{self, RelaySettings};
use crate::store::api::{Store, Txn};
use crate::store::memory::MemoryEtcd;
use crate::store::memory::faults::{FaultPlan, Faults};
use crate::store::wire::RoleReport;

const SOON: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(2);

/// One etcd with both roles, or two with the relay between them.
struct Rig {
    source: MemoryEtcd,
    destination: MemoryEtcd,
    started: u64,
}

impl Rig {
    fn one() -> Self {
        let etcd = MemoryEtcd::new();
        Rig { source: etcd.clone(), destination: etcd, started: 0 }
    }

    fn two() -> Self {
        Rig { source: MemoryEtcd::new(), destination: MemoryEtcd::new(), started: 0 }
    }

    fn relay(&mut self) -> Running {
        self.relay_on(self.source.store(), self.destination.store())
    }

    fn relay_on(&mut self, source: Store, destination: Store) -> Running {
        self.started += 1;
        let context = context(&format!("relay/{}", self.started), self.started);
        let site = |store| Site { store, prefix: prefix() };
        let settings = RelaySettings { leader_ttl: TTL, allow_empty: true, ..RelaySettings::default() };
        Running::start(&context, relay::run(site(source), site(destination), settings, context.clone()))
    }

    fn manager(&mut self) -> Running {
        self.manager_on(self.destination.store())
    }

    fn manager_on(&mut self, store: Store) -> Running {
        self.started += 1;
        let context = context(&format!("manager/{}", self.started), self.started);
        let settings = ManagerSettings { leader_ttl: TTL };
        Running::start(&context, crate::manager::run(Site { store, prefix: prefix() }, settings, context.clone()))
    }

    async fn write(etcd: &MemoryEtcd, op: Op) {
        etcd.store().txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    async fn node(&self, key: &str, value: Option<String>) {
        let key = format!("/enlist/nodes/{key}");
        let op = value.map_or_else(|| Op::delete(key.as_str()), |value| Op::put(key.as_str(), value));
        Rig::write(&self.source, op).await;
    }

    async fn ready(&self, node: &str, variables: &[(&str, &str)]) {
        self.node(&format!("{node}/label"), Some(label(node, variables))).await;
        self.node(&format!("{node}/assignment"), Some(bound(node, 5, "10.0.0.1"))).await;
        self.node(&format!("{node}/status"), Some(status("registered", 5))).await;
    }

    async fn define(&self, name: &str, definition: Option<String>) {
        let key = format!("/enlist/groups/{name}");
        let op = definition.map_or_else(|| Op::delete(key.as_str()), |value| Op::put(key.as_str(), value));
        Rig::write(&self.destination, op).await;
    }

    fn read(etcd: &MemoryEtcd, folder: &str) -> RangeResponse {
        let folder = format!("/enlist/{folder}");
        let header = Header { cluster_id: 1, member_id: 1, revision: etcd.revision() };
        let kvs = etcd.at_revision(etcd.revision()).into_values();
        let kvs = kvs.filter(|kv| kv.key.as_str().unwrap().starts_with(&folder)).collect();
        RangeResponse { header, kvs, more: false, count: 0 }
    }

    /// What `check` of both roles finds, apart from what another hand left.
    fn findings(&self) -> Vec<String> {
        let manager = Rig::read(&self.destination, "manager/");
        let copies: Vec<KeyValue> =
            manager.kvs.iter().filter(|kv| !kv.key.as_str().unwrap().contains("/groups/")).cloned().collect();
        let source = Rig::read(&self.source, "nodes/");
        // Nothing changes any more: the newest state of the source must be the one copied.
        let exact = RangeResponse { header: Header { revision: Revision(i64::MAX), ..source.header }, ..source };
        let copies = RangeResponse { kvs: copies.into_iter().map(at_the_end).collect(), ..manager.clone() };
        let mut findings = relay::check((&prefix(), &exact), (&prefix(), &copies));
        let brake = Rig::read(&self.destination, "brakes/manager").kvs.into_iter().next();
        findings.extend(crate::manager::check(&prefix(), &Rig::read(&self.destination, "groups/"), &manager, brake.as_ref()));
        findings.iter().filter(|finding| finding.code != "group-invalid").map(ToString::to_string).collect()
    }

    fn lines(&self) -> Vec<String> {
        let world =
            World { revision: 0, kvs: self.destination.at_revision(self.destination.revision()), view: View::new(prefix()) };
        world.groups()
    }

    async fn settled(&self) {
        let settled = until("copies and members are what they must be", Duration::from_secs(300), || {
            self.findings().is_empty() && !self.lines().is_empty()
        });
        if tokio::time::timeout(Duration::from_secs(290), settled).await.is_err() {
            panic!("{:#?}\n{:#?}", self.findings(), Rig::read(&self.destination, "roles/"));
        }
    }
}

/// The checkpoint with the revision of a read that is exact: a quiet source does not raise the stored one.
fn at_the_end(kv: KeyValue) -> KeyValue {
    match Checkpoint::decode(&kv.value) {
        Ok(checkpoint) if kv.key.as_str() == Some("/enlist/manager/checkpoint") => {
            KeyValue { value: Checkpoint { revision: Revision(i64::MAX), ..checkpoint }.encode(), ..kv }
        }
        _ => kv,
    }
}

#[tokio::test(start_paused = true)]
async fn labels_become_members_through_both_roles() {
    for mut rig in [Rig::one(), Rig::two()] {
        let _roles = (rig.relay(), rig.manager());
        rig.define("web", Some(group("web", "role=web", r#","port":"http""#))).await;
        rig.ready("a", &[("role", "web")]).await;
        rig.ready("b", &[("role", "db")]).await;
        rig.settled().await;
        assert_eq!(rig.lines(), ["web: 1 members, 1 published, ok", "web/a: ready, published, 10.0.0.1, http=8000"]);
        rig.node("b/label", Some(label("b", &[("role", "web")]))).await;
        rig.node("a/status", None).await;
        rig.settled().await;
        until("the change is through", SOON, || rig.lines().len() == 3).await;
        until("a is a suspect", SOON, || rig.lines()[1] == "web/a: suspect, not published, 10.0.0.1, http=8000").await;
        rig.define("web", None).await;
        until("the group is gone", SOON, || rig.lines().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_nothing_to_do_writes_nothing() {
    let mut rig = Rig::one();
    let (_relay, manager) = (rig.relay(), rig.manager());
    rig.define("web", Some(group("web", "", ""))).await;
    for node in 0..30 {
        rig.ready(&format!("n{node}"), &[]).await;
    }
    rig.settled().await;
    let writes = |rig: &Rig| {
        let below = |event: &Event| event.key().as_str().unwrap().starts_with("/enlist/manager/");
        rig.destination.history().values().flatten().filter(|event| below(event)).count()
    };
    let before = writes(&rig);
    manager.stop().await.unwrap();
    let _manager = rig.manager();
    until("it leads", SOON, || {
        let report = Rig::read(&rig.destination, "roles/manager").kvs.pop();
        report.is_some_and(|kv| RoleReport::decode(&kv.value).unwrap().identity == "manager/3")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(writes(&rig), before);
}

#[tokio::test(start_paused = true)]
async fn a_brake_is_reported_and_ends() {
    let mut rig = Rig::one();
    let _roles = (rig.relay(), rig.manager());
    rig.define("web", Some(group("web", "", ""))).await;
    for node in 0..10 {
        rig.ready(&format!("n{node}"), &[]).await;
    }
    rig.settled().await;
    for node in 0..5 {
        rig.node(&format!("n{node}/status"), None).await;
    }
    let report =
        |rig: &Rig| Rig::read(&rig.destination, "roles/manager").kvs.pop().map(|kv| RoleReport::decode(&kv.value).unwrap());
    until("the brake is on", SOON, || report(&rig).is_some_and(|report| report.brake.contains("silent"))).await;
    rig.settled().await;
    until("all are published", SOON, || rig.lines()[0] == "web: 10 members, 10 published, ok").await;
    Rig::write(&rig.destination, Op::put("/enlist/brakes/manager", "{}")).await;
    until("half are published", SOON, || rig.lines()[0] == "web: 10 members, 5 published, ok").await;
    let state = |rig: &Rig| report(rig).and_then(|report| report.brake_state);
    until("it says so", SOON, || state(&rig) == Some(BrakeState::Released)).await;
    assert!(report(&rig).unwrap().brake.ends_with("are not published") && !report(&rig).unwrap().brake_since.is_empty());
    // One that falls silent now is held: the operator did not speak of it.
    rig.node("n5/status", None).await;
    until("it holds again", SOON, || state(&rig) == Some(BrakeState::On)).await;
    for node in 0..6 {
        rig.node(&format!("n{node}/status"), Some(status("registered", 5))).await;
    }
    until("the brake is off", SOON, || report(&rig).is_some_and(|report| report.brake.is_empty())).await;
    rig.settled().await;
}

/// A variable with a value of its own on each node: 3,000 groups are wanted.
#[tokio::test(start_paused = true)]
async fn a_group_for_each_node_keeps_a_thousand_and_counts_the_rest() {
    let mut rig = Rig::one();
    let _roles = (rig.relay(), rig.manager());
    rig.define("hosts", Some(group("hosts", "", r#","keyed_by":["host"]"#))).await;
    for node in 0..3_000 {
        let name = format!("n{node}");
        rig.node(&format!("{name}/label"), Some(label(&name, &[("host", &name)]))).await;
        rig.node(&format!("{name}/status"), Some(status("joining", 0))).await;
    }
    let report =
        |rig: &Rig| Rig::read(&rig.destination, "roles/manager").kvs.pop().map(|kv| RoleReport::decode(&kv.value).unwrap());
    until("they are counted", SOON, || report(&rig).is_some_and(|report| report.findings == 2_000)).await;
    until("a thousand are kept", SOON, || rig.lines().len() == 2_000).await;
}

/// Random life with kills, lost answers, duplicates, compactions and restores of the destination: in the end all is right.
#[tokio::test(start_paused = true)]
async fn faults_and_kills_from_many_seeds() {
    let mut injected = 0;
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rig = if random.bool() { Rig::one() } else { Rig::two() };
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
        rig.define("all", Some(group("all", "", ""))).await;
        let (mut relays, mut managers) = (Vec::new(), Vec::new());
        let mut backup = rig.destination.snapshot();
        for _ in 0..300 {
            if relays.len() < 2 {
                let stores = (faults.client(rig.source.store()).store(), faults.client(rig.destination.store()).store());
                relays.push(rig.relay_on(stores.0, stores.1));
            }
            if managers.len() < 2 {
                managers.push(rig.manager_on(faults.client(rig.destination.store()).store()));
            }
            one_step(&rig, &mut random).await;
            match random.u8(0..60) {
                0 => drop(relays.remove(random.usize(0..relays.len()))),
                1 | 2 => drop(managers.remove(random.usize(0..managers.len()))),
                3 => rig.destination.break_watches(),
                4 => rig.destination.compact(rig.destination.revision()).unwrap_or_default(),
                5 => backup = rig.destination.snapshot(),
                6 => rig.destination.restore(backup.clone()),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await;
        }
        faults.calm();
        until("late requests are done", Duration::from_secs(60), || faults.under_way() == 0).await;
        rig.settled().await;
        let counts = faults.counts();
        injected += counts.answers_lost + counts.late + counts.duplicates + counts.watches_broken;
    }
    assert!(injected > 1_000, "the faults had an effect: {injected}");
}

async fn one_step(rig: &Rig, random: &mut fastrand::Rng) {
    let node = format!("n{}", random.u8(0..8));
    let some = random.u8(0..5) > 0;
    let values = [format!("v{}", random.u8(0..3)), format!("v{}", random.u8(0..3))];
    match random.u8(0..10) {
        0..3 => {
            let text = label(&node, &[("role", &values[0]), ("zone", &values[1])]);
            rig.node(&format!("{node}/label"), some.then_some(text)).await;
        }
        3..6 => {
            let phase = random.choice(["joining", "registered", "registered", "stopped", "left"]).unwrap();
            rig.node(&format!("{node}/status"), some.then(|| status(phase, 5))).await;
        }
        6..8 => {
            let text = if random.bool() { bound(&node, 5, "10.0.0.1") } else { waiting(&node) };
            rig.node(&format!("{node}/assignment"), some.then_some(text)).await;
        }
        8 => {
            let name = format!("g{}", random.u8(0..3));
            let selector = random.choice(["role=v0", "role in (v0,v1)", "!role", "zone!=v1"]).unwrap();
            let more = random.choice(["", r#","keyed_by":["zone"]"#, r#","port":"http""#, r#","nonsense":1"#]).unwrap();
            rig.define(&name, some.then(|| group(&name, selector, more))).await;
        }
        _ => {
            let key = format!("/enlist/manager/groups/all/members/{node}");
            Rig::write(&rig.destination, if some { Op::put(key, "x") } else { Op::delete(key) }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_only_joining_comes_a_second_later_and_a_ready_one_at_once() {
    let mut rig = Rig::one();
    let _roles = (rig.relay(), rig.manager());
    rig.define("web", Some(group("web", "role=web", ""))).await;
    rig.ready("a", &[("role", "web")]).await;
    rig.settled().await;
    let member = |rig: &Rig, node: &str| rig.lines().iter().any(|line| line.starts_with(&format!("web/{node}: ")));
    let came = tokio::time::Instant::now();
    rig.node("b/label", Some(label("b", &[("role", "web")]))).await;
    rig.node("b/status", Some(status("joining", 0))).await;
    rig.ready("c", &[("role", "web")]).await;
    until("the ready one is a member", SOON, || member(&rig, "c")).await;
    assert!(came.elapsed() < Duration::from_millis(900) && !member(&rig, "b"), "{:?} {:?}", came.elapsed(), rig.lines());
    until("the joining one is a member", SOON, || member(&rig, "b")).await;
    assert!(came.elapsed() < Duration::from_millis(1_500), "{:?}", came.elapsed());
    rig.settled().await;
}

/// Behaviour 75.
#[tokio::test(start_paused = true)]
async fn refused_leader_gives_up_and_an_admitted_standby_publishes() {
    let mut rig = Rig::one();
    let relay = rig.relay();
    let gate = Refusing::new(&rig.destination.store());
    let first = rig.manager_on(gate.store());
    rig.define("web", Some(r#"{"v":1,"kind":"Group","name":"web","selector":"zone=eu"}"#.into())).await;
    rig.ready("a", &[("zone", "eu")]).await;
    let published = |rig: &Rig, count: usize| Rig::read(&rig.destination, "manager/groups/web/members/").kvs.len() == count;
    until("the first publishes", SOON, || published(&rig, 1)).await;
    let second = rig.manager();
    tokio::time::sleep(Duration::from_secs(5)).await;
    gate.refuse(true);
    rig.ready("b", &[("zone", "eu")]).await;
    until("the second publishes", SOON, || published(&rig, 2)).await;
    for role in [relay, first, second] {
        role.stop().await.unwrap();
    }
}

/// What a newer relay wrote is said; groups stay as they are until somebody upgrades this manager.
#[tokio::test(start_paused = true)]
async fn newer_checkpoint_is_reported_and_groups_stay() {
    let mut rig = Rig::one();
    let (relay, manager) = (rig.relay(), rig.manager());
    rig.define("web", Some(r#"{"v":1,"kind":"Group","name":"web","selector":"zone=eu"}"#.into())).await;
    rig.ready("a", &[("zone", "eu")]).await;
    let members = |rig: &Rig| Rig::read(&rig.destination, "manager/groups/web/members/").kvs.len();
    until("it publishes", SOON, || members(&rig) == 1).await;
    relay.stop().await.unwrap();
    Rig::write(&rig.destination, Op::put("/enlist/manager/checkpoint", r#"{"v":2}"#)).await;
    let told = || {
        let kvs = Rig::read(&rig.destination, "roles/manager").kvs;
        kvs.first().is_some_and(|kv| RoleReport::decode(&kv.value).unwrap().findings == 1)
    };
    until("it is reported", SOON, told).await;
    assert_eq!(members(&rig), 1);
    manager.stop().await.unwrap();
}
