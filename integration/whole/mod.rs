//! The whole: real agents and real roles (`enlist run`), all processes of the binary, on real etcds. Nothing here writes what an
//! agent or a role would; the tests only do what operators and accidents do, and look.
//!
//! Every test has an etcd of its own and ends with [`Fleet::sound`]: nothing was wrong at any revision of its history.
//! Needs: etcd. `identity` needs root and `unshare` (util-linux).

mod brake;
mod change;
mod failover;
mod foreign;
mod identity;
mod leaving;
mod outage;
mod pools;
mod restored;
mod thread;
mod together;
mod two_stores;
mod wiped;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyRange, KeyValue};
use serde_json::Value as Json;
use tokio::process::Command;

use crate::agent::until_file;
use crate::history::source::Walk;
use crate::history::steps::{Allowed, Times};
use crate::store::subject;
use crate::support::etcd::{Etcd, EtcdVersion, free_port};
use crate::support::process::Process;
use crate::support::roles::{LIMIT, put, read};
use crate::support::wait::until;

/// One etcd, a directory for agents and logs, and maybe a second etcd for relay and manager.
struct Fleet {
    etcd: Etcd,
    store: Store,
    manager: Option<(Etcd, Store)>,
    dir: tempfile::TempDir,
}

/// What a command answered: its exit code and both its streams.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Fleet {
    fn on(version: EtcdVersion) -> Fleet {
        let etcd = Etcd::start(version);
        let dir = tempfile::Builder::new().prefix("enlist-whole-").tempdir().unwrap();
        Fleet { store: etcd.store(), etcd, manager: None, dir }
    }

    /// With another etcd where relay and manager write.
    fn on_two(source: EtcdVersion, manager: EtcdVersion) -> Fleet {
        let manager = Etcd::start(manager);
        Fleet { manager: Some((manager.store(), manager)).map(|(store, etcd)| (etcd, store)), ..Fleet::on(source) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Completes a command line with the stores. Times are short, so that what is lost is noticed soon.
    fn with_stores(&self, mut command: Command, arguments: &[&str]) -> Command {
        let (first, rest) = arguments.split_first().unwrap();
        command.arg(first).args(["--endpoints", &self.etcd.endpoint]);
        if let Some((manager, _)) = &self.manager {
            command.args(["--manager-endpoints", &manager.endpoint, "--manager-prefix", "/core"]);
        }
        command.args(rest).stdin(Stdio::null());
        command.env("ENLIST__ROLES__LEADER_TTL", "2s").env("ENLIST__ALLOCATOR__RESTORE_QUIET", "4s");
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.with_stores(Command::new(env!("CARGO_BIN_EXE_enlist")), arguments)
    }

    fn start(&self, command: Command) -> Process {
        Process::start(command, self.path(&format!("log-{}", free_port())))
    }

    /// `enlist run` with these roles; none = all.
    fn run(&self, roles: &[&str]) -> Process {
        self.start(self.command(&[&["run"], roles].concat()))
    }

    /// `enlist agent` for a node, whose state directory has its name, with a lease of 2 s and more flags.
    fn agent(&self, id: &str, flags: &[&str]) -> Process {
        self.agent_in(Command::new(env!("CARGO_BIN_EXE_enlist")), id, id, flags)
    }

    /// The same started by another program, and with another state directory.
    fn agent_in(&self, command: Command, id: &str, state: &str, flags: &[&str]) -> Process {
        let state = self.path(state);
        let fixed = ["agent", "--id", id, "--state-dir", state.to_str().unwrap(), "--lease-ttl", "2s", "--port", "http"];
        self.start(self.with_stores(command, &[&fixed[..], flags].concat()))
    }

    /// An agent with a child that listens nowhere; answers the file in which each child leaves its process id.
    fn agent_with_deaf_child(&self, id: &str, flags: &[&str]) -> (Process, PathBuf) {
        let file = self.path(&format!("pid-{}", free_port()));
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
        (self.agent(id, &[flags, &["--", "sh", "-c", &script]].concat()), file)
    }

    /// The same, and the agent does not mind.
    fn agent_with_child(&self, id: &str, flags: &[&str]) -> (Process, PathBuf) {
        self.agent_with_deaf_child(id, &[flags, &["--no-ready-check"]].concat())
    }

    /// Runs a command to its end.
    async fn say(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The same; it must end well.
    async fn ok(&self, arguments: &[&str]) -> String {
        let said = self.say(arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    /// `enlist apply` of these documents.
    async fn apply(&self, documents: &str) {
        let file = self.path(&format!("documents-{}.yaml", free_port()));
        std::fs::write(&file, documents).unwrap();
        self.ok(&["apply", "-f", file.to_str().unwrap()]).await;
    }

    /// A key below the prefix, with its revisions.
    async fn key(&self, key: &str) -> Option<KeyValue> {
        self.store.get(format!("/enlist/{key}")).await.unwrap().1
    }

    /// Its value; `null` if it is not there.
    async fn json(&self, key: &str) -> Json {
        self.key(key).await.map_or(Json::Null, |kv| serde_json::from_slice(&kv.value).unwrap())
    }

    /// Waits until the value of a key is as wanted, and gives it.
    async fn until_json(&self, key: &str, what: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        let what = format!("{key}: {what}");
        until(&what, LIMIT, || async {
            let value = self.json(key).await;
            wanted(&value).then_some(value)
        })
        .await
    }

    /// Waits until a node has acknowledged its present answer, and gives that.
    async fn registered(&self, id: &str) -> Json {
        let what = format!("{id} is registered");
        until(&what, LIMIT, || async {
            let assignment = self.json(&format!("nodes/{id}/assignment")).await;
            let status = self.json(&format!("nodes/{id}/status")).await;
            let acknowledged = status["generation"] == assignment["generation"] && assignment["state"] == "bound";
            (status["phase"] == "registered" && acknowledged).then_some(assignment)
        })
        .await
    }

    async fn until_waiting(&self, id: &str, reason: &str) -> Json {
        let wanted = |answer: &Json| answer["state"] == "waiting" && answer["reason"] == reason;
        self.until_json(&format!("nodes/{id}/assignment"), reason, wanted).await
    }

    /// Waits until a process has said this in its log.
    async fn until_said(&self, process: &Process, text: &str) {
        until(&format!("{text:?} in a log"), LIMIT, || async { process.log().contains(text).then_some(()) }).await;
    }

    async fn until_gone(&self, key: &str) {
        self.until_json(key, "gone", Json::is_null).await;
    }

    /// Where the groups are: the manager's store and prefix.
    fn groups(&self) -> (&Store, &'static str) {
        match &self.manager {
            Some((_, store)) => (store, "/core/manager/groups/"),
            None => (&self.store, "/enlist/manager/groups/"),
        }
    }

    /// Waits until exactly these members are in a group, all ready.
    async fn until_members(&self, group: &str, ids: &[&str]) {
        let (store, prefix) = self.groups();
        let what = format!("{ids:?} are the members of {group}");
        until(&what, LIMIT, || async {
            let found: BTreeMap<String, String> = read(store, &format!("{prefix}{group}/members/")).await;
            let ready = found.values().all(|member| member.contains(r#""state":"ready","published":true"#));
            (found.keys().eq(ids) && ready).then_some(())
        })
        .await;
    }

    /// Waits until `enlist check` finds nothing any more.
    async fn until_nothing_found(&self) {
        until("check finds nothing", LIMIT, || async { (self.say(&["check"]).await.code == 0).then_some(()) }).await;
    }

    /// The whole history of the source.
    async fn history(&self) -> BTreeMap<Revision, Vec<Event>> {
        put(&self.store, "/end", "").await;
        let request = enlist::store::api::WatchRequest { range: KeyRange::prefix("/"), start: Revision(1), beside: false };
        let mut watch = self.store.watch(request).await.unwrap();
        subject::next(&mut watch).await;
        let mut history: BTreeMap<Revision, Vec<Event>> = BTreeMap::new();
        loop {
            let (_, events, _) = subject::response(&mut watch).await;
            let is_end = events.iter().any(|event| *event.key() == Key::from("/end"));
            events.into_iter().for_each(|event| history.entry(event.revision()).or_default().push(event));
            if is_end {
                return history;
            }
        }
    }

    /// Nothing is wrong now, and nothing was at any revision: no double grant, claims equal assignments, nobody was moved or
    /// released without a reason.
    async fn sound(&self) {
        self.until_nothing_found().await;
        let mut walk = Walk::new(enlist::store::keys::Prefix::default(), Allowed::default(), Times::default());
        let wrong: Vec<String> = self.history().await.into_iter().flat_map(|(at, events)| walk.take(at, events)).collect();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(walk.revisions() > 5, "the history has {} revisions", walk.revisions());
    }
}

/// A pool of these addresses, with a cooldown that a test can wait for.
fn pool(name: &str, cidr: &str, hold: &str, more: &str) -> String {
    format!("{{kind: Pool, name: {name}, cidrs: [{cidr}], hold: {hold}, cooldown: 2s{more}}}\n---\n")
}

/// A hold that a test can wait for.
const SHORT: &str = "2s";
/// A hold that no restart misses, however busy the machine is.
const LONG: &str = "60s";

/// The process id that a child left in a file, which is then removed for the next one.
async fn child_in(file: &std::path::Path) -> i32 {
    let text = until_file(file, |text| text.ends_with('\n')).await;
    std::fs::remove_file(file).unwrap();
    text.trim().parse().unwrap()
}
