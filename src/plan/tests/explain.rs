//! What `explain` says.

use crate::model::assignment::Reason;
use crate::model::pool::Pool;
use crate::plan::explain::{Verdict, explain};
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;

#[test]
fn a_waiting_node_is_told_of_every_pool_in_the_order_in_which_they_are_tried() {
    let mut lab = Lab::new([
        Pool { priority: 1, ..pool("low", &["10.0.0.1/32"]) },
        Pool { priority: 9, ..pool("high", &["10.1.0.1/32"]) },
        Pool { selector: "never".parse().unwrap(), ..pool("other", &["10.2.0.1/32"]) },
    ]);
    for node in ["a", "b", "c"] {
        lab.join(label(node));
    }
    lab.run();
    let told = explain(&lab.snapshot, &id("c")).unwrap();
    let verdicts: Vec<(&str, Verdict)> = told.pools.iter().map(|pool| (pool.pool.as_str(), pool.verdict)).collect();
    let full = Verdict::Refused(Reason::PoolFull);
    assert_eq!(verdicts, [("high", full), ("low", full), ("other", Verdict::NoMatch)]);
    assert_eq!(told.state, "it waits: pool high is full; pool low is full (pool-full)");
    let told = explain(&lab.snapshot, &id("b")).unwrap();
    assert_eq!(told.pools[0].verdict, Verdict::Chosen);
    assert_eq!(told.addresses, [("10.0.0.1".parse().unwrap(), "the node's id hashes to it".into())]);
    assert_eq!(explain(&lab.snapshot, &id("nobody")), None);
}

#[test]
fn the_reason_for_an_address_is_told() {
    let mut lab =
        Lab::new([Pool { reserve: [(id("owner"), vec!["10.0.0.9".parse().unwrap()])].into(), ..pool("eu", &["10.0.0.0/28"]) }]);
    lab.join(label("owner"));
    lab.join(label_wanting("wants", "10.0.0.3"));
    lab.run();
    let why = |lab: &Lab, node: &str| explain(&lab.snapshot, &id(node)).unwrap().addresses[0].1.clone();
    assert_eq!(why(&lab, "owner"), "it is reserved for the node");
    assert_eq!(why(&lab, "wants"), "the node wants it");
    lab.relabel(label("wants"));
    lab.run();
    lab.edit_pool("eu", |pool| pool.exclude = vec!["10.0.0.3/32".parse().unwrap()]);
    assert!(why(&lab, "wants").contains("would not give it today"));
    lab.delete_pool("eu");
    assert!(why(&lab, "wants").contains("gives nothing new"));
}
