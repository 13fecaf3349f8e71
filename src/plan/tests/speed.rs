//! That a full space costs no more than an empty one: counted in steps of time so generous that only a wrong order of
//! growth fails them.

use std::time::{Duration, Instant};

use crate::model::assignment::Reason;
use crate::model::label::{Label, Want};
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[test]
fn a_full_pool_answers_many_more_quickly_and_none_of_them_succeeds() {
    let mut lab = Lab::new([pool("eu", &["10.0.0.0/20"])]);
    for n in 0..4094 {
        lab.join(label(&format!("n{n}")));
    }
    lab.step();
    for n in 0..1000 {
        lab.join(label(&format!("more{n}")));
    }
    let took = timed(|| {
        let plan = lab.step();
        assert!(plan.changes.iter().all(|change| change.action == crate::plan::change::Action::Wait));
        assert_eq!(plan.changes.len(), 1000);
    });
    // In an unoptimised build; a search through the pool for each would take minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_full_shared_pool_is_searched_once_and_not_for_every_node() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/21"], "30000-30000")]);
    for n in 0..3000 {
        lab.join(label(&format!("n{n}")));
    }
    let took = timed(|| {
        lab.step();
    });
    assert_eq!((0..3000).filter(|n| lab.reason(&format!("n{n}")).is_none()).count(), 2046);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn ports_that_no_address_of_a_huge_pool_can_have_are_refused_at_once() {
    let mut lab = Lab::new([shared("sh", &["fd00::/64"], "30000-30001")]);
    let wanting = |node: &str, port: u16| Label {
        want: Want { addresses: Vec::new(), ports: [("main".parse().unwrap(), port)].into() },
        ..label(node)
    };
    lab.join(wanting("a", 80));
    lab.join(label_with_ports("b", &["x", "y", "z"]));
    lab.join(label("c"));
    lab.run();
    assert_eq!(lab.reason("a"), Some(Reason::PortOutside));
    assert_eq!(lab.reason("b"), Some(Reason::PortsFull));
    assert_eq!(lab.reason("c"), None);
}
