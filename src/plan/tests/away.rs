//! Nodes that stop, leave, die and come back.

use std::time::Duration;

use crate::model::assignment::Answer;
use crate::model::label::Label;
use crate::model::pool::{OnIsolation, Pool};
use crate::model::status::Phase;
use crate::plan::change::{Action, Write};
use crate::plan::check::check;
use crate::plan::snapshot::Stored;
use crate::plan::testing::apply::apply;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn lab() -> Lab {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("a"));
    lab.run();
    lab.acknowledge("a");
    lab
}

#[test]
fn a_node_that_is_away_is_held_then_released_then_forgotten() {
    for (silent, stop) in [(true, Lab::die as fn(&mut Lab, &str)), (false, Lab::stop)] {
        let mut lab = lab();
        stop(&mut lab, "a");
        assert_eq!(lab.run(), [(Action::HoldSeen, id("a")), (Action::HoldStart, id("a"))]);
        lab.join(label("b"));
        lab.run();
        assert!(lab.reason("b").is_some(), "it is held");
        lab.clock_ends("a");
        assert_eq!(lab.run(), [(Action::Release, id("a"))]);
        assert!(lab.has_no_answer("a"));
        assert_eq!(lab.claim("10.0.0.1"), Some("cooling a".into()));
        assert!(lab.snapshot.claims[&key("10.0.0.1")].leased);
        assert_eq!(lab.claim("10.0.0.1/30000"), None, "the ports of an exclusive address need not cool");
        assert!(lab.record("a").label.is_some(), "the last known facts stay readable");
        assert_eq!(lab.record("a").status.is_none(), silent);
        lab.cooling_ends("10.0.0.1");
        assert_eq!(lab.run(), [(Action::Assign, id("b"))], "and nobody dead is served");
        lab.clock_ends("a");
        assert_eq!(lab.run(), [(Action::Forget, id("a"))]);
        assert!(!lab.snapshot.nodes.contains_key(&id("a")));
        assert_eq!(check(&lab.snapshot), []);
    }
}

#[test]
fn the_ports_of_shared_addresses_cool() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.1/32"], "30000-30000")]);
    lab.join(label("a"));
    lab.run();
    lab.leave("a");
    lab.run();
    assert_eq!(lab.claim("10.0.0.1/30000"), Some("cooling a".into()));
    lab.join(label("b"));
    lab.run();
    assert!(lab.reason("b").is_some());
    // Its last owner may have it back.
    lab.join(label("a"));
    lab.run();
    assert_eq!(lab.ports("a"), "main=30000");
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_node_that_left_goes_at_once_and_altogether() {
    let mut lab = lab();
    lab.leave("a");
    assert_eq!(lab.run(), [(Action::Release, id("a"))]);
    assert!(!lab.snapshot.nodes.contains_key(&id("a")));
    assert_eq!(lab.claim("10.0.0.1"), Some("cooling a".into()));
}

/// Its lease ran out while it stopped, and its last word is written all the same: the hold and its clock run by then.
#[test]
fn a_node_whose_word_that_it_left_comes_late_goes_at_once_too() {
    let mut lab = lab();
    let mut left = lab.record("a").status.clone().unwrap();
    lab.die("a");
    lab.run();
    assert!(lab.record("a").clock.is_some());
    lab.edit("a", |record, revision| {
        left.value.as_mut().unwrap().phase = Phase::Left;
        record.status = Some(Stored { create_revision: revision, mod_revision: revision, leased: false, ..left });
    });
    assert_eq!(lab.run(), [(Action::Release, id("a"))]);
    assert!(!lab.snapshot.nodes.contains_key(&id("a")));
}

/// Copied by `make-mirror`, or put by hand: no agent is behind it.
#[test]
fn a_live_status_on_no_lease_is_silence() {
    for phase in [Phase::Joining, Phase::Registered, Phase::Failed, Phase::Draining] {
        let mut lab = lab();
        lab.join(label("waiting"));
        lab.run();
        for node in ["a", "waiting"] {
            lab.status(node, |status| status.phase = phase);
            lab.edit(node, |record, _| record.status.as_mut().unwrap().leased = false);
            assert!(!lab.record(node).is_live(), "{phase}");
        }
        assert!(lab.record("a").is_silent());
        let found = lab.findings("status-unleased");
        assert_eq!(
            found.iter().map(|finding| finding.keys[0].as_str()).collect::<Vec<_>>(),
            ["nodes/a/status", "nodes/waiting/status"]
        );
        let actions = lab.run();
        let of_a = actions.iter().filter(|(_, node)| *node == id("a")).map(|(action, _)| *action).collect::<Vec<_>>();
        assert_eq!(of_a, [Action::Repair, Action::HoldSeen, Action::HoldStart], "{phase}");
        assert!(lab.record("a").status.is_none() && lab.record("waiting").status.is_none(), "{phase}");
        assert_eq!(lab.findings("status-unleased"), []);
        lab.clock_ends("a");
        lab.run();
        assert_eq!(lab.claim("10.0.0.1"), Some("cooling a".into()));
    }
    // `stopped` is on no lease by design.
    let mut lab = lab();
    lab.stop("a");
    assert_eq!(lab.findings("status-unleased"), []);
    lab.run();
    assert!(lab.record("a").status.is_some());
}

#[test]
fn an_agent_that_joins_keeps_its_status_from_the_repair() {
    let mut lab = lab();
    lab.edit("a", |record, _| record.status.as_mut().unwrap().leased = false);
    let late = lab.plan();
    lab.join(label("a"));
    let (_, lost) = crate::plan::testing::apply::apply(&lab.snapshot, &late);
    assert_eq!(lost.len(), 1, "{late:#?}");
}

#[test]
fn a_waiting_node_that_left_goes_too() {
    let mut lab = lab();
    lab.join(label("b"));
    lab.run();
    lab.leave("b");
    assert_eq!(lab.run(), [(Action::Release, id("b"))]);
    assert!(!lab.snapshot.nodes.contains_key(&id("b")));
}

#[test]
fn a_killed_ephemeral_nodes_label_goes_with_the_release() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(Label { ephemeral: true, ..label("a") });
    lab.run();
    lab.die("a");
    lab.run();
    lab.clock_ends("a");
    lab.run();
    assert!(!lab.snapshot.nodes.contains_key(&id("a")));
    assert_eq!(lab.claim("10.0.0.1"), Some("cooling a".into()));
}

#[test]
fn dead_waiters_are_forgotten_in_the_end() {
    let mut lab = lab();
    lab.join(label("b"));
    lab.run();
    lab.die("b");
    assert_eq!(lab.run(), [(Action::HoldSeen, id("b")), (Action::Release, id("b"))]);
    assert!(lab.has_no_answer("b"));
    lab.clock_ends("b");
    assert_eq!(lab.run(), [(Action::Forget, id("b"))]);
    assert!(!lab.snapshot.nodes.contains_key(&id("b")));
}

#[test]
fn a_label_deleted_by_hand_releases_nothing_and_a_bound_node_without_one_is_held_like_any_other() {
    let mut lab = lab();
    lab.edit("a", |record, _| record.label = None);
    assert_eq!(lab.run(), []);
    lab.die("a");
    assert_eq!(lab.run(), [(Action::HoldSeen, id("a")), (Action::HoldStart, id("a"))]);
    lab.clock_ends("a");
    lab.run();
    assert_eq!(lab.claim("10.0.0.1"), Some("cooling a".into()));
    assert!(!lab.snapshot.nodes.contains_key(&id("a")), "no fact is left to keep");
}

#[test]
fn a_cooldown_of_nothing_frees_at_once_and_a_hold_of_nothing_releases_at_once() {
    let zero = std::time::Duration::ZERO;
    let mut lab = Lab::new([Pool { hold: zero, cooldown: zero, ..pool("eu", &["10.0.0.1/32"]) }]);
    lab.join(label("a"));
    lab.run();
    lab.stop("a");
    lab.run();
    assert_eq!(lab.claim("10.0.0.1"), None);
    assert!(lab.has_no_answer("a"));
}

#[test]
fn a_cooling_address_goes_to_its_last_owner_alone_and_to_nobody_in_a_withdraw_pool() {
    for (isolation, instance, given) in [
        (OnIsolation::Keep, "instance-a", true),
        (OnIsolation::Keep, "re-installed", true),
        (OnIsolation::Withdraw, "instance-a", false),
        (OnIsolation::Withdraw, "re-installed", false),
    ] {
        let mut lab = Lab::new([Pool { on_isolation: isolation, ..pool("eu", &["10.0.0.1/32"]) }]);
        lab.join(label("a"));
        lab.run();
        lab.stop("a");
        lab.run();
        lab.clock_ends("a");
        lab.run();
        lab.join(label("b"));
        lab.run();
        assert!(lab.reason("b").is_some());
        lab.join(Label { instance: instance.parse().unwrap(), ..label("a") });
        lab.run();
        assert_eq!(lab.reason("a").is_none(), given, "{isolation} {instance}");
        assert_eq!(check(&lab.snapshot), []);
    }
}

/// Killed, and its disk is gone: the agent that comes has another instance. It joins once the hold is over.
#[test]
fn a_reinstalled_host_gets_its_address_back_after_the_hold() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/24"])]);
    lab.join(label("a"));
    lab.run();
    let (address, port) = (lab.addresses("a"), lab.ports("a"));
    lab.acknowledge("a");
    lab.die("a");
    lab.run();
    lab.clock_ends("a");
    lab.run();
    // Somebody else may ask first.
    lab.join(label_wanting("b", &address));
    lab.run();
    assert!(lab.reason("b").is_some());
    lab.join(Label { instance: "re-installed".parse().unwrap(), ..label("a") });
    lab.run();
    assert_eq!((lab.addresses("a"), lab.ports("a")), (address, port));
    assert_eq!(check(&lab.snapshot), []);
}

#[test]
fn a_node_away_for_too_long_gets_another_address_and_takes_nothing_back() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    lab.join(label("a"));
    lab.run();
    lab.die("a");
    lab.run();
    lab.clock_ends("a");
    lab.run();
    lab.cooling_ends("10.0.0.1");
    lab.join(label("b"));
    lab.run();
    lab.put_pool(pool("us", &["10.1.0.1/32"]));
    lab.join(label("a"));
    lab.run();
    assert_eq!((lab.addresses("b"), lab.addresses("a")), ("10.0.0.1".into(), "10.1.0.1".into()));
}

#[test]
fn a_second_absence_is_a_whole_hold() {
    let mut lab = lab();
    lab.die("a");
    lab.run();
    // Back and away again between two looks of the allocator.
    lab.join(label("a"));
    lab.die("a");
    assert_eq!(lab.run(), [(Action::HoldSeen, id("a")), (Action::HoldStart, id("a"))]);
    assert!(lab.record("a").clock.is_some());
}

/// The join leaves it to its lease. It neither ends the second absence early nor makes it longer.
#[test]
fn the_clock_of_an_absence_that_is_over_says_nothing() {
    let mut lab = lab();
    lab.die("a");
    lab.run();
    let first = lab.record("a").clock.clone().unwrap();
    lab.join(label("a"));
    assert_eq!(lab.run(), [], "nobody minds it");
    assert!(lab.record("a").clock.is_some());
    lab.die("a");
    assert_eq!(lab.step().changes[0].action, Action::HoldSeen);
    // It ends while the second absence is only seen: nothing is over.
    let mut ended = lab.clone();
    ended.clock_ends("a");
    assert_eq!(ended.run(), [(Action::HoldStart, id("a"))]);
    // Or it is still there: it is put again, on the lease of the second hold.
    assert_eq!(lab.run(), [(Action::HoldStart, id("a"))]);
    assert!(lab.record("a").clock.clone().unwrap().mod_revision > first.mod_revision);
    for mut lab in [lab, ended] {
        assert_eq!(lab.run(), []);
        assert_eq!(lab.addresses("a"), "10.0.0.1");
        lab.clock_ends("a");
        assert_eq!(lab.run(), [(Action::Release, id("a"))]);
    }
}

/// Where there is no time to wait, an earlier clock must not make it wait.
#[test]
fn a_hold_without_time_does_not_wait_for_an_earlier_clock() {
    let mut lab = Lab::new([Pool { hold: Duration::ZERO, ..pool("eu", &["10.0.0.1/32"]) }]);
    lab.join(label("a"));
    lab.run();
    // From when the pool's hold was longer.
    let clock = |lab: &mut Lab, node: &str| {
        lab.edit(node, |record, at| {
            record.clock = Some(Box::new(Stored { value: Ok(()), create_revision: at, mod_revision: at, leased: true }));
        });
    };
    clock(&mut lab, "a");
    lab.die("a");
    let changes = lab.run();
    assert!(changes.contains(&(Action::Release, id("a"))), "{changes:?}");
    // Nor to be forgotten, where nothing is remembered of one that had nothing.
    lab.join(label("a"));
    lab.run();
    lab.join(label("b"));
    lab.run();
    clock(&mut lab, "b");
    lab.pass.forget_s = 0;
    lab.die("b");
    let changes = lab.run();
    assert!(changes.contains(&(Action::Forget, id("b"))), "{changes:?}");
}

#[test]
fn a_late_hold_never_lands_in_the_second_absence() {
    let mut lab = lab();
    lab.die("a");
    let seen_late = lab.plan();
    lab.join(label("a"));
    lab.die("a");
    // The first absence's `seen` may land (nothing about the node differs), a started clock may not.
    let (next, _) = apply(&lab.snapshot, &seen_late);
    lab.snapshot = next;
    let start_late = lab.plan();
    assert_eq!(start_late.changes[0].action, Action::HoldStart);
    lab.join(label("a"));
    lab.die("a");
    let (next, lost) = apply(&lab.snapshot, &start_late);
    assert_eq!(lost.len(), 1);
    assert!(next.nodes[&id("a")].clock.is_none());
    // And a release planned in the first absence does nothing in the second.
    lab.run();
    lab.clock_ends("a");
    let release_late = lab.plan();
    assert_eq!(release_late.changes[0].action, Action::Release);
    lab.join(label("a"));
    lab.die("a");
    lab.run();
    let (_, lost) = apply(&lab.snapshot, &release_late);
    assert_eq!(lost.len(), 1);
}

#[test]
fn an_unreadable_status_counts_as_live() {
    let mut lab = lab();
    lab.edit("a", |record, _| {
        if let Some(status) = &mut record.status {
            status.value = Err(crate::plan::snapshot::Unreadable::Invalid("not JSON".into()));
        }
    });
    assert_eq!(lab.run(), []);
    assert_eq!(lab.findings("status-unreadable").len(), 1);
}

#[test]
fn terms_longer_than_any_lease_are_cut_to_the_longest_that_a_pool_may_say() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.1/32"])]);
    let longest = crate::model::pool::TERM_MAX.as_secs();
    lab.join(label("long"));
    lab.run();
    lab.edit("long", |record, revision| {
        let stored = record.assignment.as_mut().unwrap();
        stored.mod_revision = revision;
        if let Ok(Answer::Bound(bound)) = stored.value.as_mut().map(|assignment| &mut assignment.answer) {
            (bound.terms.hold_s, bound.terms.cooldown_s) = (u64::MAX, u64::MAX);
        }
    });
    lab.die("long");
    let mut seconds = Vec::new();
    for _ in 0..3 {
        for write in lab.step().changes.iter().flat_map(|change| &change.writes) {
            match write {
                Write::Clock(_, clock) => seconds.push(*clock),
                Write::Cool(_, _, cooling) => seconds.push(*cooling),
                _ => {}
            }
        }
        lab.edit("long", |record, _| record.clock = None);
    }
    assert_eq!(seconds[..2], [longest, longest]);
}

/// Somebody put it by hand. Taking an address away on a guess would be worse than keeping it for too long.
#[test]
fn a_clock_on_no_lease_is_a_finding_and_takes_nothing_away() {
    let mut lab = lab();
    lab.die("a");
    lab.run();
    lab.edit("a", |record, _| record.clock.as_mut().unwrap().leased = false);
    assert_eq!(lab.run(), []);
    assert_eq!(lab.addresses("a"), "10.0.0.1");
    let found = lab.findings("clock-unleased");
    assert_eq!(found[0].keys, ["nodes/a/hold/clock"]);
    assert_eq!(check(&lab.snapshot), found, "`check` says the same");
    // What the finding says to do is the end of it; a return is, too.
    let mut returned = lab.clone();
    returned.join(label("a"));
    assert_eq!(returned.run(), [(Action::Repair, id("a"))]);
    assert_eq!((returned.record("a").clock.is_none(), returned.findings("clock-unleased")), (true, vec![]));
    lab.clock_ends("a");
    assert_eq!(lab.run(), [(Action::Release, id("a"))]);
}
