//! Every knob of the scripts had an effect: what never happens proves nothing.

use enlist::store::memory::faults::FaultCounts;

use super::Ran;
use super::disaster::Done;

/// Sums over all runs, and how often each must have happened in a hundred runs: a third to a half of what was seen, so that
/// chance does not fail a run, and a knob that was lost does.
pub(super) fn assert_enough<'a>(runs: impl Iterator<Item = &'a Ran>, count: u64) {
    let (counts, done): (Vec<FaultCounts>, Vec<Done>) = runs.map(|ran| (ran.faults, ran.done)).unzip();
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
