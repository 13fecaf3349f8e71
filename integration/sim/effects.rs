//! Every knob of the scripts had an effect: what never happens proves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use enlist::model::names::NodeId;
use enlist::store::api::Event;
use enlist::store::keys::{NodePart, ParsedKey};
use enlist::store::memory::faults::FaultCounts;
use tokio::time::Instant;

use super::Ran;
use super::disaster::Done;
use super::timeline::Timeline;
use super::world::World;

/// A node writes its status at most this often within a second, whatever happens. A join is followed by two more writes at most, and
/// the pauses between joins that do not last grow from 0.2 s; a rival for the id and a person's own writes come on top.
const STATUSES_MAX: u64 = 16;

/// The most status writes of one node within one second.
pub(super) fn busiest_second(store: &Timeline) -> u64 {
    let mut most = 0;
    for (number, era) in store.eras().iter().enumerate() {
        let times = store.times(number);
        let mut lately: BTreeMap<NodeId, VecDeque<Instant>> = BTreeMap::new();
        for (revision, events) in era {
            let Some(now) = times.first_seen(*revision) else { continue };
            for event in events.iter().filter(|event| matches!(event, Event::Put(_))) {
                let ParsedKey::Node(node, NodePart::Status) = World::prefix().parse(event.key()) else { continue };
                let written = lately.entry(node).or_default();
                written.push_back(now);
                while written.front().is_some_and(|first| now - *first > Duration::from_secs(1)) {
                    written.pop_front();
                }
                most = most.max(written.len() as u64);
            }
        }
    }
    most
}

/// Sums over all runs, and how often each must have happened in a hundred runs: a third to a half of what was seen, so that
/// chance does not fail a run, and a knob that was lost does.
pub(super) fn assert_enough<'a>(runs: impl Iterator<Item = &'a Ran>, count: u64) {
    let runs: Vec<&Ran> = runs.collect();
    let busiest = runs.iter().map(|ran| ran.busiest).max().unwrap_or_default();
    eprintln!("{busiest} statuses of one node within a second");
    assert!((1..=STATUSES_MAX).contains(&busiest), "{busiest} statuses of one node within a second");
    let (counts, done): (Vec<FaultCounts>, Vec<Done>) = runs.iter().map(|ran| (ran.faults, ran.done)).unzip();
    let total = |of: fn(&FaultCounts) -> u64| counts.iter().map(of).sum::<u64>();
    let all = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
    let effects = [
        ("calls delayed", total(|c| c.delayed), 5_000),
        ("calls not sent", total(|c| c.unreachable), 100),
        ("answers lost", total(|c| c.answers_lost), 100),
        ("calls late", total(|c| c.late), 400),
        ("certain writes late", total(|c| c.snared), 20),
        ("transactions twice", total(|c| c.duplicates), 30),
        ("rivals that were faster", total(|c| c.conflicts), 8),
        ("watches repeated", total(|c| c.watches_repeated), 15),
        ("watch messages delayed", total(|c| c.watches_delayed), 2_000),
        ("watches broken", total(|c| c.watches_broken), 40),
        ("watches stalled", total(|c| c.watches_stalled), 80),
        ("calls cut off", total(|c| c.cut_off), 1_000),
        ("clients frozen at a call", total(|c| c.frozen), 15),
        ("calls refused for space", total(|c| c.no_space), 20),
        ("calls and watches too late for a compaction", total(|c| c.compacted), 5),
        ("pauses", all(|d| d.pauses), 10),
        ("crashes of roles", all(|d| d.crashes), 5),
        ("leases ended", all(|d| d.expired), 40),
        ("leaders deposed", all(|d| d.deposed), 12),
        ("clocks jumped", all(|d| d.jumped_clocks), 8),
        ("restored", all(|d| d.restored), 8),
        ("restored with raised revisions", all(|d| d.raised), 3),
        ("emptied", all(|d| d.emptied), 3),
        ("compacted", all(|d| d.compacted), 20),
        ("elections", all(|d| d.elections), 4),
        ("second cluster cut off", all(|d| d.store_cut), 2),
        ("all but keep-alives cut off", all(|d| d.calls_cut), 5),
        ("rivals for an id", all(|d| d.rivals), 15),
        ("claims that nobody can read", all(|d| d.bad_claims), 2),
        ("greedy labels", all(|d| d.greedy_labels), 5),
        ("strangers", all(|d| d.strangers), 3),
    ];
    eprintln!("{:?}", effects.map(|(name, count, _)| (name, count)));
    for (name, seen, in_a_hundred) in effects {
        let least = in_a_hundred * count / 100;
        assert!(seen >= least, "{name}: {seen} in {count} runs, at least {least} are expected");
    }
}
