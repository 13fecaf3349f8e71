//! What a cut writes, and what it does not.

use super::*;
use crate::relay::diff::{Proof, VALUE_BYTES_MAX};
use crate::store::api::LeaseId;

#[test]
fn a_first_cut_copies_what_is_copied_and_nothing_else() {
    let mut world = World::new();
    for key in ["a/label", "a/status", "a/assignment", "a/hold", "a/hold/clock", "a/other", "UPPER/label", "ab/label"] {
        world.put(key, key);
    }
    let parts = world.run();
    assert_eq!(parts.len(), 1);
    assert_eq!(
        world.copies().keys().collect::<Vec<_>>(),
        ["nodes/a/assignment", "nodes/a/label", "nodes/a/status", "nodes/ab/label"]
    );
    let checkpoint = world.checkpoint().unwrap();
    assert_eq!((checkpoint.source.as_str(), checkpoint.cluster.as_str(), checkpoint.revision.0), ("edge", "7", 8));
}

#[test]
fn an_empty_source_still_gets_a_checkpoint_once() {
    let mut world = World::new();
    assert_eq!(world.run().len(), 1);
    assert_eq!(world.run().len(), 0);
    world.restart();
    assert_eq!(world.run().len(), 0);
}

#[test]
fn changes_between_two_cuts_are_one_write_and_what_comes_to_nothing_is_none() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.run();
    for value in ["2", "3", "4"] {
        world.put("a/label", value);
    }
    world.put("b/label", "1");
    world.delete("b/label");
    let parts = world.run();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].writes.len(), 1);
    world.assert_equal();
    world.put("a/label", "5");
    world.put("a/label", "4");
    assert_eq!(world.next(), None);
}

#[test]
fn a_quiet_prefix_on_a_busy_cluster_writes_nothing_over_a_restart() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.run();
    world.source.revision += 10_000;
    world.restart();
    assert_eq!(world.next(), None);
    assert_eq!(world.mirror.proof(), Proof::Proven);
    world.put("a/hold", "only the source's");
    assert_eq!(world.next(), None);
}

#[test]
fn deletions_made_while_it_was_down_arrive() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.put("b/label", "1");
    world.run();
    world.source.write("/s/nodes/a/label", None);
    world.restart();
    let parts = world.run();
    assert_eq!(parts.len(), 1);
    world.assert_equal();
}

#[test]
fn a_left_over_partial_is_cleared() {
    let mut world = World::new();
    world.limits.writes = 1;
    world.put("a/label", "1");
    world.put("b/label", "1");
    assert_eq!(world.step().unwrap().checkpoint.partial.unwrap().part, 1);
    assert_eq!(world.checkpoint().unwrap().revision, Revision::NONE);
    // The source takes back what was not copied yet: nothing differs, but the checkpoint still says partial.
    world.source.write("/s/nodes/b/label", None);
    world.restart();
    let part = world.step().unwrap();
    assert_eq!((part.writes.len(), &part.checkpoint.partial), (0, &None));
    world.assert_equal();
}

#[test]
fn drift_is_put_right_and_counted_and_foreign_keys_are_left_alone() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.put("a/status", "1");
    world.run();
    assert_eq!(world.mirror.drift(), 0);
    world.meddle("nodes/a/label", Some("x"));
    world.meddle("nodes/a/status", None);
    world.meddle("nodes/z/label", Some("x"));
    world.meddle("nodes/a/hold", Some("x"));
    world.meddle("nodes/a/note", Some("x"));
    assert_eq!(world.mirror.drift(), 3);
    assert_eq!(world.mirror.foreign().len(), 2);
    world.run();
    assert_eq!(world.copies().len(), 4);
    world.meddle("nodes/a/hold", None);
    world.meddle("nodes/a/note", None);
    world.assert_equal();
    assert_eq!((world.mirror.drift(), world.mirror.foreign().len()), (3, 0));
}

#[test]
fn an_equal_value_by_another_hand_is_confirmed_by_a_checkpoint_and_a_lease_is_taken_off() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.run();
    world.meddle("nodes/a/label", Some("1"));
    let part = world.step().unwrap();
    assert_eq!(part.writes.len(), 0);
    assert_eq!(world.next(), None);

    world.destination.revision += 1;
    let op = Op::Put { key: "/d/manager/nodes/a/label".into(), value: "1".into(), lease: LeaseId(5) };
    let events = world.destination.apply(&op);
    world.tell_destination(events);
    assert_eq!(world.step().unwrap().writes.len(), 1);
    assert_eq!(world.destination.kvs.get(&"/d/manager/nodes/a/label".into()).unwrap().lease, LeaseId::NONE);
}

#[test]
fn a_deleted_or_unreadable_checkpoint_is_written_again() {
    let mut world = World::new();
    world.put("a/label", "1");
    world.run();
    for value in [None, Some("{}"), Some(r#"{"v":1}"#)] {
        world.meddle("checkpoint", value);
        assert_eq!(world.run().len(), 1, "{value:?}");
        world.assert_equal();
    }
}

#[test]
fn a_value_too_large_is_left_out_and_named_and_the_rest_flows() {
    let mut world = World::new();
    world.put("a/label", "small");
    world.run();
    let large = "x".repeat(VALUE_BYTES_MAX + 1);
    world.put("a/label", &large);
    world.put("b/label", "1");
    world.run();
    assert_eq!(world.copies().keys().collect::<Vec<_>>(), ["nodes/b/label"]);
    assert_eq!(world.checkpoint().unwrap().left_out, ["nodes/a/label"]);
    // Still too large: nothing new to say.
    world.put("a/label", &format!("{large}y"));
    assert_eq!(world.next(), None);
    world.put("a/label", &large[1..]);
    world.run();
    assert!(world.checkpoint().unwrap().left_out.is_empty());
    world.assert_equal();
}

#[test]
fn large_cuts_take_parts_that_fit_a_request() {
    let mut world = World::new();
    for node in 0..10 {
        world.put(&format!("n{node}/label"), &"x".repeat(400 * 1024));
    }
    let parts = world.run();
    assert_eq!(parts.len(), 4);
    for (index, part) in parts.iter().enumerate() {
        let bytes: usize = part.writes.iter().map(|(_, value)| value.as_ref().map_or(0, Bytes::len)).sum();
        assert!(bytes < 1_400 * 1024);
        let partial = part.checkpoint.partial.as_ref().map(|partial| (partial.part, partial.to));
        assert_eq!(partial, (index < 3).then(|| (index as u64 + 1, Revision(10))));
    }
    world.assert_equal();
}

#[test]
fn no_level_of_a_transaction_is_wider_than_etcd_takes() {
    fn check_widths(txn: &Txn, outside: usize, width: usize) -> usize {
        assert!(txn.then.len() + outside <= width, "{} + {outside}", txn.then.len());
        assert!(txn.compares.len() <= width && txn.otherwise.len() <= width);
        let nested = |op: &Op| match op {
            Op::Txn(txn) => Some(txn.clone()),
            _ => None,
        };
        txn.then.iter().map(|op| nested(op).map_or(1, |nested| check_widths(&nested, txn.then.len(), width))).sum()
    }
    for (width, counts) in [(128, vec![0, 1, 126, 127, 128, 250, 2000, 4000]), (16, vec![0, 14, 15, 16, 40]), (4, vec![1, 2])] {
        for count in counts {
            let mut world = World::new();
            world.limits = Limits { width, ..Limits::default() };
            for node in 0..count {
                world.source.write(&format!("/s/nodes/n{node}/label"), Some(b"1"));
            }
            world.restart();
            let part = world.next().unwrap();
            let ops = check_widths(&world.txn(&part), 0, width);
            assert_eq!(ops, part.writes.len() + 1);
            assert_eq!(part.checkpoint.partial.is_none(), part.writes.len() == count);
            world.run();
            world.assert_equal();
        }
    }
}

#[test]
fn limits_shrink_to_an_end() {
    let mut limits = Limits::default();
    let mut steps = 0;
    while let Some(smaller) = limits.halved() {
        assert!(smaller.bytes < limits.bytes && smaller.value_bytes_max() < smaller.bytes);
        limits = smaller;
        steps += 1;
    }
    assert_eq!(steps, 4);
}

#[test]
fn a_deposed_relay_writes_nothing() {
    let mut world = World::new();
    world.put("a/label", "1");
    let part = world.next().unwrap();
    world.destination.write("/d/leaders/relay/1", None);
    world.destination.write("/d/leaders/relay/1", Some(b"made anew"));
    assert_eq!(world.destination.txn(&world.txn(&part)), None);
}
