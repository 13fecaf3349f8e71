//! Pools that change under what they gave.

use crate::model::assignment::Reason;
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
    // The host pool is earlier by name too: it overlaps now.
    assert_eq!(lab.findings("pool-overlap")[0].keys, ["pools/whole"]);
    lab.edit_pool("own", |pool| pool.exclude = vec!["10.0.0.8/29".parse().unwrap()]);
    assert_eq!(lab.findings("pool-overlap").len(), 0);
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
