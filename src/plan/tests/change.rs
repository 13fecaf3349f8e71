//! A node asks for something else: refresh, ports more and less, moves, waiting; what is leaving.

use crate::model::assignment::Reason;
use crate::model::label::Label;
use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/28"])]);
    lab.join(label_with_ports("a", &["http", "metrics"]));
    lab.run();
    lab.acknowledge("a");
    lab
}

#[test]
fn the_same_addresses_and_ports_under_a_new_label_keep_their_generation() {
    let mut lab = lab();
    let before = lab.assignment("a").clone();
    let mut next = label_with_ports("a", &["metrics", "http"]);
    next.variables.insert("zone", "eu-1").unwrap();
    next.instance = "re-installed".parse().unwrap();
    lab.relabel(next.clone());
    lab.edit_pool("eu", |pool| pool.cooldown = std::time::Duration::from_secs(7));
    assert_eq!(lab.run(), [(Action::Refresh, id("a"))]);
    let after = lab.assignment("a");
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.bound().unwrap().addresses, before.bound().unwrap().addresses);
    assert_eq!(after.bound().unwrap().ports, before.bound().unwrap().ports);
    assert_eq!((&after.instance, after.bound().unwrap().terms.cooldown_s), (&next.instance, 7));
    assert!(after.asked.answers(&next));
}

#[test]
fn a_holder_adds_and_drops_ports_and_its_claims_are_its_assignments_at_every_step() {
    let mut lab = lab();
    let address = lab.addresses("a");
    let ports = lab.assignment("a").bound().unwrap().ports.clone();
    let [http, metrics] = ["http", "metrics"].map(|name| ports.get(&name.parse().unwrap()).unwrap());
    lab.relabel(label_with_ports("a", &["http", "metrics", "admin"]));
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_eq!(lab.addresses("a"), address);
    assert_eq!(lab.assignment("a").leaving, [], "nothing of the old answer goes");
    assert!(lab.ports("a").ends_with(&format!("http={http},metrics={metrics}")));
    lab.acknowledge("a");
    lab.relabel(label_with_ports("a", &["http"]));
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_eq!(lab.claim(&format!("{address}/{metrics}")), Some("bound a".into()));
    assert_eq!(check(&lab.snapshot), []);
    lab.acknowledge("a");
    assert_eq!(lab.run(), [(Action::Settle, id("a"))]);
    assert_eq!(lab.claim(&format!("{address}/{metrics}")), None);
    assert_eq!(lab.claim(&format!("{address}/{http}")), Some("bound a".into()));
    assert_eq!(lab.claim(&address), Some("bound a".into()));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_port_under_another_name_may_have_the_number_of_a_dropped_one() {
    let mut lab = Lab::new([crate::model::pool::Pool { ports: "30000".parse().unwrap(), ..pool("eu", &["10.0.0.0/28"]) }]);
    lab.join(label("a"));
    lab.run();
    lab.relabel(label_with_ports("a", &["http"]));
    lab.run();
    assert_eq!(lab.ports("a"), "http=30000");
}

#[test]
fn bound_waiting_bound_and_release_bound_each_have_a_new_generation() {
    let mut lab = lab();
    let address = lab.addresses("a");
    let first = lab.assignment("a").generation;
    lab.join(label_wanting("other", "10.0.0.14"));
    lab.run();
    lab.relabel(label_wanting("a", "10.0.0.14"));
    assert_eq!(lab.run(), [(Action::Wait, id("a"))]);
    let second = lab.assignment("a").generation;
    assert!(second > first);
    assert_eq!(lab.reason("a"), Some(Reason::AddressTaken));
    assert_eq!(lab.claim(&address), Some("bound a".into()), "until the node says that it withdrew");
    // It changes its mind before it withdrew: it gets back what it had.
    let mut undecided = lab.clone();
    undecided.relabel(label_with_ports("a", &["http", "metrics"]));
    assert_eq!(undecided.run(), [(Action::Assign, id("a"))]);
    assert_eq!(undecided.addresses("a"), address);
    assert!(undecided.assignment("a").generation > second);
    assert_eq!(check(&undecided.snapshot), []);
    // It withdrew.
    lab.acknowledge("a");
    assert_eq!(lab.run(), [(Action::Settle, id("a"))]);
    assert_eq!(lab.claim(&address), Some("cooling a".into()));
    // Its own cooling address is given back to it, and to nobody else.
    lab.relabel(label("a"));
    lab.run();
    assert_eq!(lab.addresses("a"), address);
    assert!(lab.assignment("a").generation > second);
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_waiting_node_with_addresses_leaving_dies_and_nothing_leaks() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.relabel(label_wanting("a", "192.0.2.1"));
    lab.run();
    lab.die("a");
    assert_eq!(lab.run(), [(Action::HoldSeen, id("a")), (Action::HoldStart, id("a"))]);
    lab.join(label("b"));
    lab.run();
    assert_ne!(lab.addresses("b"), address, "nobody takes it early");
    lab.clock_ends("a");
    lab.run();
    assert_eq!(lab.claim(&address), Some("cooling a".into()));
    assert!(lab.has_no_answer("a"));
}

#[test]
fn at_most_two_generations_leave_and_then_nothing_is_planned_anew() {
    let mut lab = lab();
    for address in ["10.0.0.3", "10.0.0.4"] {
        lab.relabel(label_wanting("a", address));
        assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    }
    assert_eq!(lab.assignment("a").leaving.len(), 2);
    lab.relabel(label_wanting("a", "10.0.0.5"));
    assert_eq!(lab.run(), [], "its hook may fail for ever");
    lab.relabel(label_wanting("a", "192.0.2.1"));
    assert_eq!(lab.run(), []);
    assert_eq!(check(&lab.snapshot), []);
    // Once it acknowledges, all of it is settled and the newest wish is answered.
    lab.relabel(label_wanting("a", "10.0.0.5"));
    lab.acknowledge("a");
    assert_eq!(lab.run(), [(Action::Settle, id("a")), (Action::Move, id("a"))]);
    assert_eq!(lab.addresses("a"), "10.0.0.5");
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn what_another_run_or_installation_says_settles_nothing() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.relabel(label_wanting("a", "10.0.0.3"));
    lab.run();
    let generation = lab.assignment("a").generation;
    for (instance, phase, generation) in [
        ("stranger", crate::model::status::Phase::Registered, generation),
        ("instance-a", crate::model::status::Phase::Failed, generation),
        ("instance-a", crate::model::status::Phase::Joining, generation),
        ("instance-a", crate::model::status::Phase::Registered, crate::model::names::Revision(generation.0 - 1)),
    ] {
        lab.status("a", |status| {
            status.instance = instance.parse().unwrap();
            status.phase = phase;
            status.generation = generation;
        });
        assert_eq!(lab.run(), []);
    }
    assert_eq!(lab.claim(&address), Some("bound a".into()));
}

#[test]
fn a_waiting_answer_that_says_something_else_keeps_its_generation() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("holder"));
    lab.join(label("a"));
    lab.run();
    let generation = lab.assignment("a").generation;
    lab.edit_pool("eu", |pool| pool.selector = "never".parse().unwrap());
    assert_eq!(lab.run(), [(Action::Wait, id("a"))]);
    assert_eq!(lab.reason("a"), Some(Reason::NoPoolMatches));
    assert_eq!(lab.assignment("a").generation, generation);
    lab.relabel(Label { description: "another".into(), ..label_with_ports("a", &["x"]) });
    assert_eq!(lab.run(), [(Action::Wait, id("a"))]);
    assert_eq!(lab.assignment("a").generation, generation);
}

#[test]
fn a_node_that_is_stopping_is_planned_nothing_anew() {
    let mut lab = lab();
    lab.relabel(label_wanting("a", "10.0.0.3"));
    lab.status("a", |status| status.phase = crate::model::status::Phase::Draining);
    assert_eq!(lab.run(), []);
}

#[test]
fn a_live_node_without_a_label_keeps_what_it_has() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.edit("a", |record, _| record.label = None);
    assert_eq!(lab.run(), []);
    assert_eq!(lab.claim(&address), Some("bound a".into()));
}
