//! The work for the events of a watch: the machine that decides whether to trust them, and the typed view.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use enlist::allocator::View;
use enlist::model::names::Revision;
use enlist::store::api::{Event, Header, WatchMessage};
use enlist::store::feed::Update;
use enlist::store::keys::Prefix;
use enlist::store::watch::{Listed, Verdict, WatchMachine};

use crate::fleet::registered;

/// 200 registrations of five keys, each at its own revision.
const NODES: usize = 200;

fn events() -> Vec<Event> {
    (0..NODES).flat_map(|n| registered(n, 10 + n as i64)).map(Event::Put).collect()
}

fn header(revision: i64) -> Header {
    Header { cluster_id: 1, member_id: 1, revision: Revision(revision) }
}

/// A machine that has read an empty prefix and follows it.
fn machine() -> WatchMachine {
    let mut machine = WatchMachine::new(vec![Prefix::default().range()]);
    machine.reread(&header(9), Listed::default());
    machine.reopened();
    machine.message(WatchMessage::Created(header(9)));
    machine
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("watch");
    let events = events();
    let last = 9 + NODES as i64;
    let message = || WatchMessage::Events { header: header(last), events: events.clone(), fragment: false };
    assert!(matches!(machine().message(message()), Verdict::Apply(_, told) if told.len() == events.len()));
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("machine, 1,000 events", |bencher| {
        bencher.iter_batched(
            || (machine(), message()),
            |(mut machine, message)| black_box(machine.message(message)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decoding into the view, 1,000 events", |bencher| {
        let update = || (View::new(Prefix::default()), Update::Events { revision: Revision(last), events: events.clone() });
        bencher.iter_batched(
            update,
            |(mut view, update)| {
                view.apply(update);
                view
            },
            BatchSize::SmallInput,
        );
    });
}
