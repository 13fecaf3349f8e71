//! Ten thousand random and nearly right values under every prefix of a real etcd, and then `enlist run` on it: no
//! panic, no stop, a finding for each bad value, and normal service for a node whose records are all right.
//!
//! Needs: etcd.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use enlist::Store;
use enlist::model::documents::{stored_group, stored_pool};
use enlist::model::group::Member;
use enlist::model::names::Revision;
use enlist::store::api::{Key, KeyRange, KeyValue, Op, Txn};
use enlist::store::keys::{NodePart, ParsedKey, Prefix};
use enlist::store::wire::{RoleReport, Stored, Summary};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::fuzz::good;
use crate::fuzz::near::near;
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::roles::{put, status};
use crate::support::wait::until;

const VALUES: usize = 10_000;
const PER_REQUEST: usize = 100;
/// The limit for roles that read, report and skip ten thousand bad values on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The key of the n-th value, and its right form.
fn place(n: usize) -> (String, String) {
    let id = format!("x{n}");
    let ip = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n).unwrap()));
    let pick = |texts: &[&str]| texts[n / 20 % texts.len()].replace("edge-7", &id);
    match n % 20 {
        0 => (format!("pools/{id}"), pick(&good::POOLS).replace("\"eu\"", &format!("\"{id}\""))),
        1 => (format!("groups/{id}"), pick(&good::GROUPS).replace("\"web\"", &format!("\"{id}\""))),
        2 => (format!("nodes/{id}/label"), pick(&good::LABELS)),
        3 => (format!("nodes/{id}/status"), pick(&good::STATUSES)),
        4 => (format!("nodes/{id}/assignment"), pick(&good::ASSIGNMENTS)),
        5 => (format!("nodes/{id}/hold"), pick(&good::HOLDS)),
        6 => (format!("nodes/{id}/hold/clock"), r#"{"v":1}"#.into()),
        7 | 8 => (format!("claims/default/{ip}"), pick(&good::CLAIMS)),
        9 => (format!("claims/default/{ip}/8000"), pick(&good::CLAIMS)),
        10 => (format!("manager/nodes/{id}/label"), pick(&good::LABELS)),
        11 => (format!("manager/nodes/{id}/assignment"), pick(&good::ASSIGNMENTS)),
        12 => (format!("manager/groups/{id}"), good::MANAGED[1].into()),
        13 => (format!("manager/groups/{id}/members/{id}"), pick(&good::MANAGED[2..3])),
        14 => (format!("roles/{id}"), good::MANAGED[3].into()),
        15 => (format!("leaders/{}/{id}", ["allocator", "relay", "manager", "x"][n / 20 % 4]), "host/1".into()),
        16 => (format!("brakes/{id}"), r#"{"v":1}"#.into()),
        // Keys that are nearly right, and some foreign ones.
        _ => (good::KEYS[n / 20 % good::KEYS.len()]["/enlist/".len()..].into(), pick(&good::LABELS)),
    }
}

/// All values, by key below the prefix. No two have the same key.
fn bad() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let mut draw = |text: String| near(vec![text]).new_tree(&mut runner).unwrap().current();
    let mut values = BTreeMap::new();
    let mut n = 0;
    while values.len() < VALUES {
        let (place, right) = place(n);
        let key = if n % 20 > 16 {
            let folder_length = place.find('/').unwrap_or(place.len()) + 1;
            let (folder, rest) = place.split_at(folder_length.min(place.len()));
            [folder.as_bytes(), &draw(rest.to_owned()), format!("-{n}").as_bytes()].concat()
        } else {
            place.into_bytes()
        };
        values.insert(key, draw(right));
        n += 1;
    }
    values.insert(b"manager/checkpoint".to_vec(), b"{\"v\":1,\"source\":".to_vec());
    values
}

/// Whether a reader must reject the value.
fn is_unreadable(prefix: &Prefix, kv: &KeyValue) -> bool {
    let value = &kv.value;
    match prefix.parse(&kv.key) {
        ParsedKey::Foreign => true,
        ParsedKey::Pool(name) => stored_pool(&name, value).is_err(),
        ParsedKey::Group(name) => stored_group(&name, value).is_err(),
        ParsedKey::Node(node, part) | ParsedKey::Copy(node, part) => match part {
            NodePart::Label => enlist::Label::decode(value).map_or(true, |label| label.id != node),
            NodePart::Assignment => enlist::Assignment::decode(value).map_or(true, |assignment| assignment.node != node),
            NodePart::Status => enlist::model::status::Status::decode(value).is_err(),
            NodePart::Hold => enlist::model::hold::Hold::decode(value).is_err(),
            // Only its presence counts.
            NodePart::Clock => false,
        },
        ParsedKey::Claim(_) => enlist::model::claim::Claim::decode(value).is_err(),
        ParsedKey::Summary(_) => Summary::decode(value).is_err(),
        ParsedKey::Member(..) => Member::decode(value).is_err(),
        ParsedKey::Role(_) => RoleReport::decode(value).is_err(),
        ParsedKey::Checkpoint => enlist::store::wire::Checkpoint::decode(value).is_err(),
        ParsedKey::Lineage => enlist::model::lineage::Chain::decode(value).is_err(),
        // Only the next `apply --set` of that name reads it, and says so.
        ParsedKey::Brake(_) | ParsedKey::Applied(..) => false,
        ParsedKey::Leader(..) => kv.lease == enlist::store::api::LeaseId::NONE,
    }
}

fn enlist(etcd: &Etcd) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enlist"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ENLIST__SOURCE__ENDPOINTS", &etcd.endpoint);
    command.stdin(Stdio::null());
    command
}

/// The number of unreadable values in the store, and those without a finding of `enlist check`.
async fn not_told(etcd: &Etcd, store: &Store) -> (usize, Vec<String>) {
    let prefix = Prefix::default();
    let kvs = store.read_all(prefix.range(), None).await.unwrap().kvs;
    let Output { status, stdout, stderr } = enlist(etcd).args(["check", "-o", "json"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let found: Vec<serde_json::Value> = serde_json::from_slice(&stdout).unwrap();
    let keys = found.iter().flat_map(|found| found["keys"].as_array().unwrap());
    let told: BTreeSet<&str> = keys.map(|key| key.as_str().unwrap()).collect();
    // Skips the values that the roles have repaired or removed meanwhile.
    let still = store.read_all(prefix.range(), None).await.unwrap().kvs;
    let still: BTreeMap<Key, Revision> = still.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect();
    let unreadable: Vec<&KeyValue> = kvs.iter().filter(|kv| is_unreadable(&prefix, kv)).collect();
    let missing = unreadable.iter().filter(|kv| still.get(&kv.key) == Some(&kv.mod_revision));
    let missing = missing.filter(|kv| !told.contains(&*prefix.relative(&kv.key)));
    let missing = missing.map(|kv| format!("{:?} = {:?}", kv.key, String::from_utf8_lossy(&kv.value))).collect();
    (unreadable.len(), missing)
}

/// `enlist run`; dropping this kills it.
struct Roles {
    child: RefCell<Child>,
    log: tempfile::NamedTempFile,
}

impl Roles {
    fn start(etcd: &Etcd) -> Roles {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = enlist(etcd).arg("run").stdout(Stdio::null()).stderr(log.reopen().unwrap()).spawn().unwrap();
        Roles { child: RefCell::new(child), log }
    }

    /// Checks that the process runs and that nothing in it panicked.
    fn are_well(&self) {
        let ended = self.child.borrow_mut().try_wait().unwrap();
        assert!(ended.is_none() && !self.log().contains("panicked"), "enlist run ended {ended:?}:\n{}", self.log());
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log.path()).unwrap()).into_owned()
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[tokio::test]
async fn ten_thousand_bad_values_cost_only_themselves() {
    let etcd = Etcd::start(EtcdVersion::V3_4);
    let store = etcd.store();
    let values: Vec<_> = bad().into_iter().collect();
    for some in values.chunks(PER_REQUEST) {
        let puts = some.iter().map(|(key, value)| Op::put([b"/enlist/", key.as_slice()].concat(), value.clone())).collect();
        store.txn(Txn { then: puts, ..Txn::default() }).await.unwrap();
    }
    let (unreadable, missing) = not_told(&etcd, &store).await;
    assert!(unreadable > VALUES / 3, "only {unreadable} are bad");
    assert!(
        missing.is_empty(),
        "no finding for {} of {unreadable}:\n{}",
        missing.len(),
        missing[..missing.len().min(40)].join("\n")
    );

    put(
        &store,
        "/enlist/pools/good",
        r#"{"v":1,"kind":"Pool","name":"good","domain":"good","cidrs":["10.9.0.0/24"],"selector":"good=yes"}"#,
    )
    .await;
    put(&store, "/enlist/groups/good", r#"{"v":1,"kind":"Group","name":"good","selector":"good=yes"}"#).await;
    put(&store, "/enlist/nodes/good/label", crate::support::roles::label("good", &[("good", "yes")], "")).await;
    let (key, lease) = ("/enlist/nodes/good/status".into(), store.grant(3600).await.unwrap().0);
    let then = vec![Op::Put { key, value: status("joining").into(), lease }];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    let roles = Roles::start(&etcd);
    // A node may become a member before it has an address.
    let is_member = || async {
        roles.are_well();
        let range = KeyRange::prefix("/enlist/manager/groups/good/members/");
        let members = store.read_all(range, None).await.unwrap().kvs;
        members.iter().filter_map(|kv| Member::decode(&kv.value).ok()).find(|member| member.addresses.len() == 1)
    };
    until("the good node is a member with an address", LIMIT, is_member).await;

    let (_, missing) = not_told(&etcd, &store).await;
    assert!(missing.is_empty(), "no finding for {} later:\n{}", missing.len(), missing[..missing.len().min(40)].join("\n"));
    roles.are_well();
}
