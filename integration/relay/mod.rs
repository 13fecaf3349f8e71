//! The relay between two real etcds (and inside one): what it follows, what it survives, what it refuses.

mod disasters;
mod parts;
mod permissions;

use std::collections::BTreeMap;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::reconcile::Site;
use enlist::relay::{RelaySettings, run};
use enlist::store::api::{Key, KeyRange};
use enlist::store::wire::{Checkpoint, RoleReport, Stored};

use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::roles::{LEADER_TTL, LIMIT, Running, context, delete, label, put, read};
use crate::support::wait::until;

const SOURCE: &str = "/edge";
const DESTINATION: &str = "/core";

/// Two etcds and relays between them.
struct Pair {
    source: Etcd,
    destination: Etcd,
    from: Store,
    to: Store,
    settings: RelaySettings,
}

impl Pair {
    fn start(source: EtcdVersion, destination: EtcdVersion) -> Pair {
        let (source, destination) = (Etcd::start(source), Etcd::start(destination));
        let (from, to) = (source.store(), destination.store());
        let settings = RelaySettings { leader_ttl: LEADER_TTL, source_name: "edge".into(), ..RelaySettings::default() };
        Pair { source, destination, from, to, settings }
    }

    fn relay(&self, identity: &str) -> Running {
        relay(identity, &self.from, SOURCE, &self.to, DESTINATION, self.settings.clone())
    }

    async fn label(&self, node: &str, description: &str) {
        put(&self.from, &format!("{SOURCE}/nodes/{node}/label"), label(node, &[("zone", "eu-1")], description)).await;
    }

    async fn equal(&self) {
        until("the copies equal the source", LIMIT, || async { self.is_equal().await.then_some(()) }).await;
    }

    async fn is_equal(&self) -> bool {
        let Some(checkpoint) = checkpoint(&self.to, None).await else { return false };
        let copies = read(&self.to, &format!("{DESTINATION}/manager/nodes/")).await;
        checkpoint.partial.is_none() && copies == copied(read(&self.from, &format!("{SOURCE}/nodes/")).await)
    }

    async fn led_by(&self, identity: &str) {
        until("it leads", LIMIT, || async {
            let report = self.to.get(format!("{DESTINATION}/roles/relay")).await.unwrap().1?;
            (RoleReport::decode(&report.value).unwrap().identity == identity).then_some(())
        })
        .await;
    }

    /// Every complete state that the destination had since `first` equals the source's at the checkpoint's revision, and
    /// these never went back. Answers how many complete and how many partial ones there were.
    async fn assert_cuts(&self, first: Revision) -> (usize, usize) {
        let now = self.to.get("/").await.unwrap().0.revision;
        let (mut complete, mut partial, mut last) = (0, 0, None);
        for revision in (first.0..=now.0).map(Revision) {
            let Some(found) = checkpoint(&self.to, Some(revision)).await else { continue };
            if found.partial.is_some() {
                partial += usize::from(last != Some((found.revision, true)));
                last = Some((found.revision, true));
                continue;
            }
            if last == Some((found.revision, false)) {
                continue;
            }
            assert!(last.is_none_or(|(last, _)| found.revision >= last), "went back at {revision}");
            last = Some((found.revision, false));
            let copies = at(&self.to, &format!("{DESTINATION}/manager/nodes/"), revision).await;
            let source = at(&self.from, &format!("{SOURCE}/nodes/"), found.revision).await;
            assert_eq!(copies, copied(source), "at {revision}");
            complete += 1;
        }
        (complete, partial)
    }
}

fn relay(identity: &str, from: &Store, source: &str, to: &Store, destination: &str, settings: RelaySettings) -> Running {
    let context = context(identity);
    let site = |store: &Store, prefix: &str| Site { store: store.clone(), prefix: prefix.parse().unwrap() };
    Running::start(&context, run(site(from, source), site(to, destination), settings, context.clone()))
}

fn copied(mut kvs: BTreeMap<String, String>) -> BTreeMap<String, String> {
    kvs.retain(|key, _| ["/label", "/status", "/assignment"].iter().any(|part| key.ends_with(part)));
    kvs
}

async fn at(store: &Store, prefix: &str, revision: Revision) -> BTreeMap<String, String> {
    let found = store.read_all(KeyRange::prefix(prefix), Some(revision)).await.unwrap();
    let relative = |key: &Key| key.as_str().unwrap().strip_prefix(prefix).unwrap().to_owned();
    found.kvs.iter().map(|kv| (relative(&kv.key), String::from_utf8(kv.value.to_vec()).unwrap())).collect()
}

async fn checkpoint(store: &Store, revision: Option<Revision>) -> Option<Checkpoint> {
    let key = KeyRange::one(format!("{DESTINATION}/manager/checkpoint"));
    let found = store.read_all(key, revision).await.unwrap();
    found.kvs.first().map(|kv| Checkpoint::decode(&kv.value).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_into_another_cluster_of_another_version() {
    for (source, destination) in [(EtcdVersion::V3_4, EtcdVersion::V3_5), (EtcdVersion::V3_5, EtcdVersion::V3_4)] {
        let pair = Pair::start(source, destination);
        pair.label("a", "before").await;
        let _relay = pair.relay("one");
        pair.equal().await;
        for round in 0..20 {
            pair.label("a", &round.to_string()).await;
            put(&pair.from, "/edge/nodes/a/status", "{}").await;
            put(&pair.from, "/edge/nodes/a/hold", "not copied").await;
            delete(&pair.from, "/edge/nodes/a/status").await;
        }
        pair.label("b", "").await;
        delete(&pair.from, "/edge/nodes/a/label").await;
        pair.equal().await;
        let seen = pair.destination.etcdctl(&["get", "--prefix", "/core/manager/", "--keys-only"]).unwrap();
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["/core/manager/checkpoint", "/core/manager/nodes/b/label"]);
        pair.assert_cuts(Revision(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_inside_one_cluster() {
    let etcd = Etcd::start(EtcdVersion::V3_4);
    let store = etcd.store();
    let _relay = relay("one", &store, "/enlist", &store, "/enlist", RelaySettings::default());
    put(&store, "/enlist/nodes/a/label", label("a", &[], "x")).await;
    until("the copy", LIMIT, || async {
        let copies = read(&store, "/enlist/manager/nodes/").await;
        (copies.get("a/label") == Some(&label("a", &[], "x"))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_during_downtime_are_found_over_a_compaction_and_a_quiet_prefix_causes_no_write() {
    for version in EtcdVersion::ALL {
        let pair = Pair::start(version, version);
        for node in 0..20 {
            pair.label(&format!("n{node}"), "").await;
        }
        let relay = pair.relay("one");
        pair.equal().await;
        relay.stop().await;
        delete(&pair.from, "/edge/nodes/n3/label").await;
        compact(&pair.source, &pair.from).await;
        let relay = pair.relay("two");
        pair.equal().await;
        relay.stop().await;
        // A busy cluster, another compaction, and nothing of it concerns the copies.
        for round in 0..50 {
            put(&pair.from, "/other", round.to_string()).await;
        }
        compact(&pair.source, &pair.from).await;
        let stored = checkpoint(&pair.to, None).await;
        let _relay = pair.relay("three");
        pair.led_by("three").await;
        // What comes next is written once, on top of what was there.
        pair.label("n4", "changed").await;
        pair.equal().await;
        let key = pair.to.get("/core/manager/checkpoint").await.unwrap().1.unwrap();
        assert_eq!(key.version, 3, "{stored:?}");
    }
}

async fn compact(etcd: &Etcd, store: &Store) {
    let revision = store.get("/").await.unwrap().0.revision;
    etcd.etcdctl(&["compaction", &revision.to_string()]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_source_and_a_loop_are_refused() {
    let pair = Pair::start(EtcdVersion::V3_5, EtcdVersion::V3_5);
    pair.label("a", "").await;
    let _relay = pair.relay("one");
    pair.equal().await;
    let other = Etcd::start(EtcdVersion::V3_4);
    let settings = RelaySettings { source_name: "other".into(), ..pair.settings.clone() };
    let second = relay("two", &other.store(), SOURCE, &pair.to, DESTINATION, settings.clone());
    let error = second.ended().await.unwrap_err().to_string();
    assert!(error.contains("\"edge\"") && error.contains("--adopt"), "{error}");
    pair.equal().await;
    let error = relay("three", &pair.from, "/edge", &pair.from, "/edge/nodes/x", settings).ended().await.unwrap_err();
    assert!(error.to_string().contains("loop"), "{error}");
    assert!(read(&pair.from, "/edge/nodes/x/").await.is_empty());
}

impl Pair {
    /// How often the checkpoint was written.
    async fn cuts(&self) -> i64 {
        self.to.get("/core/manager/checkpoint").await.unwrap().1.map_or(0, |kv| kv.version)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_at_once_and_the_leader_killed_under_load() {
    let pair = Pair::start(EtcdVersion::V3_4, EtcdVersion::V3_5);
    let mut relays = vec![pair.relay("r0"), pair.relay("r1")];
    for round in 0..6 {
        // A round ends under load, but not before somebody leads and cuts: a take-over takes a TTL.
        let before = pair.cuts().await;
        let mut write = 0;
        while write < 60 || pair.cuts().await <= before + 1 {
            write += 1;
            let node = format!("n{}", write % 7);
            match write % 5 {
                4 => delete(&pair.from, &format!("/edge/nodes/{node}/label")).await,
                _ => pair.label(&node, &format!("{round}/{write}")).await,
            }
        }
        // The older one: it leads.
        drop(relays.remove(0));
        relays.push(pair.relay(&format!("r{}", round + 2)));
    }
    pair.equal().await;
    let (complete, _) = pair.assert_cuts(Revision(1)).await;
    assert!(complete >= 12, "{complete}");
}
