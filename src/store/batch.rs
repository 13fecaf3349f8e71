//! Chooses the units that go together into one request. Pure.
//!
//! A request may hold N nested transactions, each with up to 128 − N compares, writes or reads (`--max-txn-ops` counts
//! per nesting level, and children get the rest of the parent's width). All compares see the state *before* the
//! request, and siblings do not see each other's writes: two units that would both find an address free, one whole and
//! one by port, would both succeed. So a unit never joins another that writes a key that it compares or reads, or that
//! writes the same key.

use std::collections::{BTreeSet, VecDeque};

use crate::store::api::{Compare, Key, KeyRange, Op, RangeRequest, Txn};

/// The default `--max-txn-ops` of a server.
const TXN_OPS_MAX: usize = 128;
/// Half of the width, so that each child keeps the other half: 64 children with up to 64 operations each.
pub const BATCH_UNITS_MAX: usize = 64;
/// etcd rejects requests above 1.5 MiB; the difference covers bytes that the estimate does not count.
const BATCH_BYTES_MAX: usize = 1_200_000;
/// The bytes of a key in a request beside the key itself (tags, lengths, revisions).
const KEY_OVERHEAD_BYTES: usize = 32;

/// One all-or-nothing write of a caller.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// All of these must hold.
    pub compares: Vec<Compare>,
    /// Puts and deletes of single keys; each key at most once. The lease of a put must have been granted for this
    /// unit's pass.
    pub writes: Vec<Op>,
    /// The ranges to read when a compare fails.
    pub reads: Vec<RangeRequest>,
}

impl TryFrom<Txn> for Unit {
    /// The transaction, if it is not a unit.
    type Error = Txn;

    /// A transaction is a unit if it only writes single keys, each once, or else only reads.
    fn try_from(txn: Txn) -> Result<Unit, Txn> {
        let keys: BTreeSet<_> = txn.then.iter().filter_map(written).collect();
        let writes = txn.then.iter().all(|op| match op {
            Op::Put { .. } => true,
            Op::Delete(range) => range.end.is_none(),
            Op::Get(_) | Op::Txn(_) => false,
        });
        let reads = txn.otherwise.iter().all(|op| matches!(op, Op::Get(_)));
        if !writes || !reads || keys.is_empty() || keys.len() < txn.then.len() {
            return Err(txn);
        }
        let reads = txn.otherwise.into_iter().filter_map(|op| if let Op::Get(request) = op { Some(request) } else { None });
        Ok(Unit { compares: txn.compares, writes: txn.then, reads: reads.collect() })
    }
}

impl From<Unit> for Txn {
    fn from(unit: Unit) -> Txn {
        Txn { compares: unit.compares, then: unit.writes, otherwise: unit.reads.into_iter().map(Op::Get).collect() }
    }
}

/// The limits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of units.
    pub units: usize,
    /// Operations at one nesting level.
    pub operations: usize,
    /// Bytes of a request.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { units: BATCH_UNITS_MAX, operations: TXN_OPS_MAX, bytes: BATCH_BYTES_MAX }
    }
}

/// Takes the next batch from the queue: always the first unit, then every later unit that fits and does not conflict.
/// No unit of a batch writes a key that another one compares, reads or writes. The other units keep their order.
pub fn take_batch<T>(queue: &mut VecDeque<T>, unit: impl Fn(&T) -> &Unit, limits: Limits) -> Vec<T> {
    let mut batch = Vec::new();
    let mut touched = Touched::default();
    let (mut bytes, mut width) = (0, 0);
    let mut left = VecDeque::new();
    while let Some(next) = queue.pop_front() {
        let candidate = unit(&next);
        let (more_bytes, its_width) = (bytes + size(candidate), width.max(breadth(candidate)));
        let fits = batch.len() < limits.units
            && more_bytes <= limits.bytes
            && batch.len() + 1 + its_width <= limits.operations
            && !touched.conflicts(candidate);
        if batch.is_empty() || fits {
            touched.add(candidate);
            (bytes, width) = (more_bytes, its_width);
            batch.push(next);
        } else {
            left.push_back(next);
        }
        if batch.len() >= limits.units {
            break;
        }
    }
    left.append(queue);
    *queue = left;
    batch
}

/// The largest number of operations of one kind in a unit.
fn breadth(unit: &Unit) -> usize {
    unit.compares.len().max(unit.writes.len()).max(unit.reads.len())
}

fn size(unit: &Unit) -> usize {
    let key = |key: &Key| key.as_bytes().len() + KEY_OVERHEAD_BYTES;
    let range = |range: &KeyRange| key(&range.start) + range.end.as_ref().map_or(0, key);
    let compares = unit.compares.iter().map(|compare| match compare {
        Compare::Modified(k, _) | Compare::Created(k, _) => key(k),
        Compare::Value(k, value) => key(k) + value.len(),
        Compare::Empty(r) => range(r),
    });
    let writes = unit.writes.iter().map(|op| match op {
        Op::Put { key: k, value, .. } => key(k) + value.len(),
        Op::Delete(r) => range(r),
        Op::Get(_) | Op::Txn(_) => KEY_OVERHEAD_BYTES,
    });
    compares.sum::<usize>() + writes.sum::<usize>() + unit.reads.iter().map(|read| range(&read.range)).sum::<usize>()
}

/// The keys that the units of a batch compare, read and write.
#[derive(Default)]
struct Touched {
    written: BTreeSet<Key>,
    seen: BTreeSet<Key>,
    seen_ranges: Vec<KeyRange>,
}

impl Touched {
    fn add(&mut self, unit: &Unit) {
        self.written.extend(unit.writes.iter().filter_map(written).cloned());
        for seen in seen(unit) {
            match seen {
                Seen::Key(key) => drop(self.seen.insert(key.clone())),
                Seen::Range(range) => self.seen_ranges.push(range.clone()),
            }
        }
    }

    fn conflicts(&self, unit: &Unit) -> bool {
        unit.writes.iter().filter_map(written).any(|key| {
            self.written.contains(key) || self.seen.contains(key) || self.seen_ranges.iter().any(|range| range.contains(key))
        }) || seen(unit).any(|seen| match seen {
            Seen::Key(key) => self.written.contains(key),
            Seen::Range(range) => self.written.iter().any(|key| range.contains(key)),
        })
    }
}

/// A key or range that a unit compares or reads.
enum Seen<'u> {
    Key(&'u Key),
    Range(&'u KeyRange),
}

fn seen(unit: &Unit) -> impl Iterator<Item = Seen<'_>> {
    let compared = unit.compares.iter().map(|compare| match compare {
        Compare::Modified(key, _) | Compare::Created(key, _) | Compare::Value(key, _) => Seen::Key(key),
        Compare::Empty(range) => Seen::Range(range),
    });
    compared.chain(
        unit.reads
            .iter()
            .map(|read| if read.range.end.is_none() { Seen::Key(&read.range.start) } else { Seen::Range(&read.range) }),
    )
}

fn written(op: &Op) -> Option<&Key> {
    match op {
        Op::Put { key, .. } => Some(key),
        Op::Delete(range) => Some(&range.start),
        Op::Get(_) | Op::Txn(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Revision;

    fn unit(compares: &[&str], ranges: &[&str], writes: &[&str]) -> Unit {
        let mut all: Vec<_> = compares.iter().map(|key| Compare::Modified((*key).into(), Revision::NONE)).collect();
        all.extend(ranges.iter().map(|prefix| Compare::Empty(KeyRange::prefix(*prefix))));
        Unit { compares: all, writes: writes.iter().map(|key| Op::put(*key, "v")).collect(), reads: vec![] }
    }

    fn sizes(units: Vec<Unit>, limits: Limits) -> Vec<usize> {
        let mut queue: VecDeque<_> = units.into();
        let mut sizes = Vec::new();
        while !queue.is_empty() {
            sizes.push(take_batch(&mut queue, |unit| unit, limits).len());
        }
        sizes
    }

    #[test]
    fn independent_units_share_a_request_up_to_the_limits() {
        let many = |n: usize, width: usize| -> Vec<Unit> {
            (0..n)
                .map(|i| {
                    let keys: Vec<_> = (0..width).map(|j| format!("/{i}/{j}")).collect();
                    unit(&keys.iter().map(String::as_str).collect::<Vec<_>>(), &[], &[&keys[0]])
                })
                .collect()
        };
        assert_eq!(sizes(many(130, 5), Limits::default()), [64, 64, 2]);
        // 100 operations leave room for 28 children.
        assert_eq!(sizes(many(30, 100), Limits::default()), [28, 2]);
        // Each unit is too wide to share a request, but the server must see it.
        assert_eq!(sizes(many(2, 200), Limits::default()), [1, 1]);
        assert_eq!(sizes(many(4, 1), Limits { bytes: 150, ..Limits::default() }), [2, 2]);
    }

    #[test]
    fn whole_address_and_a_port_of_it_never_share_a_request() {
        let whole = || unit(&["/c/x"], &["/c/x/"], &["/c/x"]);
        let port = || unit(&["/c/x", "/c/x/80"], &[], &["/c/x/80"]);
        assert_eq!(sizes(vec![whole(), port()], Limits::default()), [1, 1]);
        assert_eq!(sizes(vec![port(), whole()], Limits::default()), [1, 1]);
        // Only the range compare shows the conflict.
        let by_range = || unit(&[], &["/c/x/"], &["/n/a"]);
        assert_eq!(sizes(vec![by_range(), port()], Limits::default()), [1, 1]);
        assert_eq!(sizes(vec![port(), by_range()], Limits::default()), [1, 1]);
    }

    #[test]
    fn reader_and_writer_of_a_key_never_share_a_request() {
        let reads = |range| Unit { reads: vec![RangeRequest::all(range)], ..unit(&[], &[], &["/a/x"]) };
        for range in [KeyRange::one("/b/x"), KeyRange::prefix("/b/")] {
            let (reader, writer) = (|| reads(range.clone()), || unit(&[], &[], &["/b/x"]));
            assert_eq!(sizes(vec![reader(), writer()], Limits::default()), [1, 1]);
            assert_eq!(sizes(vec![writer(), reader()], Limits::default()), [1, 1]);
            assert_eq!(sizes(vec![reader(), unit(&[], &[], &["/c/x"])], Limits::default()), [2]);
        }
    }

    #[test]
    fn txn_of_single_key_writes_or_reads_converts_to_a_unit() {
        let txn = Txn {
            compares: vec![Compare::Modified("/a".into(), Revision::NONE)],
            then: vec![Op::put("/a", "v"), Op::delete("/b")],
            otherwise: vec![Op::Get(RangeRequest { limit: 7, ..RangeRequest::all(KeyRange::prefix("/")) })],
        };
        assert_eq!(Unit::try_from(txn.clone()).map(Txn::from), Ok(txn.clone()));
        let not_units = [
            Txn { then: vec![], ..txn.clone() },
            Txn { then: vec![Op::put("/a", "v"), Op::get("/b")], ..txn.clone() },
            Txn { then: vec![Op::Delete(KeyRange::prefix("/a/"))], ..txn.clone() },
            Txn { then: vec![Op::put("/a", "v"), Op::delete("/a")], ..txn.clone() },
            Txn { then: vec![Op::Txn(txn.clone())], ..txn.clone() },
            Txn { otherwise: vec![Op::put("/b", "v")], ..txn.clone() },
        ];
        for other in not_units {
            assert_eq!(Unit::try_from(other.clone()).map(Txn::from), Err(other));
        }
    }

    #[test]
    fn second_write_of_a_key_waits_and_later_units_pass_it() {
        let a = || unit(&[], &[], &["/a"]);
        let b = || unit(&[], &[], &["/b"]);
        assert_eq!(sizes(vec![a(), a(), b()], Limits::default()), [2, 1]);
    }
}
