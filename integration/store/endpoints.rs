//! Endpoints that are dead, paused or come back: what only real processes can show.

use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{KeyRange, Op, StoreError, Txn, WatchMessage, WatchRequest};
use enlist::store::etcd::StoreSettings;
use enlist::store::lease::{Lease, Overslept};
use tokio::time::Instant;

use super::subject::{LIMIT, next, show};
use crate::support::etcd::{Etcd, EtcdVersion, free_port};
use crate::support::wait;

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "x")], ..Txn::default() }
}

fn short(settings: StoreSettings) -> StoreSettings {
    StoreSettings { command_timeout: Duration::from_secs(1), dial_timeout: Duration::from_millis(500), ..settings }
}

fn all(members: &[Etcd]) -> StoreSettings {
    StoreSettings::endpoints(members.iter().map(|member| member.endpoint.clone()))
}

#[tokio::test]
async fn nobody_there_is_unreachable_in_time_and_named() {
    let endpoints = [format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port())];
    let settings = short(StoreSettings::endpoints(endpoints.clone()));
    let began = Instant::now();
    let error = Store::connect(settings.clone()).await.unwrap_err();
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(3), "{waited:?}");
    let expected = StoreError::Unreachable { endpoints: endpoints.join(","), reason: "connection refused".into() };
    assert_eq!(error, expected);
    assert!(!error.is_unknown_outcome());
    // Without a first contact nothing fails before the first call, and calls to a dead cluster come slowly, not in a storm.
    let store = Store::open(settings).unwrap();
    let began = Instant::now();
    for _ in 0..8 {
        assert!(matches!(store.txn(put("a")).await, Err(StoreError::Unreachable { .. })));
    }
    assert!(began.elapsed() > Duration::from_secs(1), "8 calls failed in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_store_works_as_soon_as_etcd_does() {
    let mut etcd = Etcd::start(EtcdVersion::V3_4);
    etcd.kill();
    let store = Store::open(short(etcd.settings())).unwrap();
    assert!(matches!(store.get("a").await, Err(StoreError::Unreachable { .. })));
    etcd.restart();
    wait::until("the store works", LIMIT, || async { store.txn(put("a")).await.ok() }).await;
    etcd.restart();
    // A connection that went with the old process is noticed without losing a call.
    wait::until("the store works again", LIMIT, || async { store.txn(put("b")).await.ok() }).await;
    let began = Instant::now();
    for _ in 0..20 {
        store.txn(put("c")).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "the back-off was not forgotten: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_paused_etcd_is_a_time_out_whose_outcome_is_unknown() {
    for version in EtcdVersion::ALL {
        let etcd = Etcd::start(version);
        let store = Store::connect(short(etcd.settings())).await.unwrap();
        let before = store.txn(put("a")).await.unwrap().header.revision;
        let (lease, _) = store.grant(60).await.unwrap();
        let mut keep_alive = store.keep_alive(lease).await.unwrap();
        keep_alive.beat().await.unwrap();
        etcd.pause();
        let error = store.txn(put("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }) && error.is_unknown_outcome(), "{error:?}");
        assert!(matches!(keep_alive.beat().await, Err(StoreError::Timeout { .. })));
        etcd.resume();
        let (header, kv) = wait::until("reads work", LIMIT, || async { store.get("a").await.ok() }).await;
        // The write that timed out was done, or was not: that is what "unknown" means. It was not done twice.
        let written = kv.unwrap().mod_revision;
        assert!(written == header.revision && (written == before || written == before.next()), "{before} {written}");
        assert_eq!(wait::until("a beat", LIMIT, || async { store.keep_alive(lease).await.ok()?.beat().await.ok() }).await, 60);
        assert_eq!(keep_alive.beat().await, Ok(60), "the old stream's late answer is not taken for a new one");
    }
}

#[tokio::test]
async fn a_killed_etcd_breaks_what_was_under_way() {
    let mut etcd = Etcd::start(EtcdVersion::V3_5);
    let store = Store::connect(short(etcd.settings())).await.unwrap();
    let mut watch = store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
    next(&mut watch).await;
    etcd.pause();
    let writing = {
        let store = store.clone();
        tokio::spawn(async move { store.txn(put("a")).await })
    };
    // The request is in the socket of a process that stands still; then the process ends.
    tokio::time::sleep(Duration::from_millis(200)).await;
    etcd.kill();
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)) && error.is_unknown_outcome(), "{error:?}");
    assert!(matches!(watch.next().await, Some(Err(StoreError::Broken(_)))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.txn(put("a")).await, Err(StoreError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_member_of_three_is_survived() {
    for version in EtcdVersion::ALL {
        let mut members = Etcd::start_cluster(version);
        let store = Store::connect(all(&members)).await.unwrap();
        for (dead, member) in members.iter_mut().enumerate() {
            member.kill();
            // An election may be due, and a call that was under way may fail; then all is well.
            wait::until("the cluster works", LIMIT, || async { store.txn(put("settle")).await.ok() }).await;
            let mut failed = 0;
            for _ in 0..300 {
                failed += i32::from(store.get("a").await.is_err()) + i32::from(store.txn(put("a")).await.is_err());
            }
            assert_eq!(failed, 0, "of 600 calls with member {dead} dead");
            for _ in 0..10 {
                let mut watch =
                    store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
                next(&mut watch).await;
                let (lease, _) = store.grant(60).await.unwrap();
                assert_eq!(store.keep_alive(lease).await.unwrap().beat().await, Ok(60));
            }
            member.restart();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_member_of_three_costs_one_call() {
    let members = Etcd::start_cluster(EtcdVersion::V3_4);
    let store = Store::connect(short(all(&members))).await.unwrap();
    for paused in &members {
        paused.pause();
        wait::until("the cluster works", LIMIT, || async { store.txn(put("settle")).await.ok() }).await;
        let (mut failed, began) = (Vec::new(), Instant::now());
        for call in 0..100 {
            failed.extend(store.get("a").await.err().map(|error| (call, error)));
            failed.extend(store.txn(put("a")).await.err().map(|error| (call, error)));
        }
        assert_eq!(failed, [], "of 200 calls");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        paused.resume();
    }
}

/// The one thing that a process does may be to keep a lease, and its TTL leaves less time than a call may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_lease_outlives_the_member_that_its_beats_went_to() {
    let members = Etcd::start_cluster(EtcdVersion::V3_5);
    let keeper = Store::connect(all(&members)).await.unwrap();
    let lease = Lease::grant(&keeper, Duration::from_secs(6), Overslept::Asked, fastrand::Rng::with_seed(1)).await.unwrap();
    let member = keeper.member().await.unwrap().header.member_id;
    let mut served = None;
    for other in &members {
        if other.store().member().await.unwrap().header.member_id == member {
            served = Some(other);
        }
    }
    let served = served.unwrap();
    // The first beats go where the grant went.
    let first = lease.last_beat();
    wait::until("a beat", LIMIT, || async { (lease.last_beat() > first).then_some(()) }).await;
    served.pause();
    let paused = Instant::now();
    wait::until("beats go on elsewhere", LIMIT, || async {
        (lease.last_beat().saturating_duration_since(paused) > Duration::from_secs(2)).then_some(())
    })
    .await;
    assert!(lease.is_good());
    let other = members.iter().find(|other| other.endpoint != served.endpoint).unwrap().store();
    let (remaining, _) = wait::until("a word", LIMIT, || async { other.time_to_live(lease.id()).await.ok() }).await;
    assert!(remaining > 0, "the lease was lost");
    served.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_its_member_stands_still_and_goes_on_elsewhere() {
    let members = Etcd::start_cluster(EtcdVersion::V3_5);
    // On one member only, so that it is known which.
    let settings = StoreSettings { keepalive_interval: Duration::from_secs(10), ..members[0].settings() };
    let lonely = Store::connect(settings).await.unwrap();
    let store = Store::connect(all(&members[1..])).await.unwrap();
    let now = store.txn(put("a")).await.unwrap().header.revision;
    let request = WatchRequest { range: KeyRange::one("a"), start: now.next(), beside: false };
    let mut watch = lonely.watch(request.clone()).await.unwrap();
    next(&mut watch).await;
    members[0].pause();
    wait::until("the others go on", LIMIT, || async { store.txn(put("a")).await.ok() }).await;
    let began = Instant::now();
    let ended = tokio::time::timeout(LIMIT, watch.next()).await.expect("the watch was silent for ever");
    assert!(matches!(ended, Some(Err(StoreError::Broken(_)))), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    let mut watch = store.watch(request).await.unwrap();
    next(&mut watch).await;
    match next(&mut watch).await {
        WatchMessage::Events { events, .. } => assert_eq!(show(&events)[0], "put a=x"),
        other => panic!("{other:?}"),
    }
    members[0].resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_quorum_is_left_for_another_or_says_so() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let lonely = Store::connect(short(members[0].settings())).await.unwrap();
    let mut watch = lonely.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
    next(&mut watch).await;
    for member in &mut members[1..] {
        member.kill();
    }
    // With "require leader" the server itself ends the watch; without it would be silent for ever.
    let ended = tokio::time::timeout(LIMIT, watch.next()).await.expect("the watch was silent for ever");
    assert!(matches!(ended, Some(Err(StoreError::Unreachable { .. } | StoreError::Broken(_)))), "{ended:?}");
    assert!(lonely.txn(put("a")).await.is_err());
    assert!(lonely.get("a").await.is_err(), "a read is linearizable: no quorum, no answer");
    // A call with time enough waits until there is a leader again.
    let patient = Store::open(StoreSettings { command_timeout: LIMIT, ..members[0].settings() }).unwrap();
    let waiting = tokio::spawn(async move { (patient.txn(put("a")).await, patient.get("a").await) });
    wait::until("it is turned away", LIMIT, || async { lonely.get("a").await.is_err().then_some(()) }).await;
    for member in &mut members[1..] {
        member.restart_unready();
    }
    let (written, read) = waiting.await.unwrap();
    written.unwrap();
    read.unwrap();
}

/// What the model's `restore` and `empty` claim, on real ones.
#[tokio::test]
async fn a_restored_store_steps_back_with_its_leases_and_ids_and_an_emptied_one_is_another_cluster() {
    for version in EtcdVersion::ALL {
        let mut etcd = Etcd::start(version);
        let store = Store::connect(etcd.settings()).await.unwrap();
        let (lease, _) = store.grant(60).await.unwrap();
        let leased = Op::Put { key: "held".into(), value: "x".into(), lease };
        let saved = store.txn(Txn { then: vec![leased], ..Txn::default() }).await.unwrap().header;
        let backup = etcd.backup();
        let later = store.txn(put("lost")).await.unwrap().header;
        let request = WatchRequest { range: KeyRange::one("a"), start: later.revision.next(), beside: false };
        let mut watch = store.watch(request.clone()).await.unwrap();
        next(&mut watch).await;
        etcd.restore(&backup);
        assert!(watch.next().await.unwrap().is_err(), "the watch breaks");
        let (now, held) = wait::until("the store works", LIMIT, || async { store.get("held").await.ok() }).await;
        assert_eq!((now.revision, now.cluster_id, now.member_id), (saved.revision, saved.cluster_id, saved.member_id));
        assert_eq!(held.unwrap().lease, lease);
        assert_eq!(store.get("lost").await.unwrap().1, None);
        assert_eq!(store.keep_alive(lease).await.unwrap().beat().await, Ok(60));
        // The only sign that a resumed watch gets: the store is behind what was seen.
        let mut watch = store.watch(request).await.unwrap();
        match next(&mut watch).await {
            WatchMessage::Created(header) => assert!(header.revision < later.revision),
            other => panic!("{other:?}"),
        }
        etcd.lose_all();
        let (now, held) = wait::until("the store works", LIMIT, || async { store.get("held").await.ok() }).await;
        assert_eq!((now.revision, held), (Revision(1), None));
        assert_ne!(now.cluster_id, saved.cluster_id);
        assert_eq!(store.keep_alive(lease).await.unwrap().beat().await, Ok(0));
    }
}

/// Members end one after another and come back, as in an upgrade, while calls go on without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_hardly_any_call() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let store = Store::connect(all(&members)).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let caller = {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut reads, mut writes, mut failed_reads, mut failed_writes) = (0, 0, 0, 0);
            while !*stopped.borrow() {
                reads += 1;
                failed_reads += i32::from(store.get("a").await.is_err());
                writes += 1;
                failed_writes += i32::from(store.txn(put("a")).await.is_err());
            }
            (reads, writes, failed_reads, failed_writes)
        })
    };
    for member in &mut members {
        tokio::task::block_in_place(|| member.restart());
        wait::until("it serves", LIMIT, || async { store.get("a").await.ok() }).await;
    }
    stop.send_replace(true);
    let (reads, writes, failed_reads, failed_writes) = caller.await.unwrap();
    assert!(reads > 10, "only {reads} reads");
    assert_eq!(failed_reads, 0, "of {reads} reads: these are tried again elsewhere");
    // A write that was under way when its member was killed has an unknown outcome: that is for the caller, and rare.
    assert!(failed_writes <= 6, "{failed_writes} of {writes} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_waited_for() {
    for version in EtcdVersion::ALL {
        let mut members = Etcd::start_cluster(version);
        let store = Store::connect(all(&members)).await.unwrap();
        let leader = store.member().await.unwrap().leader;
        let mut dead = 0;
        for (index, member) in members.iter().enumerate() {
            if member.store().member().await.unwrap().header.member_id == leader {
                dead = index;
            }
        }
        members[dead].kill();
        let began = Instant::now();
        for _ in 0..20 {
            store.get("a").await.unwrap();
        }
        let waited = began.elapsed();
        assert!(waited > Duration::from_millis(100) && waited < Duration::from_secs(5), "{waited:?}");
        for _ in 0..20 {
            store.txn(put("a")).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_leases_are_kept_alive_on_a_few_streams() {
    let etcd = Etcd::start(EtcdVersion::V3_5);
    let store = etcd.store();
    let mut kept = Vec::new();
    for _ in 0..100 {
        let (lease, _) = store.grant(60).await.unwrap();
        kept.push(store.keep_alive(lease).await.unwrap());
    }
    for _ in 0..3 {
        futures::future::join_all(kept.iter_mut().map(async |lease| assert_eq!(lease.beat().await, Ok(60)))).await;
    }
    let opened = streams_of_keep_alives(&etcd.endpoint).await;
    assert!((1..=16).contains(&opened), "{opened} streams");
}

/// As etcd counts them.
async fn streams_of_keep_alives(endpoint: &str) -> u64 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut connection = tokio::net::TcpStream::connect(endpoint).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    let counter = "grpc_server_started_total{grpc_method=\"LeaseKeepAlive\"";
    let line = text.lines().find(|line| line.starts_with(counter)).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// An operator gives other endpoints to a process that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_endpoints_are_used_without_a_restart() {
    let mut members = Etcd::start_cluster(EtcdVersion::V3_5);
    let store = Store::connect(short(members[0].settings())).await.unwrap();
    let clone = store.clone();
    let (lease, _) = store.grant(60).await.unwrap();
    let mut kept = store.keep_alive(lease).await.unwrap();
    assert_eq!(kept.beat().await, Ok(60));
    let mut watch = store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
    next(&mut watch).await;
    // The same settings, or wrong ones, change nothing.
    store.reconfigure(short(members[0].settings())).unwrap();
    assert!(store.reconfigure(StoreSettings::endpoints(["nonsense"])).is_err());
    store.txn(put("a")).await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchMessage::Events { .. }));
    clone.reconfigure(short(all(&members[1..]))).unwrap();
    assert!(matches!(tokio::time::timeout(LIMIT, watch.next()).await, Ok(Some(Err(StoreError::Broken(_))))));
    tokio::task::block_in_place(|| members[0].kill());
    wait::until("the others serve", LIMIT, || async { store.txn(put("a")).await.ok() }).await;
    assert_eq!(kept.beat().await, Ok(60));
    // Another cluster is not followed at once: it may be a slip.
    let other = Etcd::start(EtcdVersion::V3_4);
    store.reconfigure(short(other.settings())).unwrap();
    assert!(matches!(store.txn(put("a")).await, Err(StoreError::OtherCluster(_))));
    wait::until("the other cluster is followed", LIMIT, || async { store.txn(put("a")).await.ok() }).await;
}
