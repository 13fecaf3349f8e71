//! Every parser, with texts that are nearly right: no panic, a value that is read and written again stays the same, and
//! no value is read as another kind.
//!
//! A few hundred cases each in a usual test run; `scripts/fuzz --minutes M [TARGET]` runs for the given time, with
//! other cases each time. A case that fails there becomes a test beside the parser. Needs nothing.

pub(crate) mod good;
pub(crate) mod near;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::Bytes;
use enlist::Selector;
use enlist::config::load::{Inputs, load};
use enlist::model::documents::{from_stored, parse, to_stored, to_yaml};
use enlist::model::group::{GroupKey, Member};
use enlist::model::hold::Hold;
use enlist::model::names::{NodeId, PortName};
use enlist::store::api::Key;
use enlist::store::keys::{ParsedKey, Prefix};
use enlist::store::wire::{Checkpoint, RoleReport, Stored, Summary};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use near::{near, near_text};

/// Cases of a usual run.
const CASES: u32 = 400;
/// Cases between two checks of the clock.
const ROUND: u32 = 2_000;

type Verdict = Result<(), TestCaseError>;

/// Runs the cases of a target: a few, or as many as fit into `FUZZ_MINUTES`.
fn fuzz<T: Debug>(cases: impl Strategy<Value = T>, target: impl Fn(T) -> Verdict) {
    let minutes: Option<f64> = std::env::var("FUZZ_MINUTES").ok().map(|text| text.parse().unwrap());
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let mut done = 0;
    loop {
        let count = if end.is_some() { ROUND } else { CASES };
        let config = Config { cases: count, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
        if let Err(error) = TestRunner::new(config).run(&cases, &target) {
            panic!("after {done} cases: {error}");
        }
        done += count;
        if end.is_none_or(|end| Instant::now() >= end) {
            eprintln!("{done} cases");
            return;
        }
    }
}

fn owned(good: &[&str]) -> Vec<String> {
    good.iter().map(|text| (*text).to_owned()).collect()
}

/// Every value that is read is written and read as the same value, and the second writing equals the first.
fn stored<T: Stored + PartialEq + Debug>(good: &[&str]) {
    for text in good {
        assert!(T::decode(text.as_bytes()).is_ok(), "{text}: {:?}", T::decode(text.as_bytes()));
    }
    fuzz(near(owned(good)), |bytes| {
        if let Ok(value) = T::decode(&bytes) {
            let written: Bytes = value.encode();
            let again = T::decode(&written);
            prop_assert_eq!(again.as_ref(), Ok(&value), "{:?}", String::from_utf8_lossy(&bytes));
            prop_assert_eq!(again.unwrap().encode(), written);
        }
        Ok(())
    });
}

#[test]
fn labels() {
    stored::<enlist::Label>(&good::LABELS);
}

#[test]
fn statuses() {
    stored::<enlist::model::status::Status>(&good::STATUSES);
}

#[test]
fn assignments() {
    stored::<enlist::Assignment>(&good::ASSIGNMENTS);
}

#[test]
fn claims() {
    stored::<enlist::model::claim::Claim>(&good::CLAIMS);
}

#[test]
fn holds() {
    stored::<Hold>(&good::HOLDS);
}

#[test]
fn managed() {
    stored::<Checkpoint>(&good::MANAGED[..1]);
    stored::<Summary>(&good::MANAGED[1..2]);
    stored::<Member>(&good::MANAGED[2..3]);
    stored::<RoleReport>(&good::MANAGED[3..]);
}

#[test]
fn selectors() {
    let variables = ["zone", "a", "c", "x", "gpu", "n", "role", "d", "e"].map(|name| (name.to_owned(), "7".to_owned()));
    let variables = BTreeMap::from(variables);
    fuzz(near_text(&good::SELECTORS), |text| {
        if let Ok(selector) = text.parse::<Selector>() {
            let canonical = selector.to_string();
            let again = canonical.parse::<Selector>();
            prop_assert_eq!(again.as_ref(), Ok(&selector), "{:?} is printed as {:?}", text, canonical);
            prop_assert_eq!(again.unwrap().matches(&variables), selector.matches(&variables));
        }
        Ok(())
    });
}

/// The stored forms of pools and groups.
#[test]
fn definitions() {
    let good: Vec<&str> = good::POOLS.iter().chain(&good::GROUPS).copied().collect();
    for text in &good {
        assert!(from_stored(text.as_bytes()).is_ok(), "{text}: {:?}", from_stored(text.as_bytes()));
    }
    fuzz(near(owned(&good)), |bytes| {
        if let Ok(document) = from_stored(&bytes) {
            prop_assert_eq!(from_stored(to_stored(&document).as_bytes()), Ok(document));
        }
        Ok(())
    });
}

/// Documents as operators write them: YAML and JSON.
#[test]
fn yaml() {
    for text in good::DOCUMENTS {
        assert!(parse("good", text).is_ok(), "{text}: {:?}", parse("good", text));
    }
    fuzz(near_text(&good::DOCUMENTS), |text| {
        match parse("f", &text) {
            Ok(documents) => {
                let yaml: Vec<String> = documents.iter().map(to_yaml).collect();
                prop_assert_eq!(parse("f", &yaml.join("---\n")), Ok(documents), "{:?}", text);
            }
            Err(errors) => {
                prop_assert!(!errors.is_empty(), "rejected without an error: {:?}", text);
                // Every error has a text.
                prop_assert!(errors.iter().all(|error| error.to_string().starts_with("f:") || error.to_string() != "f"));
            }
        }
        Ok(())
    });
}

#[test]
fn keys() {
    for text in good::KEYS {
        assert_ne!(Prefix::default().parse(&Key::from(text)), ParsedKey::Foreign, "{text}");
    }
    let prefix = Prefix::default();
    fuzz(near(owned(&good::KEYS)), |bytes| {
        let key = Key::from(bytes);
        // One key for one thing: the parsed key builds that very key.
        let written = match prefix.parse(&key) {
            ParsedKey::Pool(name) => prefix.pool(&name),
            ParsedKey::Group(name) => prefix.group(&name),
            ParsedKey::Brake(role) => prefix.brake(role),
            ParsedKey::Applied(set, kind) => prefix.applied(&set, kind),
            ParsedKey::Node(node, part) => prefix.node(&node, part),
            ParsedKey::Claim(claim) => prefix.claim(&claim),
            ParsedKey::Copy(node, part) => prefix.copy(&node, part),
            ParsedKey::Checkpoint => prefix.checkpoint(),
            ParsedKey::Lineage => prefix.lineage(),
            ParsedKey::Summary(segment) => prefix.summary(&segment),
            ParsedKey::Member(segment, node) => prefix.member(&segment, &node),
            ParsedKey::Role(role) => prefix.role(role),
            ParsedKey::Leader(role, lease) => prefix.key(format_args!("leaders/{role}/{lease}")),
            ParsedKey::Foreign => return Ok(()),
        };
        prop_assert_eq!(written, key);
        Ok(())
    });
}

/// Ids, port names, prefixes, durations, and groups in both forms.
#[test]
fn names() {
    let good =
        ["edge-7", "rack.eu-1.example.com", "http", "/enlist", "web/zone=eu-1,rack=r2", "web%2Fzone=eu-1", "1h 30m", "60s"];
    fuzz(near_text(&good), |text| {
        if let Ok(id) = text.parse::<NodeId>() {
            prop_assert_eq!(id.as_str(), &text);
        }
        if let Ok(name) = text.parse::<PortName>() {
            prop_assert_eq!(name.as_str(), &text);
        }
        if let Ok(prefix) = text.parse::<Prefix>() {
            prop_assert_eq!(prefix.to_string().parse::<Prefix>().ok(), Some(prefix));
        }
        if let Ok(key) = text.parse::<GroupKey>() {
            prop_assert_eq!(key.to_string().parse::<GroupKey>().ok(), Some(key));
        }
        if let Ok(key) = GroupKey::from_segment(&text) {
            prop_assert_eq!(key.segment(), text.clone());
        }
        if let Ok(duration) = enlist::model::duration::parse(&text) {
            prop_assert_eq!(enlist::model::duration::parse(&enlist::model::duration::print(duration)), Ok(duration));
        }
        Ok(())
    });
}

/// A file, variables of the environment, flags.
#[test]
fn settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enlist.toml");
    let good = include_str!("../../config/enlist.toml");
    let texts = [good, "[source]\nendpoints = [\"127.0.0.1:2379\"]\n[agent.variables]\nzone = \"eu-1\"\n"];
    let flags = ["source.prefix", "agent.lease_ttl", "agent.variables", "manager.endpoints", "log.format", "roles.leader_ttl"];
    let values = ["/enlist", "15s", "zone=eu-1", "a:1,b:2", "json", "0s", "[1,2]", "true"];
    let names = ["ENLIST__SOURCE__PREFIX", "ENLIST__AGENT__LEASE_TTL", "ENLIST__AGENT__VARIABLES__ZONE", "ENLIST__LOG"];
    let cases = (near(owned(&texts)), near_text(&names), near_text(&values), proptest::sample::select(flags.to_vec()));
    fuzz(cases, |(file, name, value, flag)| {
        std::fs::write(&path, file).unwrap();
        let environment = BTreeMap::from([(name, value.clone())]);
        let inputs = Inputs { file: Some(path.clone()), environment, flags: vec![("--flag", flag, value)] };
        match load(&inputs) {
            Ok(loaded) => drop((loaded.source().is_ok(), loaded.manager().is_ok())),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        Ok(())
    });
}
