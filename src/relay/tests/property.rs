//! A relay that is killed, repeated, restarted and meddled with at random.

use proptest::prelude::*;

use super::*;

/// What happens in a random run.
#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8),
    Delete(usize),
    /// The relay writes a part and sees it.
    Write,
    /// It writes a part and dies before it sees it: another starts.
    WriteAndDie,
    /// It dies.
    Die,
    /// A duplicate of an earlier transaction arrives.
    Duplicate(prop::sample::Index),
    Meddle(usize, Option<u8>),
    Reread,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12_usize, 0..3_u8).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (0..12_usize).prop_map(Step::Delete),
        8 => Just(Step::Write),
        2 => Just(Step::WriteAndDie),
        1 => Just(Step::Die),
        3 => any::<prop::sample::Index>().prop_map(Step::Duplicate),
        1 => (0..12_usize, proptest::option::of(0..3_u8)).prop_map(|(key, value)| Step::Meddle(key, value)),
        1 => Just(Step::Reread),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    /// Whatever happens: copies whose checkpoint is not partial and that nobody else changed equal a state of the source,
    /// these never go back, and after quiet all is equal.
    #[test]
    fn complete_copies_equal_a_source_state_and_never_go_back(steps in steps(), writes in 1..4_usize) {
        let mut world = World::new();
        world.limits.writes = writes;
        let key = |index: usize| format!("n{}/{}", index / 3, ["label", "status", "assignment"][index % 3]);
        let mut sent: Vec<Txn> = Vec::new();
        let mut last = Revision::NONE;
        for step in steps {
            match step {
                Step::Put(index, value) => world.put(&key(index), &value.to_string()),
                Step::Delete(index) => world.delete(&key(index)),
                Step::Write => if let Some(part) = world.next() {
                    sent.push(world.txn(&part));
                    prop_assert!(world.step().is_some());
                },
                Step::WriteAndDie => if let Some(part) = world.next() {
                    let txn = world.txn(&part);
                    prop_assert!(world.destination.txn(&txn).is_some());
                    sent.push(txn);
                    world.restart();
                },
                Step::Die => world.restart(),
                Step::Duplicate(index) => if !sent.is_empty() {
                    prop_assert_eq!(world.destination.txn(index.get(&sent)), None);
                },
                Step::Meddle(index, value) => {
                    world.meddle(&format!("nodes/{}", key(index)), value.map(|v| v.to_string()).as_deref());
                }
                Step::Reread => world.reread_source(),
            }
            let Some(checkpoint) = world.checkpoint().filter(|checkpoint| checkpoint.partial.is_none()) else { continue };
            prop_assert!(checkpoint.revision >= last, "went back from {last:?} to {:?}", checkpoint.revision);
            last = checkpoint.revision;
            let at = world.destination.kvs.get(&"/d/manager/checkpoint".into()).unwrap().mod_revision;
            if world.destination.revision == at.0 {
                prop_assert_eq!(&world.copies(), world.history.get(&checkpoint.revision.0).unwrap());
            }
        }
        world.run();
        world.assert_equal();
        prop_assert!(world.next().is_none());
    }
}
