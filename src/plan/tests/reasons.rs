//! Every way not to be served: the code, the message that is stored, and what `explain` adds for people.

use crate::model::assignment::Answer;
use crate::model::label::Label;
use crate::model::pool::Pool;
use crate::plan::explain::explain;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

/// What `x` is told: code, message, and the sentences of `explain` about it and about each pool.
fn told(lab: &mut Lab) -> (String, String, String) {
    lab.run();
    let Answer::Waiting(waiting) = lab.assignment("x").answer.clone() else { panic!("x is served: {:?}", lab.assignment("x")) };
    let explained = explain(&lab.snapshot, &id("x")).unwrap();
    let pools: Vec<&str> = explained.pools.iter().map(|pool| pool.text.as_str()).collect();
    (waiting.reason.to_string(), waiting.message, format!("{}\n{}", explained.state, pools.join("\n")))
}

fn wanting_port(node: &str, port: u16) -> Label {
    let mut label = label_with_ports(node, &["http"]);
    label.want.ports.insert("http".parse().unwrap(), port);
    label
}

fn case(pools: impl IntoIterator<Item = Pool>, others: impl IntoIterator<Item = Label>, x: Label) -> Lab {
    let mut lab = Lab::new(pools);
    for other in others {
        lab.join(other);
        lab.run();
    }
    lab.join(x);
    lab
}

fn check(name: &str, mut lab: Lab, code: &str, message: &str, explained: &[&str]) {
    let got = told(&mut lab);
    assert_eq!((got.0.as_str(), got.1.as_str()), (code, message), "{name}");
    for part in explained {
        assert!(got.2.contains(part), "{name}: {part:?} is not in\n{}", got.2);
    }
    // The next pass, and the next node that asks the same, hear the same.
    assert_eq!(lab.run(), [], "{name}");
}

#[test]
fn no_pool_serves() {
    check("none", case([], [], label("x")), "no-pool-matches", "there is no pool yet", &["it waits: there is no pool yet"]);
    let mut x = label("x");
    x.variables.insert("zone", "eu-2").unwrap();
    let other = Pool { selector: "zone=eu-1,gpu".parse().unwrap(), ..pool("eu", &["10.0.0.0/24"]) };
    let explained = ["gpu (the node does not have it), zone=eu-1 (the node has \"eu-2\")"];
    check("no match", case([other], [], x), "no-pool-matches", "no pool's selector matches the label", &explained);
    let clash = shared("z", &["10.0.0.0/28"], "30000-30009");
    let never = Pool { selector: "never".parse().unwrap(), ..pool("a", &["10.0.0.0/28"]) };
    let mut lab = case([never, clash], [], label("x"));
    let (code, message, explained) = told(&mut lab);
    assert_eq!(code, "pool-invalid");
    assert!(message.starts_with("pool z is not usable: it overlaps pool a"), "{message}");
    assert!(explained.contains("it overlaps pool a"), "{explained}");
}

#[test]
fn no_address_is_left() {
    let one = || pool("eu", &["10.0.0.1/32"]);
    let full = ["pool eu is full (1 bound, 0 cooling, 0 reserved for others)"];
    check("full", case([one()], [label("a")], label("x")), "pool-full", "pool eu is full", &full);
    // There are 253 free ones of the other family.
    let dual = || pool("dual", &["10.0.0.0/24", "fd00::1/128"]);
    let message = "pool dual has no free IPv6 address";
    check("one family", case([dual()], [label("a")], label("x")), "pool-full", message, &[message]);
    let reserved = Pool { reserve: [(id("owner"), vec!["10.0.0.1".parse().unwrap()])].into(), ..one() };
    let explained = ["pool eu is full (0 bound, 0 cooling, 1 reserved for others)"];
    check("reserved", case([reserved], [], label("x")), "pool-full", "pool eu is full", &explained);
    // A former owner says that its host uses the only port of the only free address.
    let narrow = Pool { ports: "30000-30000".parse().unwrap(), ..pool("eu", &["10.0.0.1/32", "10.0.0.2/32"]) };
    let mut lab = case([narrow], [label_wanting("a", "10.0.0.1")], label_wanting("b", "10.0.0.2"));
    lab.run();
    lab.refuse("a", "10.0.0.1", 30000);
    lab.run();
    lab.acknowledge("a");
    lab.refuse("a", "10.0.0.1", 30000);
    lab.run();
    lab.all_coolings_end();
    lab.join(label("x"));
    let message = "no free address of pool eu has its ports: something else uses them there, as nodes say";
    check("refused", lab, "ports-full", message, &[message]);
}

#[test]
fn a_wanted_address_is_not_to_be_had() {
    let eu = || pool("eu", &["10.0.0.0/28"]);
    let taken = "address 10.0.0.5 of pool eu is taken";
    let wanting = || label_wanting("x", "10.0.0.5");
    check("taken", case([eu()], [label_wanting("a", "10.0.0.5")], wanting()), "address-taken", taken, &["a has 10.0.0.5"]);
    let mut cools = case([eu()], [label_wanting("a", "10.0.0.5")], wanting());
    cools.leave("a");
    check("cools", cools, "address-taken", taken, &["10.0.0.5 cools, a had it"]);
    let mut by_port = case([eu()], [], wanting());
    by_port.put_claim("10.0.0.5/30001", "a");
    by_port.spoil_claim("10.0.0.5/30001");
    check("unreadable", by_port, "address-taken", taken, &["port 30001 on 10.0.0.5 has a claim that cannot be read"]);
    let outside = "address 10.9.9.9 is not one that pool eu gives";
    check("outside", case([eu()], [], label_wanting("x", "10.9.9.9")), "address-outside", outside, &[outside]);
    let reserved = Pool { reserve: [(id("owner"), vec!["10.0.0.5".parse().unwrap()])].into(), ..eu() };
    let message = "address 10.0.0.5 of pool eu is reserved for another node";
    check("reserved", case([reserved], [], wanting()), "address-reserved", message, &[message]);
    let own = "the host's own address 192.0.2.1 is not one that pool own gives";
    check("host", case([host("own", &["10.0.0.0/8"], "30000-30009")], [], label("x")), "address-outside", own, &[own]);
}

#[test]
fn a_wanted_port_is_not_to_be_had() {
    let sh = || shared("sh", &["10.0.0.1/32"], "8000-8099");
    let taken = "port 8080 wanted for http is taken on every address of pool sh";
    // The first has it, the second is told why, and so is the third, whom the search of the second spared its own.
    let others = || [wanting_port("a", 8080), wanting_port("b", 8080)];
    check("third", case([sh()], others(), wanting_port("x", 8080)), "port-taken", taken, &["a has port 8080 on 10.0.0.1"]);
    check("second", case([sh()], [wanting_port("a", 8080)], wanting_port("x", 8080)), "port-taken", taken, &["a has port 8080"]);
    let mut together = Lab::new([sh()]);
    for node in ["a", "b", "x"] {
        together.join(wanting_port(node, 8080));
    }
    check("in one pass", together, "port-taken", taken, &["a has port 8080 on 10.0.0.1"]);
    let two = || shared("sh", &["10.0.0.1/32", "10.0.0.2/32"], "8000-8099");
    let explained = ["a has port 8080 on 10.0.0.", "b has port 8080 on 10.0.0."];
    check("two addresses", case([two()], others(), wanting_port("x", 8080)), "port-taken", taken, &explained);
    let outside = "port 9090 wanted for http is outside of 8000-8099 of pool sh";
    check("outside", case([sh()], [], wanting_port("x", 9090)), "port-outside", outside, &[outside]);
    // A pool that could not give it anyhow does not hide the one that could.
    let far = Pool { priority: 9, ..shared("far", &["10.1.0.1/32"], "30000-30009") };
    check(
        "the pool that has it",
        case([far, sh()], [wanting_port("a", 8080)], wanting_port("x", 8080)),
        "port-taken",
        taken,
        &[],
    );
    let mut refused = case([sh()], [], wanting_port("x", 8080));
    refused.run();
    let at = refused.addresses("x");
    refused.refuse("x", &at, 8080);
    let message = "port 8080 wanted for http is used by something else on its host";
    check("its own host", refused, "port-taken", message, &[message]);
}

#[test]
fn no_ports_are_left() {
    let sh = |ports| shared("sh", &["10.0.0.1/32"], ports);
    let full = "no port is left on any address of pool sh";
    check("full", case([sh("8000-8001")], [label("a"), label("b")], label("x")), "ports-full", full, &[full]);
    let two = label_with_ports("x", &["a", "b"]);
    let message = "no 2 ports are left on any address of pool sh";
    check("one is left", case([sh("8000-8002")], [label("a"), label("b")], two), "ports-full", message, &[message]);
    let many = label_with_ports("x", &["a", "b", "c"]);
    let message = "3 ports are asked for, pool sh has 8000-8001";
    check("a small range", case([sh("8000-8001")], [], many), "ports-full", message, &[message]);
    let none = Label { ports: Vec::new(), ..label("x") };
    let message = "pool sh is shared: it serves only labels that ask for a port";
    check("no port", case([sh("8000-8001")], [], none), "no-ports", message, &[message]);
    let mut refused = case([Pool { ports: "8000-8000".parse().unwrap(), ..pool("eu", &["10.0.0.0/28"]) }], [], label("x"));
    refused.run();
    let at = refused.addresses("x");
    refused.refuse("x", &at, 8000);
    let (code, message, _) = told(&mut refused);
    assert_eq!(code, "ports-full");
    assert!(message.ends_with("in pool eu: what nobody has is used by something else on its host"), "{message}");
}

#[test]
fn what_its_agent_does_with_an_answer_is_told() {
    let mut lab = case([pool("eu", &["10.0.0.0/28"])], [], label("x"));
    lab.run();
    let state = |lab: &Lab| explain(&lab.snapshot, &id("x")).unwrap().state;
    assert_eq!(state(&lab), "it is bound out of pool eu; its agent has not acknowledged that yet");
    lab.acknowledge("x");
    assert_eq!(state(&lab), "it is bound out of pool eu");
    lab.status("x", |status| {
        status.phase = crate::model::status::Phase::Failed;
        status.message = "hook ended with 3\u{1b}[2J".into();
    });
    // Exact, as in JSON: what goes to a terminal is escaped where it is printed.
    assert_eq!(
        state(&lab),
        "it is bound out of pool eu; its agent failed to apply that and tries again: hook ended with 3\u{1b}[2J"
    );
    lab.edit("x", |record, _| record.status.as_mut().unwrap().leased = false);
    assert!(state(&lab).contains("on no lease"), "{}", state(&lab));
}

#[test]
fn a_reservation_that_a_node_does_not_have_is_told() {
    let eu = || pool("eu", &["10.0.0.0/28"]);
    let why = |lab: &Lab| explain(&lab.snapshot, &id("x")).unwrap().addresses[0].1.clone();
    let reserved =
        |lab: &mut Lab| lab.edit_pool("eu", |pool| pool.reserve = [(id("x"), vec!["10.0.0.9".parse().unwrap()])].into());
    // Made when another had it: told by whom.
    let mut held = case([eu()], [label_wanting("a", "10.0.0.9")], label("x"));
    reserved(&mut held);
    held.run();
    assert!(why(&held).contains("10.0.0.9 is reserved for it, but a has 10.0.0.9; the node gets it when"), "{}", why(&held));
    // Made when the node had another address: it stays where it is.
    let mut later = case([eu()], [], label("x"));
    later.run();
    reserved(&mut later);
    later.run();
    assert!(why(&later).contains("10.0.0.9 is reserved for it, and it is free; the node gets it when"), "{}", why(&later));
}
