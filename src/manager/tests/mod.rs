//! The manager's pure parts: builders, and a store small enough to see through.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod copies;
mod frozen;
mod groups;
mod index;
mod property;
mod role;
mod state;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::diff::{GroupChange, units};
use super::view::View;
use crate::model::group::Member;
use crate::model::names::Revision;
use crate::store::api::{Compare, Event, Header, Key, KeyValue, LeaseId, Op, RangeResponse};
use crate::store::feed::Update;
use crate::store::keys::Prefix;
use crate::store::wire::{Checkpoint, Partial, Stored, Summary};

fn label(node: &str, variables: &[(&str, &str)]) -> String {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    format!(
        r#"{{"v":1,"id":"{node}","instance":"i","boot":"b","run":"r","temporary":{{"ip":"192.0.2.1","port":1}},"variables":{}}}"#,
        serde_json::to_string(&variables).unwrap()
    )
}

fn status(phase: &str, generation: i64) -> String {
    format!(r#"{{"v":1,"instance":"i","boot":"b","run":"r","phase":"{phase}","generation":{generation}}}"#)
}

fn bound(node: &str, generation: i64, ip: &str) -> String {
    format!(
        r#"{{"v":1,"node":"{node}","instance":"i","state":"bound","pool":"p","domain":"default","sharing":"exclusive",
        "addresses":["{ip}"],"ports":{{"http":8000,"metrics":9000}},"generation":{generation},"asked":"9f86d081884c7d65",
        "hold_s":600,"cooldown_s":60,"on_isolation":"keep"}}"#
    )
}

fn waiting(node: &str) -> String {
    format!(
        r#"{{"v":1,"node":"{node}","instance":"i","state":"waiting","reason":"pool-full","message":"full","generation":9,"asked":"9f86d081884c7d65"}}"#
    )
}

fn group(name: &str, selector: &str, more: &str) -> String {
    format!(r#"{{"v":1,"kind":"Group","name":"{name}","selector":"{selector}"{more}}}"#)
}

fn put(key: &str, value: impl Into<Bytes>, at: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: Revision(at),
        mod_revision: Revision(at),
        version: 1,
        lease: LeaseId::NONE,
    }
}

fn checkpoint(revision: i64, partial: bool) -> Bytes {
    let partial = partial.then_some(Partial { to: Revision(revision + 1), part: 1 });
    let (source, cluster, left_out) = ("edge".into(), "7".into(), Vec::new());
    Checkpoint { v: 1, source, cluster, revision: Revision(revision), partial, left_out }.encode()
}

/// A store with a manager that looks at it.
#[derive(Debug, Clone)]
struct World {
    revision: i64,
    kvs: BTreeMap<Key, KeyValue>,
    view: View,
}

fn prefix() -> Prefix {
    Prefix::default()
}

impl World {
    /// Ready: no nodes, no groups, a complete checkpoint.
    fn new() -> Self {
        let mut world = World { revision: 0, kvs: BTreeMap::new(), view: View::new(prefix()) };
        world.commit(vec![Op::put("/enlist/manager/checkpoint", checkpoint(1, false))]);
        world.restart();
        world
    }

    fn below(&self, folder: &str) -> Vec<KeyValue> {
        let folder = format!("/enlist/{folder}");
        self.kvs.values().filter(|kv| kv.key.as_str().unwrap().starts_with(&folder)).cloned().collect()
    }

    fn reset(&self, folder: &str) -> Update {
        let revision = Revision(self.revision);
        Update::Reset { revision, cluster_id: 1, kvs: self.below(folder), stepped_back: false }
    }

    fn restart(&mut self) {
        self.view = View::new(prefix());
        self.view.apply_manager(self.reset("manager/"));
        self.view.apply_groups(self.reset("groups/"));
        self.view.apply_brake(self.reset("brakes/manager"));
    }

    /// Writes without telling the manager; answers the events.
    fn commit(&mut self, ops: Vec<Op>) -> Vec<Event> {
        self.revision += 1;
        let mut events = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, .. } => {
                    let kv = put(key.as_str().unwrap(), value, self.revision);
                    self.kvs.insert(key, kv.clone());
                    events.push(Event::Put(kv));
                }
                Op::Delete(range) => {
                    if self.kvs.remove(&range.start).is_some() {
                        events.push(Event::Delete { key: range.start, mod_revision: Revision(self.revision) });
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        events
    }

    fn tell(&mut self, events: Vec<Event>) {
        let of = |folder: &str| {
            let mine = |event: &&Event| event.key().as_str().unwrap().starts_with(&format!("/enlist/{folder}"));
            let events = events.iter().filter(mine).cloned().collect();
            Update::Events { revision: Revision(self.revision), events }
        };
        self.view.apply_manager(of("manager/"));
        self.view.apply_groups(of("groups/"));
        self.view.apply_brake(of("brakes/"));
    }

    fn write(&mut self, ops: Vec<Op>) {
        let events = self.commit(ops);
        self.tell(events);
    }

    /// The relay's cut: copies (`None` = deleted) and the checkpoint, at one revision.
    fn cut(&mut self, copies: &[(&str, Option<String>)]) {
        self.cut_part(copies, false);
    }

    fn cut_part(&mut self, copies: &[(&str, Option<String>)], partial: bool) {
        let revision = self.revision;
        let mut ops = vec![Op::put("/enlist/manager/checkpoint", checkpoint(revision, partial))];
        for (key, value) in copies {
            let key = format!("/enlist/manager/nodes/{key}");
            ops.push(value.as_ref().map_or_else(|| Op::delete(key.as_str()), |v| Op::put(key.as_str(), v.clone())));
        }
        self.write(ops);
    }

    /// A node that is registered at `ip`.
    fn ready(&mut self, node: &str, ip: &str, variables: &[(&str, &str)]) {
        self.cut(&[
            (&format!("{node}/label"), Some(label(node, variables))),
            (&format!("{node}/assignment"), Some(bound(node, 5, ip))),
            (&format!("{node}/status"), Some(status("registered", 5))),
        ]);
    }

    fn define(&mut self, name: &str, value: &str) {
        self.write(vec![Op::put(format!("/enlist/groups/{name}"), value.to_owned())]);
    }

    fn undefine(&mut self, name: &str) {
        self.write(vec![Op::delete(format!("/enlist/groups/{name}"))]);
    }

    /// One pass: plans, writes, sees what it wrote. Answers the changes.
    fn pass(&mut self) -> Vec<GroupChange> {
        let changes = self.view.plan();
        for change in &changes {
            for unit in units(change, &prefix()) {
                for compare in &unit.compares {
                    let Compare::Modified(key, seen) = compare else { panic!("{compare:?}") };
                    assert_eq!(self.kvs.get(key).map_or(Revision::NONE, |kv| kv.mod_revision), *seen, "{key}");
                }
                self.write(unit.writes);
            }
        }
        changes
    }

    /// Passes until nothing is left; answers how many writes that took.
    fn run(&mut self) -> usize {
        let mut writes = 0;
        loop {
            let changes = self.pass();
            if changes.is_empty() {
                assert!(!self.view.is_marked());
                return writes;
            }
            writes += changes.iter().map(|c| c.members.len() + usize::from(c.summary.is_some())).sum::<usize>();
            assert!(writes < 100_000, "it does not come to an end: {changes:?}");
        }
    }

    /// Summaries and members as stored, e.g. `web: 2 members, 1 published, ok` and `web/a: ready, published, 10.0.0.1, http=8000`.
    fn groups(&self) -> Vec<String> {
        self.below("manager/groups/")
            .iter()
            .map(|kv| {
                let key = kv.key.as_str().unwrap().strip_prefix("/enlist/manager/groups/").unwrap();
                match key.split_once("/members/") {
                    None => Summary::decode(&kv.value).map_or_else(|_| format!("{key}: ?"), |s| summary_line(&s)),
                    Some((group, node)) => {
                        Member::decode(&kv.value).map_or_else(|_| format!("{key}: ?"), |m| member_line(group, node, &m))
                    }
                }
            })
            .collect()
    }

    fn check(&self) -> Vec<String> {
        let header = Header { cluster_id: 1, member_id: 1, revision: Revision(self.revision) };
        let read = |folder: &str| RangeResponse { header, kvs: self.below(folder), more: false, count: 0 };
        super::check(&prefix(), &read("groups/"), &read("manager/"), self.kvs.get(&"/enlist/brakes/manager".into()))
            .into_iter()
            .map(|finding| format!("{} {}", finding.code, finding.keys.join(" ")))
            .collect()
    }
}

fn summary_line(summary: &Summary) -> String {
    let condition = match &summary.condition {
        crate::store::wire::Condition::Ok => "ok",
        crate::store::wire::Condition::Frozen { .. } => "frozen",
    };
    format!("{}: {} members, {} published, {condition}", summary.group, summary.members, summary.published)
}

fn member_line(group: &str, node: &str, member: &Member) -> String {
    let published = if member.published { "published" } else { "not published" };
    let addresses: Vec<String> = member.addresses.iter().map(ToString::to_string).collect();
    let ports: Vec<String> = member.ports.iter().map(|(name, port)| format!("{name}={port}")).collect();
    format!("{group}/{node}: {}, {published}, {}, {}", member.state, addresses.join(" "), ports.join(" "))
}
