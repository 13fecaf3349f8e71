//! The grants that the README tells an operator to give are enough, and let nothing else through: they are read out of it
//! and given, word for word, on real etcds with authentication.
//!
//! Needs: etcd.

use std::process::Command;
use std::time::Duration;

use enlist::store::api::{KeyRange, Op, Store, StoreError, Txn};
use nix::sys::signal::Signal;
use serde_json::Value as Json;

use super::{Running, answer, enlist, write};
use crate::support::etcd::{Etcd, EtcdVersion};
use crate::support::wait::until;

const LIMIT: Duration = Duration::from_secs(60);
const README: &str = include_str!("../../README.md");
const OBJECTS: &str = "{kind: Pool, name: eu, cidrs: [127.88.0.0/24], ports: 31000-31099, hold: 2s, cooldown: 2s}\n---\n\
    {kind: Group, name: web, selector: role=web}\n";

/// The commands of the README's block of this name, without `etcdctl`.
fn commands(block: &str) -> Vec<Vec<String>> {
    let (_, rest) = README.split_once(&format!("<!-- grants: {block} -->\n")).unwrap();
    let (block, _) = rest.split_once("<!-- /grants -->").unwrap();
    let commands = block.lines().filter_map(|line| line.strip_prefix("$ etcdctl "));
    let commands: Vec<Vec<String>> = commands.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert!(commands.len() > 5, "the README's block lost its commands: {commands:?}");
    commands
}

fn run(etcd: &Etcd, arguments: &[impl AsRef<str>]) {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    if let Err(error) = etcd.etcdctl(&arguments) {
        // With one cluster some users are there already, and 3.5 makes the role `root` by itself.
        assert!(error.contains("already exists") && arguments.get(1) == Some(&"add"), "{arguments:?}: {error}");
    }
}

/// Where nodes register, and the manager's: one etcd or two.
struct Place {
    source: Etcd,
    manager: Option<Etcd>,
}

impl Place {
    /// Both with the README's users and grants, and authentication switched on.
    fn start(version: EtcdVersion, two: bool) -> Place {
        let place = Place { source: Etcd::start(version), manager: two.then(|| Etcd::start(version)) };
        for command in commands("nodes") {
            run(&place.source, &command);
        }
        for command in commands("manager") {
            run(place.manager(), &command);
        }
        for etcd in place.etcds() {
            for command in ["user add root:secret", "role add root", "user grant-role root root", "auth enable"] {
                run(etcd, &command.split(' ').collect::<Vec<_>>());
            }
        }
        place
    }

    fn manager(&self) -> &Etcd {
        self.manager.as_ref().unwrap_or(&self.source)
    }

    fn etcds(&self) -> Vec<&Etcd> {
        [Some(&self.source), self.manager.as_ref()].into_iter().flatten().collect()
    }

    /// The binary as this user, at both.
    fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = enlist();
        command.args(arguments).args(["--endpoints", &self.source.endpoint, "--user", user, "--password", password(user)]);
        command.env("ENLIST__MANAGER__ENDPOINTS", &self.manager().endpoint).env("ENLIST__MANAGER__USER", user);
        command.env("ENLIST__MANAGER__PASSWORD", password(user));
        command
    }

    fn role(&self, role: &str) -> Running {
        let mut running = Running::start(self.command(&format!("enlist-{role}"), &["run", role]));
        running.line("started");
        running
    }

    fn agent(&self, state: &std::path::Path) -> Running {
        let flags = ["agent", "--id", "edge-7", "--var", "role=web", "--lease-ttl", "2s", "--state-dir", state.to_str().unwrap()];
        Running::start(self.command("edge-7", &flags))
    }

    /// What the operator's command answers.
    fn ask(&self, arguments: &[&str]) -> String {
        answer(self.command("enlist-operator", arguments)).ok()
    }

    async fn store(&self, etcd: &Etcd, user: &str) -> Store {
        let settings = enlist::store::etcd::StoreSettings { user: Some(format!("{user}:{}", password(user))), ..etcd.settings() };
        Store::connect(settings).await.unwrap()
    }

    /// Waits until the node is in this phase, seen by the operator.
    async fn until_phase(&self, phase: &str) {
        until(&format!("the node is {phase}"), LIMIT, || async {
            let nodes: Json = serde_json::from_str(&self.ask(&["get", "nodes", "-o", "json"])).unwrap();
            (nodes[0]["phase"] == phase).then_some(())
        })
        .await;
    }

    async fn until_published(&self, published: bool) {
        until(&format!("the member is published: {published}"), LIMIT, || async {
            let members: Json = serde_json::from_str(&self.ask(&["get", "members", "web", "-o", "json"])).unwrap();
            (members[0]["published"] == published).then_some(())
        })
        .await;
    }
}

/// The README's passwords.
fn password(user: &str) -> &str {
    if user == "root" { "secret" } else { "SECRET" }
}

/// Is this refused, and by the store?
async fn refused(store: &Store, what: Op) -> bool {
    match store.txn(Txn { then: vec![what.clone()], ..Txn::default() }).await {
        Err(error @ StoreError::Refused(_)) => error.is_denied(),
        Err(error) => panic!("{what:?}: {error}"),
        Ok(_) => false,
    }
}

/// A node's life: joins, is registered, is killed and held, comes back, leaves; each step needs other writes.
async fn a_life(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let objects = write(folder.path(), "objects.yaml", OBJECTS);
    place.ask(&["apply", "-f", &objects]);
    let roles: Vec<Running> = ["allocator", "relay", "manager"].into_iter().map(|role| place.role(role)).collect();
    let state = folder.path().join("state");
    let agent = place.agent(&state);
    place.until_phase("registered").await;
    place.until_published(true).await;
    drop(agent);
    place.until_phase("silent").await;
    let held = |expected: bool| {
        move || async move {
            let found = place.source.etcdctl(&["--user=root:secret", "get", "/enlist/nodes/edge-7/hold", "--keys-only"]).unwrap();
            (found.is_empty() != expected).then_some(())
        }
    };
    until("the allocator holds its place", LIMIT, held(true)).await;
    place.until_published(false).await;
    let mut agent = place.agent(&state);
    place.until_phase("registered").await;
    until("its join ended the hold", LIMIT, held(false)).await;
    place.until_published(true).await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end(), 0);
    // Its hold is over, then its cooldown: the allocator deletes, and puts under leases.
    until("everything is given back", LIMIT, || async { (place.ask(&["get", "claims", "-o", "name"]).is_empty()).then_some(()) })
        .await;
    until("nothing is found", LIMIT, || async { (answer(place.command("enlist-operator", &["check"])).code == 0).then_some(()) })
        .await;
    for mut role in roles {
        role.signal(Signal::SIGTERM);
        assert_eq!(role.end(), 0, "{:?}", role.said);
    }
}

/// What nobody may do with another's credentials.
async fn nothing_else(place: &Place) {
    let agent = place.store(&place.source, "edge-7").await;
    let own = ["label", "status", "hold"].map(|part| format!("/enlist/nodes/edge-7/{part}"));
    for key in &own {
        assert!(!refused(&agent, Op::delete(key.clone())).await, "{key} is its own");
    }
    let foreign = [
        "nodes/edge-7/assignment",
        "nodes/edge-7/labels",
        "nodes/edge-7/hold/",
        "nodes/edge-7/hold/clock",
        "nodes/edge-70/label",
        "nodes/edge-8/label",
        "nodes/edge-8/status",
        "nodes/edge-8/hold",
        "claims/default/127.88.0.9",
        "pools/eu",
        "groups/web",
        "brakes/allocator",
        "leaders/allocator/1",
        "roles/allocator",
        "manager/checkpoint",
        "manager/nodes/edge-7/label",
        "manager/groups/web/members/edge-7",
    ];
    for key in foreign.iter().map(|key| format!("/enlist/{key}")).chain(["/other".to_owned()]) {
        assert!(refused(&agent, Op::put(key.clone(), "x")).await, "an agent may put {key}");
        assert!(refused(&agent, Op::delete(key.clone())).await, "an agent may delete {key}");
    }
    assert!(refused(&agent, Op::Delete(KeyRange::prefix("/enlist/nodes/edge-7/"))).await, "an agent may delete its assignment");
    for range in ["/enlist/nodes/edge-8/", "/enlist/nodes/", "/enlist/claims/", "/enlist/pools/", "/enlist/"] {
        let read = agent.read_all(KeyRange::prefix(range), None).await;
        assert!(matches!(read, Err(StoreError::Refused(_))), "an agent may read {range}: {read:?}");
    }
    let others = [
        (
            "enlist-allocator",
            &place.source,
            ["pools/eu", "brakes/allocator", "leaders/relay/1", "groups/web", "manager/checkpoint"],
        ),
        (
            "enlist-relay",
            place.manager(),
            ["groups/web", "manager/groups/web", "nodes/a/label", "claims/default/1", "roles/manager"],
        ),
        (
            "enlist-manager",
            place.manager(),
            ["groups/web", "manager/checkpoint", "manager/nodes/a/label", "nodes/a/label", "roles/relay"],
        ),
    ];
    for (user, etcd, keys) in others {
        let store = place.store(etcd, user).await;
        for key in keys {
            assert!(refused(&store, Op::put(format!("/enlist/{key}"), "x")).await, "{user} may put {key}");
        }
    }
    let relay = place.store(&place.source, "enlist-relay").await;
    assert!(refused(&relay, Op::put("/enlist/nodes/edge-7/label", "x")).await, "a relay may write where it only reads");
}

/// No trace is left, and neighbours are.
fn purged(place: &Place) {
    for etcd in place.etcds() {
        run(etcd, &["--user=root:secret", "put", "/enlist-of-another", "x"]);
    }
    place.ask(&["purge", "--yes"]);
    for etcd in place.etcds() {
        let left = etcd.etcdctl(&["--user=root:secret", "get", "", "--from-key", "--keys-only"]).unwrap();
        assert_eq!(left.trim(), "/enlist-of-another");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_grants_are_enough_and_nothing_else_is_let_through() {
    for (version, two) in [(EtcdVersion::V3_4, true), (EtcdVersion::V3_5, false)] {
        let place = Place::start(version, two);
        a_life(&place).await;
        nothing_else(&place).await;
        purged(&place);
    }
}
