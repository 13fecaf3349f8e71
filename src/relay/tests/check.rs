//! What `enlist check` says of the copies.

use super::*;
use crate::relay::check;
use crate::store::api::{Header, LeaseId, RangeResponse};

fn read(side: &Tiny, ranges: &[KeyRange]) -> RangeResponse {
    let header = Header { cluster_id: 7, member_id: 1, revision: Revision(side.revision) };
    RangeResponse { header, kvs: side.read(ranges), more: false, count: 0 }
}

#[test]
fn check_finds_each_kind_of_difference() {
    let mut world = World::new();
    for node in ["same", "differs", "missing", "leased"] {
        world.put(&format!("{node}/label"), "1");
    }
    world.run();
    let found = |world: &World| {
        let source = read(&world.source, &[prefix("/s").folder("nodes")]);
        let destination = read(&world.destination, &[prefix("/d").folder("manager")]);
        check((&prefix("/s"), &source), (&prefix("/d"), &destination))
            .into_iter()
            .map(|finding| format!("{} {}", finding.code, finding.keys[0]))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&world), Vec::<String>::new());
    world.destination.write("/d/manager/nodes/differs/label", Some(b"2"));
    world.destination.write("/d/manager/nodes/missing/label", None);
    world.destination.write("/d/manager/nodes/stale/label", Some(b"1"));
    world.destination.write("/d/manager/nodes/foreign", Some(b"1"));
    world.destination.write("/d/manager/groups/web", Some(b"{}"));
    world.destination.apply(&Op::Put { key: "/d/manager/nodes/leased/label".into(), value: "1".into(), lease: LeaseId(1) });
    assert_eq!(
        found(&world),
        [
            "copy-differs manager/nodes/differs/label",
            "copy-differs manager/nodes/leased/label",
            "copy-missing manager/nodes/missing/label",
            "copy-stale manager/nodes/stale/label",
            "foreign-copy-key manager/nodes/foreign",
        ]
    );
    // A newer read of the source proves less: what it lacks may have gone since.
    world.source.write("/s/nodes/same/label", Some(b"2"));
    assert_eq!(
        found(&world),
        [
            "copy-differs manager/nodes/differs/label",
            "copy-differs manager/nodes/leased/label",
            "copy-missing manager/nodes/missing/label",
            "foreign-copy-key manager/nodes/foreign",
        ]
    );
    world.destination.write("/d/manager/checkpoint", None);
    assert!(found(&world).contains(&"checkpoint-missing manager/checkpoint".to_string()));
}
