//! Everything that a change rests on is compared: touched between decision and commit, it refuses the change.

use crate::model::label::{Holding, Label, Want};
use crate::model::names::Revision;
use crate::model::pool::Pool;
use crate::plan::change::{Action, Subject};
use crate::plan::snapshot::{Snapshot, Stored, Unreadable};
use crate::plan::testing::apply::apply_change;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    Lab::new([Pool { ports: "30000-30001".parse().unwrap(), ..pool("eu", &["10.0.0.0/30"]) }])
}

/// Node `a`, that wants a certain address and `main` at a certain port.
fn a(address: &str, port: u16) -> Label {
    let want = Want { addresses: vec![address.parse().unwrap()], ports: [("main".parse().unwrap(), port)].into() };
    Label { want, ..label("a") }
}

/// `a` is bound to 10.0.0.1 and its port 30000.
fn bound() -> Lab {
    let mut lab = lab();
    lab.join(a("10.0.0.1", 30000));
    lab.run();
    lab.acknowledge("a");
    lab
}

fn dead() -> Lab {
    let mut lab = bound();
    lab.die("a");
    lab
}

fn held() -> Lab {
    let mut lab = dead();
    lab.run();
    lab
}

/// The key is written, or deleted and written again, by somebody else.
fn touch(snapshot: &mut Snapshot, subject: &Subject) {
    fn another<T, S: From<Stored<T>>>(revision: Revision) -> Option<S> {
        let value = Err(Unreadable::Invalid("another".into()));
        Some(Stored { value, create_revision: revision, mod_revision: revision, leased: false }.into())
    }
    snapshot.revision = snapshot.revision.next();
    let revision = snapshot.revision;
    match subject {
        Subject::Label(node) => snapshot.nodes.entry(node.clone()).or_default().label = another(revision),
        Subject::Status(node) => snapshot.nodes.entry(node.clone()).or_default().status = another(revision),
        Subject::Assignment(node) => snapshot.nodes.entry(node.clone()).or_default().assignment = another(revision),
        Subject::Hold(node) => snapshot.nodes.entry(node.clone()).or_default().hold = another(revision),
        Subject::Clock(node) => snapshot.nodes.entry(node.clone()).or_default().clock = another(revision),
        Subject::Claim(key) => {
            snapshot.claims.extend(another(revision).map(|claim| (key.clone(), claim)));
        }
    }
}

/// The change of `a` must be this action, hold as it is, and lose when any of these is touched: parts of `a`, or claims.
fn check(lab: &Lab, action: Action, rests_on: &[&str]) {
    let plan = lab.plan();
    let of_a = |change: &&crate::plan::change::Change| change.node == id("a");
    let change = plan.changes.iter().find(of_a).unwrap_or_else(|| panic!("no {action:?}"));
    assert_eq!(change.action, action);
    assert_eq!(apply_change(&mut lab.snapshot.clone(), change), Ok(()));
    for what in rests_on {
        let subject = match *what {
            "label" => Subject::Label(id("a")),
            "status" => Subject::Status(id("a")),
            "assignment" => Subject::Assignment(id("a")),
            "hold" => Subject::Hold(id("a")),
            "clock" => Subject::Clock(id("a")),
            claim => Subject::Claim(key(claim)),
        };
        let mut touched = lab.snapshot.clone();
        touch(&mut touched, &subject);
        assert!(apply_change(&mut touched, change).is_err(), "{action:?} does not rest on {what}");
    }
}

#[test]
fn an_answer_rests_on_who_asks_and_on_everything_that_it_claims() {
    let asker = ["label", "status", "assignment"];
    let mut lab = lab();
    lab.join(a("10.0.0.1", 30000));
    check(&lab, Action::Assign, &[&asker[..], &["10.0.0.1", "10.0.0.1/30000", "10.0.0.1/7"]].concat());

    let mut lab = bound();
    lab.relabel(a("10.0.0.2", 30001));
    check(&lab, Action::Move, &[&asker[..], &["10.0.0.2", "10.0.0.2/30001", "10.0.0.2/7"]].concat());
    // A port more on its own address: that is still its own, and the port free.
    lab.relabel(Label { ports: vec!["main".parse().unwrap(), "more".parse().unwrap()], ..a("10.0.0.1", 30000) });
    check(&lab, Action::Move, &[&asker[..], &["10.0.0.1", "10.0.0.1/30001"]].concat());

    lab.relabel(label_with_ports("a", &["main"]));
    check(&lab, Action::Refresh, &asker);
    lab.relabel(label_wanting("a", "10.9.9.9"));
    check(&lab, Action::Wait, &asker);
}

#[test]
fn a_shared_port_rests_on_nobody_having_the_address_whole() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30000")]);
    lab.join(label("a"));
    check(&lab, Action::Assign, &["label", "status", "assignment", "10.0.0.1", "10.0.0.1/30000"]);
}

#[test]
fn what_is_settled_or_void_rests_on_the_word_of_the_node_and_on_what_is_given_up() {
    let mut lab = bound();
    lab.relabel(a("10.0.0.2", 30001));
    lab.step();
    lab.acknowledge("a");
    check(&lab, Action::Settle, &["label", "status", "assignment", "10.0.0.1", "10.0.0.1/30000"]);

    let mut lab = bound();
    let ports = [("main".parse().unwrap(), 30000)].into();
    let holding = Holding { generation: Revision(900), addresses: vec!["10.0.0.2".parse().unwrap()], ports, mark: None };
    lab.relabel(Label { holding: Some(Box::new(holding)), ..label("a") });
    check(&lab, Action::Void, &["label", "status", "assignment", "10.0.0.1", "10.0.0.1/30000"]);
}

#[test]
fn a_hold_rests_on_the_absence_that_was_seen() {
    let mut lab = dead();
    check(&lab, Action::HoldSeen, &["label", "status", "assignment", "hold"]);
    lab.step();
    check(&lab, Action::HoldStart, &["hold"]);

    let mut lab = bound();
    for node in ["b", "c"] {
        lab.put_pool(pool("us", &["10.1.0.0/24"]));
        lab.join(label(node));
    }
    lab.run();
    for node in ["a", "b", "c"] {
        lab.die(node);
    }
    lab.run();
    lab.clock_ends("a");
    check(&lab, Action::HoldExtend, &["hold", "clock"]);
}

#[test]
fn a_release_rests_on_its_reason_and_on_what_is_given_up() {
    let given_up = ["status", "assignment", "hold", "10.0.0.1", "10.0.0.1/30000"];
    let mut lab = held();
    lab.clock_ends("a");
    check(&lab, Action::Release, &[&given_up[..], &["clock"]].concat());
    lab.step();
    lab.clock_ends("a");
    check(&lab, Action::Forget, &["label", "status", "assignment", "hold", "clock"]);

    let mut lab = bound();
    lab.leave("a");
    check(&lab, Action::Release, &[&given_up[..], &["label"]].concat());
}

#[test]
fn a_repair_rests_on_what_it_found() {
    let mut lab = bound();
    lab.put_claim("10.0.0.2", "a");
    check(&lab, Action::Repair, &["assignment", "10.0.0.2"]);

    let mut lab = bound();
    lab.delete_claim("10.0.0.1");
    check(&lab, Action::Repair, &["assignment", "10.0.0.1", "10.0.0.1/30000"]);
    lab.delete_claim("10.0.0.1/30000");
    check(&lab, Action::Repair, &["assignment", "10.0.0.1", "10.0.0.1/30000", "10.0.0.1/7"]);

    let mut lab = held();
    let hold = (lab.record("a").hold.clone(), lab.record("a").clock.clone());
    lab.join(a("10.0.0.1", 30000));
    lab.edit("a", |record, _| (record.hold, record.clock) = hold);
    check(&lab, Action::Repair, &["status", "hold", "clock"]);
}
