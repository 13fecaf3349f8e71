//! Pools that change under what they gave.

use crate::model::assignment::Reason;
use crate::model::names::NodeId;
use crate::model::pool::{OnMismatch, Pool, Sharing};
use crate::plan::change::Action;
use crate::plan::check::check;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/29"])]);
    lab.join(label("a"));
    lab.run();
    lab.acknowledge("a");
    lab
}

#[test]
fn a_deleted_pool_gives_nothing_new_and_what_it_gave_stays() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.delete_pool("eu");
    lab.join(label("b"));
    lab.run();
    assert_eq!(lab.addresses("a"), address);
    assert_eq!(lab.reason("b"), Some(Reason::NoPoolMatches));
    // It may use what it has under another name, and less of it.
    lab.relabel(label_with_ports("a", &["http"]));
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    assert_eq!(lab.addresses("a"), address);
    // What was given can still be held and released, on the terms that the assignment carries.
    lab.stop("a");
    lab.run();
    lab.clock_ends("a");
    lab.run();
    assert_eq!(lab.claim(&address), Some("cooling a".into()));
    // A pool of that name again: nobody gets the address twice.
    lab.put_pool(pool("eu", &[&format!("{address}/32")]));
    lab.run();
    assert_eq!(lab.reason("b"), Some(Reason::PoolFull));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_selector_that_no_longer_matches_moves_nobody() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.put_pool(pool("us", &["10.1.0.0/29"]));
    lab.edit_pool("eu", |pool| pool.selector = "never".parse().unwrap());
    assert_eq!(lab.run(), []);
    lab.relabel(label_with_ports("a", &["main", "more"]));
    lab.run();
    assert_eq!(lab.addresses("a"), address, "the assignment stays until the node leaves");
    lab.join(label("b"));
    lab.run();
    assert!(lab.addresses("b").starts_with("10.1."));
}

#[test]
fn with_on_mismatch_move_what_no_longer_fits_is_replaced() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.edit_pool("eu", |pool| {
        pool.on_mismatch = OnMismatch::Move;
        pool.exclude = vec![format!("{address}/32").parse().unwrap()];
    });
    assert_eq!(lab.run(), [(Action::Move, id("a"))]);
    let moved = lab.addresses("a");
    assert_ne!(moved, address);
    assert_eq!(lab.claim(&address), Some("bound a".into()), "it stays claimed until the node says that it moved");
    lab.acknowledge("a");
    assert_eq!(lab.run(), [(Action::Settle, id("a"))]);
    assert_eq!(lab.claim(&address), Some("cooling a".into()));
    // Where nothing better is to be had, it keeps what it has.
    lab.edit_pool("eu", |pool| pool.exclude = vec!["10.0.0.0/29".parse().unwrap()]);
    assert_eq!(lab.run(), []);
    assert_eq!(lab.addresses("a"), moved);
}

#[test]
fn a_pool_that_shrinks_or_grows_moves_nobody() {
    let mut lab = lab();
    let address = lab.addresses("a");
    lab.edit_pool("eu", |pool| pool.cidrs = vec!["10.7.0.0/29".parse().unwrap()]);
    assert_eq!(lab.run(), []);
    lab.edit_pool("eu", |pool| pool.cidrs = vec!["10.0.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]);
    assert_eq!(lab.run(), []);
    assert_eq!(lab.addresses("a"), address);
}

#[test]
fn pools_of_two_kinds_may_not_overlap_and_the_later_one_says_why() {
    let mut lab =
        Lab::new([shared("sh", &["10.0.0.0/28"], "30000-30009"), Pool { priority: 9, ..pool("whole", &["10.0.0.8/29"]) }]);
    lab.join(label("a"));
    lab.run();
    assert_eq!(lab.assignment("a").bound().unwrap().terms.pool.as_str(), "sh");
    let findings = lab.findings("pool-overlap");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].keys, ["pools/whole"]);
    // Two that share by ports may; so may those that exclude the common part, and other domains.
    lab.put_pool(host("own", &["10.0.0.0/24"], "30000-30009"));
    assert_eq!(lab.findings("pool-overlap").len(), 1);
    lab.edit_pool("whole", |pool| pool.domain = "other".parse().unwrap());
    assert_eq!(lab.findings("pool-overlap").len(), 0);
    lab.edit_pool("whole", |pool| pool.domain = "default".parse().unwrap());
    lab.edit_pool("sh", |pool| pool.exclude = vec!["10.0.0.8/29".parse().unwrap()]);
    // Nodes use neither, so the older one counts: the host pool is out of order now, although its name comes first.
    assert_eq!(lab.findings("pool-overlap")[0].keys, ["pools/own"]);
    lab.edit_pool("own", |pool| pool.exclude = vec!["10.0.0.8/29".parse().unwrap()]);
    assert_eq!(lab.findings("pool-overlap").len(), 0);
}

#[test]
fn a_pool_in_use_takes_precedence_then_the_older_one() {
    let mut lab =
        Lab::new([shared("old", &["10.9.0.0/30"], "30000-30009"), Pool { priority: 9, ..pool("prod", &["10.1.0.0/24"]) }]);
    lab.join(label("a"));
    lab.run();
    let out_of_order = |lab: &Lab| lab.findings("pool-overlap").iter().map(|f| f.keys.join(",")).collect::<Vec<_>>();
    // A new pool whose name comes first, and an older one that nobody uses: neither disables the pool in use.
    lab.put_pool(shared("aaa", &["10.1.0.240/30"], "30000-30009"));
    lab.edit_pool("old", |pool| pool.cidrs = vec!["10.1.0.128/30".parse().unwrap()]);
    assert_eq!(out_of_order(&lab), ["pools/aaa", "pools/old"]);
    lab.join(label("b"));
    lab.run();
    assert_eq!(lab.assignment("b").bound().unwrap().terms.pool.as_str(), "prod");
    // Once no node has anything of it, the oldest counts, and what is between the two others does not matter.
    for node in ["a", "b"] {
        lab.leave(node);
    }
    lab.run();
    assert_eq!(out_of_order(&lab), ["pools/prod"]);
}

#[test]
fn a_pool_whose_domain_or_sharing_was_changed_in_use_is_frozen() {
    for edit in [(|pool: &mut Pool| pool.sharing = Sharing::Shared) as fn(&mut Pool), |pool: &mut Pool| {
        pool.domain = "other".parse().unwrap()
    }] {
        let mut lab = lab();
        let address = lab.addresses("a");
        lab.edit_pool("eu", edit);
        lab.join(label("b"));
        lab.run();
        assert_eq!(lab.addresses("a"), address);
        assert_eq!(lab.reason("b"), Some(Reason::PoolInvalid));
        assert_eq!(lab.findings("pool-frozen").len(), 1);
        lab.leave("a");
        lab.run();
        assert_eq!(lab.findings("pool-frozen").len(), 0, "the last assignment is gone");
        assert_eq!(lab.reason("b"), None);
        assert_eq!(check(&lab.snapshot), []);
    }
}

#[test]
fn kinds_are_never_mixed_on_one_address_even_when_pools_come_and_go() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30009")]);
    lab.join(label("a"));
    lab.run();
    lab.delete_pool("sh");
    lab.put_pool(pool("whole", &["10.0.0.1/32"]));
    lab.join(label("b"));
    lab.run();
    assert_eq!(lab.reason("b"), Some(Reason::PoolFull), "a port of it is somebody's");
    // While the port cools too, and then not any more.
    lab.leave("a");
    lab.run();
    assert_eq!(lab.reason("b"), Some(Reason::PoolFull));
    lab.all_coolings_end();
    lab.run();
    assert_eq!(lab.addresses("b"), "10.0.0.1");
    // And the other way round.
    lab.delete_pool("whole");
    lab.put_pool(shared("sh", &["10.0.0.1/32"], "30000-30009"));
    lab.join(label("c"));
    lab.run();
    assert_eq!(lab.reason("c"), Some(Reason::PortsFull));
    lab.leave("b");
    lab.run();
    assert_eq!(lab.reason("c"), Some(Reason::PortsFull), "it cools whole");
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn lengthening_works_at_once_and_shortening_with_the_next_answer() {
    let seconds = |lab: &Lab| lab.record("a").hold.as_deref().unwrap().ok().unwrap().seconds;
    let mut lab = lab();
    lab.edit_pool("eu", |pool| pool.hold = std::time::Duration::from_secs(5000));
    lab.stop("a");
    lab.run();
    assert_eq!(seconds(&lab), 5000);
    lab.join(label("a"));
    lab.edit_pool("eu", |pool| pool.hold = std::time::Duration::from_secs(5));
    lab.run();
    lab.stop("a");
    lab.run();
    assert_eq!(seconds(&lab), 600, "the longer one counts");
    lab.join(label_with_ports("a", &["http"]));
    lab.run();
    lab.stop("a");
    lab.run();
    // What is leaving was given on the older terms.
    assert_eq!(lab.assignment("a").bound().unwrap().terms.hold_s, 5);
}

/// Many nodes in a pool whose addresses change under them.
fn fleet_that_must_move(nodes: usize, move_at_once: &str) -> Lab {
    let mut lab = Lab::new([Pool {
        on_mismatch: OnMismatch::Move,
        move_at_once: move_at_once.parse().unwrap(),
        ..pool("eu", &["10.0.0.0/24"])
    }]);
    let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
    names.iter().for_each(|node| lab.join(label(node)));
    lab.run();
    names.iter().for_each(|node| lab.acknowledge(node));
    lab.edit_pool("eu", |pool| pool.cidrs = vec!["10.1.0.0/24".parse().unwrap()]);
    lab
}

fn under_way(lab: &Lab) -> Vec<String> {
    let is_leaving = |node: &&NodeId| !lab.assignment(node.as_str()).leaving.is_empty();
    lab.snapshot.nodes.keys().filter(is_leaving).map(ToString::to_string).collect()
}

#[test]
fn at_most_move_at_once_moves_are_unacknowledged() {
    for (move_at_once, most) in [("10%", 2), ("100%", 20), ("1%", 1), ("3", 3), ("99", 20)] {
        let mut lab = fleet_that_must_move(20, move_at_once);
        for round in 0..20usize.div_ceil(most) {
            let moved = lab.run();
            assert!(moved.iter().all(|(action, _)| matches!(action, Action::Move | Action::Settle)), "{moved:?}");
            let moving = under_way(&lab);
            assert_eq!(moving.len(), most.min(20 - round * most), "{move_at_once}, round {round}");
            // A silent node does not make room: the mistake that cost it its connection would cost the next one theirs.
            if round == 0 {
                lab.die(&moving[0]);
                let more = lab.run();
                assert!(more.iter().all(|(action, _)| *action != Action::Move), "{more:?}");
                lab.join(label(&moving[0]));
            }
            moving.iter().for_each(|node| lab.acknowledge(node));
        }
        lab.run();
        assert_eq!(under_way(&lab), [] as [&str; 0]);
        assert!((0..20).all(|n| lab.addresses(&format!("node-{n}")).starts_with("10.1.0.")), "{move_at_once}");
        assert_eq!(check(&lab.snapshot), []);
    }
}

#[test]
fn a_node_that_is_moved_to_a_wrong_place_is_moved_on() {
    let mut lab = fleet_that_must_move(5, "1");
    lab.run();
    let [node] = &under_way(&lab)[..] else { panic!("one is moved") };
    // It cannot apply that, and the operator corrects the pool: it goes first, and the others wait for it.
    lab.edit_pool("eu", |pool| pool.cidrs = vec!["10.2.0.0/24".parse().unwrap()]);
    assert_eq!(lab.run(), [(Action::Move, id(node))]);
    assert!(lab.addresses(node).starts_with("10.2.0."));
    assert_eq!(under_way(&lab), [node.as_str()]);
}

#[test]
fn what_a_node_asks_for_does_not_wait_for_the_moves_of_others() {
    let mut lab = fleet_that_must_move(5, "1");
    lab.run();
    let moving = under_way(&lab);
    let other = (0..5).map(|n| format!("node-{n}")).find(|node| !moving.contains(node)).unwrap();
    lab.relabel(label_wanting(&other, "10.1.0.77"));
    assert_eq!(lab.run(), [(Action::Move, id(&other))]);
    assert_eq!(lab.addresses(&other), "10.1.0.77");
}
