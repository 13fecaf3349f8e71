//! Counts of pools.

use crate::model::pool::Pool;
use crate::plan::testing::lab::Lab;
use crate::plan::testing::make::*;
use crate::plan::usage::{PoolUsage, Unit, pool_usage};

fn usage(lab: &Lab, name: &str) -> PoolUsage {
    pool_usage(&lab.snapshot, &name.parse().unwrap()).unwrap()
}

#[test]
fn counts_are_exact_with_overlapping_exclusions_and_reservations() {
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
    let mut lab = Lab::new([Pool {
        exclude: nets(&["10.0.0.8/29", "10.0.0.0/28", "10.0.0.12/32", "10.0.0.255/32", "10.9.0.0/16"]),
        reserve: [
            (id("a"), vec!["10.0.0.20".parse().unwrap()]),
            (id("b"), vec!["10.0.0.21".parse().unwrap()]),
            (id("nowhere"), vec!["10.0.0.9".parse().unwrap()]),
        ]
        .into(),
        ..pool("eu", &["10.0.0.0/24", "10.0.0.0/25"])
    }]);
    // 256 listed; never given: .0-.15, .255, and .127, the broadcast address of the /25.
    let empty = usage(&lab, "eu");
    assert_eq!((empty.unit, empty.total), (Unit::Addresses, Some(256)));
    assert_eq!((empty.excluded, empty.reserved, empty.free), (18, 2, Some(236)));
    lab.join(label("a"));
    for n in 0..10 {
        lab.join(label(&format!("n{n}")));
    }
    lab.run();
    lab.leave("n3");
    lab.run();
    // An exclusion over what is given: it is bound and nothing else.
    let bound = lab.addresses("n4");
    lab.edit_pool("eu", |pool| pool.exclude.push(format!("{bound}/32").parse().unwrap()));
    let used = usage(&lab, "eu");
    assert_eq!((used.bound, used.cooling, used.reserved, used.excluded), (10, 1, 1, 18));
    let free = used.free.unwrap();
    assert_eq!(used.bound + used.cooling + used.reserved + used.excluded + free, 256);
    // As many as are said to be free are to be had.
    for n in 0..free + 1 {
        lab.join(label(&format!("m{n}")));
    }
    lab.run();
    assert_eq!(usage(&lab, "eu").free, Some(0));
    assert!(lab.reason(&format!("m{free}")).is_some() && lab.reason(&format!("m{}", free - 1)).is_none());
}

#[test]
fn ports_are_counted_where_addresses_are_shared() {
    let mut lab = Lab::new([shared("sh", &["10.0.0.0/30"], "30000-30004"), host("zz", &[], "30000-30004")]);
    lab.join(label_with_ports("a", &["x", "y"]));
    lab.run();
    let used = usage(&lab, "sh");
    assert_eq!((used.unit, used.total, used.bound, used.excluded, used.free), (Unit::Ports, Some(20), 2, 10, Some(8)));
    assert_eq!((usage(&lab, "zz").total, usage(&lab, "zz").free), (None, None));
}

#[test]
fn a_whole_ipv6_64_is_counted() {
    let mut lab = Lab::new([pool("eu", &["fd00::/64"])]);
    lab.join(label("a"));
    lab.run();
    let used = usage(&lab, "eu");
    // One is assigned, and the subnet-router anycast address is never.
    assert_eq!((used.total, used.free), (Some(1 << 64), Some((1 << 64) - 2)));
}
