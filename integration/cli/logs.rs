//! What roles and agents log: a line of JSON is flat and has each name once, and an assignment that changes is told as from, to, why.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value as Json;

use super::{At, Running};

/// A JSON object in which no name stands twice: readers differ in which of the two they keep.
struct Once(BTreeMap<String, Json>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Once;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut once = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Json>()? {
                    if once.insert(name.clone(), value).is_some() {
                        return Err(Error::custom(format!("{name} stands twice")));
                    }
                }
                Ok(Once(once))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

fn parsed(line: &str) -> BTreeMap<String, Json> {
    let once: Once = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    once.0
}

#[test]
fn lines_of_json_tell_from_to_and_why() {
    let at = At::start();
    let folder = tempfile::tempdir().unwrap();
    at.pipe(&["apply", "-f", "-"], "{kind: Pool, name: eu, cidrs: [127.20.0.0/24], selector: zone=eu-1}").ok();
    let mut roles = Running::start(at.command(&["run", "allocator", "--log-format", "json"]));
    let agent = |id: &str, zone: &str| {
        let state = folder.path().join(id);
        let variable = format!("zone={zone}");
        let arguments = ["agent", "--id", id, "--state-dir", state.to_str().unwrap(), "--var", &variable, "--log-format", "json"];
        Running::start(at.command(&arguments))
    };
    let change = |line: String| {
        let line = parsed(&line);
        ["from", "to", "reason"].map(|field| line.get(field).and_then(Json::as_str).unwrap_or("?").to_owned())
    };

    let mut served = agent("served", "eu-1");
    let [from, to, reason] = change(roles.line("assignment changed"));
    assert_eq!((from.as_str(), reason.as_str()), ("nothing", "the node's id hashes to it"));
    assert!(to.starts_with("127.20.0.") && to.contains("main="), "{to}");
    served.line("registered");

    let mut waits = agent("waits", "mars");
    assert_eq!(change(roles.line("assignment changed")), ["nothing", "waiting", "no pool's selector matches the label"]);
    let told = parsed(&waits.line("waiting for an assignment"));
    assert_eq!((&told["message"], &told["reason"]), (&"waiting for an assignment".into(), &"no-pool-matches".into()));
    let cannot = parsed(&waits.line("no-pool-matches: "));
    for line in [&told, &cannot] {
        assert_eq!(line.get("node"), Some(&"waits".into()), "an agent's line names its node: {line:?}");
        assert!(line.values().all(|value| !value.is_object() && !value.is_array()), "{line:?}");
    }

    for agent in [&mut waits, &mut served] {
        agent.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(agent.end(), 0);
    }
    assert_eq!(change(roles.line("assignment changed")), ["waiting", "nothing", "it is away"]);
    at.run(&["leave", "served"]).ok();
    assert_eq!(change(roles.line("assignment changed")), [to.as_str(), "nothing", "it left"]);
    for one in [&mut roles, &mut served, &mut waits] {
        one.said.extend(one.lines.try_iter());
        one.said.iter().for_each(|line| drop(parsed(line)));
    }
}
