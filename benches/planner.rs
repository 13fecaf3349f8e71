//! A pass of the allocator: without work, and with a hundred new nodes.

use std::hint::black_box;

use criterion::Criterion;
use enlist::allocator::View;
use enlist::model::names::Revision;
use enlist::plan::snapshot::Snapshot;
use enlist::plan::{Pass, plan};
use enlist::store::keys::Prefix;

use crate::fleet::{joining, pool, registered};

const JOINING: usize = 100;

fn snapshot(settled: usize, new: usize) -> Snapshot {
    let nodes = (0..settled).flat_map(|n| registered(n, 5));
    let joining = (settled..settled + new).flat_map(|n| joining(n, 6));
    let kvs: Vec<_> = std::iter::once(pool(4)).chain(nodes).chain(joining).collect();
    View::of(Prefix::default(), Revision(6), &kvs)
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("planner");
    let pass = Pass::default();
    for settled in [1_000, 20_000] {
        for (name, new) in [("no work", 0), ("100 join", JOINING)] {
            let snapshot = snapshot(settled, new);
            assert_eq!(plan(&snapshot, &pass).changes.len(), new);
            group.bench_function(format!("{settled} nodes, {name}"), |bencher| {
                bencher.iter(|| plan(black_box(&snapshot), &pass));
            });
        }
    }
}
