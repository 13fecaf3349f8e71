//! Runs that failed once, as they were when they were understood: each stays right.

use std::time::Duration;

use enlist::store::memory::faults::FaultPlan;

use super::script::{Fault, Script, Step};
use super::{run, told};

fn stays_right(seed: u64, two_stores: bool, steps: &[(u64, Step)]) {
    let steps = steps.iter().map(|(pause, step)| (Duration::from_millis(*pause), step.clone())).collect();
    let script = Script { nodes: 8, two_stores, together: false, pools_change: false, steps };
    if run(&script, seed).is_err() {
        panic!("{}", told(&script, seed));
    }
}

/// The node that had the address when the backup was made starts again, while its next owner uses it.
#[test]
fn an_answer_out_of_a_backup_is_not_used_while_the_next_owner_lives() {
    let w = |node| Step::Change { node, pool: "w", ports: 0 };
    let restore = |writes| Step::Fault(Fault::Restore { source: true, writes, raised: false });
    stays_right(
        134,
        false,
        &[
            (710, Step::Join(0)),
            (6844, Step::Fault(Fault::BackUp)),
            (6360, Step::Change { node: 0, pool: "w", ports: 2 }),
            (223, w(1)),
            (2926, restore(0)),
            (18660, Step::Fault(Fault::Plan(FaultPlan::default()))),
            (2855, Step::Fault(Fault::BackUp)),
            (1412, Step::Leave(1)),
            (8673, Step::Change { node: 2, pool: "a", ports: 0 }),
            (4033, restore(60)),
            (1090, Step::Change { node: 1, pool: "a", ports: 0 }),
        ],
    );
}
