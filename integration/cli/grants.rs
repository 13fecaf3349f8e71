//! `enlist grants` on real etcds with authentication: its grants are enough for each role, viewer, operator and node, and a
//! plain request beyond them is refused. What a hostile user can do all the same is in `hostile`.
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
const OBJECTS: &str = "{kind: Pool, name: eu, cidrs: [127.88.0.0/24], ports: 31000-31099, hold: 2s, cooldown: 2s}\n---\n\
    {kind: Group, name: web, selector: role=web}\n";
/// Every user, and two nodes.
const USERS: [&str; 8] = ["allocator", "relay", "manager", "roles", "viewer", "operator", "--node=edge-7", "--node=edge-8"];

fn run(etcd: &Etcd, arguments: &[impl AsRef<str>]) {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    if let Err(error) = etcd.etcdctl(&arguments) {
        // etcd 3.5 creates the role `root` itself.
        assert!(error.contains("already exists") && arguments.get(1) == Some(&"add"), "{arguments:?}: {error}");
    }
}

/// Where nodes register, and the manager's: one etcd or two.
pub(super) struct Place {
    pub(super) source: Etcd,
    manager: Option<Etcd>,
}

impl Place {
    /// Both with enlist's users and grants, and authentication switched on.
    pub(super) fn start(version: EtcdVersion, two: bool) -> Place {
        let place = Place { source: Etcd::start(version), manager: two.then(|| Etcd::start(version)) };
        if two {
            place.run_the_script();
        } else {
            let folder = tempfile::tempdir().unwrap();
            let users =
                ["allocator", "relay", "manager", "roles", "viewer", "operator"].map(|user| format!("enlist-{user}:SECRET\n"));
            let passwords = write(folder.path(), "passwords", &format!("{}edge-7:SECRET\nedge-8:SECRET\n", users.concat()));
            let applied = place.grants(&["--apply", "--passwords", &passwords], "root").ok();
            assert!(applied.contains("etcdctl user add edge-7\n") && !applied.contains("SECRET"), "{applied}");
        }
        for etcd in place.etcds() {
            for command in ["user add root:secret", "role add root", "user grant-role root root", "auth enable"] {
                run(etcd, &command.split(' ').collect::<Vec<_>>());
            }
        }
        place
    }

    /// `enlist grants` for all users.
    fn grants(&self, flags: &[&str], user: &str) -> super::Answer {
        let arguments: Vec<&str> = ["grants"].into_iter().chain(USERS).chain(flags.iter().copied()).collect();
        answer(self.command(user, &arguments))
    }

    /// What an operator does who reviews the script first.
    fn run_the_script(&self) {
        let script = self.grants(&["-o", "script"], "root").ok();
        let (source, manager) = script.split_once("# the manager's store\n").unwrap();
        for (etcd, part) in [(&self.source, source), (self.manager(), manager)] {
            let commands: Vec<&str> = part.lines().filter_map(|line| line.strip_prefix("etcdctl ")).collect();
            assert!(commands.len() > 10, "{script}");
            for command in commands {
                // The command itself asks for the password.
                let password = if command.starts_with("user add") { ":SECRET" } else { "" };
                run(etcd, &format!("{command}{password}").split_whitespace().collect::<Vec<_>>());
            }
        }
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

    pub(super) async fn store(&self, etcd: &Etcd, user: &str) -> Store {
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

/// The passwords of `start`.
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
    let looks = |arguments: &[&str]| answer(place.command("enlist-viewer", arguments));
    let state = folder.path().join("state");
    let agent = place.agent(&state);
    place.until_phase("registered").await;
    place.until_published(true).await;
    assert!(looks(&["describe", "node", "edge-7"]).ok().contains("edge-7") && looks(&["get", "groups"]).ok().contains("web"));
    looks(&["delete", "pool", "eu", "--force"]).fails(6, "permission denied");
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
        "lineage",
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
    // Roles that were killed lead until their leases end.
    place.ask(&["purge", "--yes", "--force"]);
    for etcd in place.etcds() {
        let left = etcd.etcdctl(&["--user=root:secret", "get", "", "--from-key", "--keys-only"]).unwrap();
        assert_eq!(left.trim(), "/enlist-of-another");
    }
}

/// All three roles in one process, with the user that is meant for that.
async fn all_roles_in_one_process(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let mut roles = Running::start(place.command("enlist-roles", &["run"]));
    roles.line("started");
    let mut agent = place.agent(&folder.path().join("state"));
    place.until_phase("registered").await;
    place.until_published(true).await;
    for running in [&mut agent, &mut roles] {
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end(), 0, "{:?}", running.said);
    }
}

/// What is there is left alone; each difference is one write.
fn applied_twice_changes_nothing(place: &Place) {
    let grants = |flags: &[&str]| place.grants(flags, "root");
    let again = grants(&["--apply"]);
    assert!(again.stdout.is_empty() && again.stderr.contains("nothing to change"), "{again:?}");
    let etcd = &place.source;
    for change in ["role grant-permission enlist-viewer readwrite --prefix=true /", "user revoke-role edge-7 enlist-node-edge-7"]
    {
        run(etcd, &["--user=root:secret"].into_iter().chain(change.split(' ')).collect::<Vec<_>>());
    }
    let expected = "etcdctl user grant-role edge-7 enlist-node-edge-7\n\
        etcdctl role revoke-permission enlist-viewer --prefix=true /\n";
    assert_eq!(grants(&["--diff"]).ok(), expected);
    assert_eq!(grants(&["--apply"]).ok(), expected);
    assert_eq!(grants(&["--diff"]).ok(), "");
    // A user without a password is left out, and said; an etcd that refuses is one exit code.
    answer(place.command("root", &["grants", "--node", "edge-9", "--apply"]))
        .fails(3, "not created, for lack of a password: edge-9");
    answer(place.command("enlist-operator", &["grants", "--apply"])).fails(6, "permission denied");
    answer(place.command("root", &["grants", "--node", "enlist-relay"])).fails(2, "the name of another etcd user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_are_enough_and_plain_requests_beyond_are_refused() {
    for (version, two) in [(EtcdVersion::V3_4, true), (EtcdVersion::V3_5, false)] {
        let place = Place::start(version, two);
        a_life(&place).await;
        nothing_else(&place).await;
        applied_twice_changes_nothing(&place);
        all_roles_in_one_process(&place).await;
        purged(&place);
    }
}
