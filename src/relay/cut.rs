//! Cuts: from differences to transactions. Pure.
//!
//! A cut makes the copies equal to the source at one revision. It is one transaction if it fits a request; else it takes
//! several parts, each of which compares *and puts* the checkpoint: a delayed duplicate of an earlier part then finds
//! another checkpoint and writes nothing. Parts are planned one at a time from what is there, so that a relay which dies
//! between two of them needs no memory: the next one plans the rest.

use bytes::Bytes;

use crate::model::names::Revision;
use crate::relay::diff::{CopyId, Mirror, VALUE_BYTES_MAX};
use crate::store::api::{Compare, Op, Txn};
use crate::store::committer::Fence;
use crate::store::keys::Prefix;
use crate::store::wire::{Checkpoint, Partial, Stored, VERSION};

/// How large one part may be. They shrink when a server refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys and values of a part. etcd takes requests of 1.5 MiB (`--max-request-bytes`); what is left is for framing.
    pub bytes: usize,
    /// Writes in a part.
    pub writes: usize,
    /// Operations at one nesting level, of the level above too (`--max-txn-ops`).
    pub width: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 1_400 * 1024, writes: 4_000, width: 128 }
    }
}

/// What framing costs for each operation, at most, apart from key and value.
const OVERHEAD_BYTES: usize = 32;
/// So many keys that are too large are named in the checkpoint, at most.
const LEFT_OUT_MAX: usize = 100;

impl Limits {
    /// Half of everything, for a server that refused; `None` = it cannot get smaller.
    pub fn halved(self) -> Option<Limits> {
        let smaller = Limits { bytes: self.bytes / 2, writes: self.writes / 2, width: (self.width / 2).max(4) };
        (smaller.bytes >= 64 * 1024 && smaller.writes >= 1).then_some(smaller)
    }

    /// The largest value that fits a part beside its key and a checkpoint.
    pub fn value_bytes_max(self) -> usize {
        VALUE_BYTES_MAX.min(self.bytes / 4 * 3)
    }

    /// How many nested transactions carry `writes` operations: children get what their parent's width leaves.
    fn children(self, writes: usize) -> usize {
        if writes < self.width {
            return 0;
        }
        // One operation of the top level is the checkpoint's.
        (1..self.width / 2).find(|k| k * (self.width - 1 - k) >= writes).unwrap_or(self.width / 2)
    }

    /// The most writes that fit with one level of nesting.
    fn writes_max(self) -> usize {
        let half = self.width / 2;
        self.writes.min((half.saturating_sub(1) * (self.width - half)).max(1))
    }
}

/// One transaction's worth of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The checkpoint's mod_revision that it compares; none = it must be absent.
    pub seen: Revision,
    /// What the checkpoint becomes. Without `partial` this part ends the cut.
    pub checkpoint: Checkpoint,
    /// What is written, in order; `None` = deleted.
    pub writes: Vec<(CopyId, Option<Bytes>)>,
}

/// The next part that brings the copies nearer to the source; `None` = nothing is to be written.
pub fn next_part(mirror: &Mirror, source_name: &str, limits: Limits) -> Option<Part> {
    if !mirror.is_complete() {
        return None;
    }
    let last = finished(mirror, source_name);
    let seen = mirror.checkpoint();
    if mirror.differing().is_empty() && !needs_checkpoint(mirror, &last) {
        return None;
    }
    let (writes, all) = take(mirror, limits, last.encode().len());
    let checkpoint = if all {
        last
    } else {
        let before = mirror.stored_checkpoint();
        let part = before.and_then(|c| c.partial.as_ref()).map_or(1, |partial| partial.part.saturating_add(1));
        Checkpoint {
            revision: before.map_or(Revision::NONE, |c| c.revision),
            partial: Some(Partial { to: last.revision, part }),
            ..last
        }
    };
    Some(Part { seen: seen.map_or(Revision::NONE, |seen| seen.mod_revision), checkpoint, writes })
}

/// The checkpoint of a finished cut at the view's revision.
fn finished(mirror: &Mirror, source_name: &str) -> Checkpoint {
    let name = |(node, part): &CopyId| format!("nodes/{node}/{}", part.as_str());
    let mut left_out: Vec<String> = mirror.left_out().iter().take(LEFT_OUT_MAX).map(name).collect();
    if let Some(more) = mirror.left_out().len().checked_sub(LEFT_OUT_MAX).filter(|more| *more > 0) {
        left_out.push(format!("and {more} more"));
    }
    Checkpoint {
        v: VERSION,
        source: source_name.to_owned(),
        cluster: mirror.source_cluster(),
        revision: mirror.source_revision(),
        partial: None,
        left_out,
    }
}

/// Whether the stored checkpoint says something untrue although the copies are equal to the source. That its revision is
/// an earlier one is not untrue: a quiet prefix on a busy cluster causes no writes.
fn needs_checkpoint(mirror: &Mirror, last: &Checkpoint) -> bool {
    let Some(stored) = mirror.stored_checkpoint() else { return true };
    stored.partial.is_some()
        || stored.source != last.source
        || stored.cluster != last.cluster
        || stored.revision > last.revision
        || stored.left_out != last.left_out
        || !mirror.unconfirmed().is_empty()
}

/// As many differences as fit, and whether these are all.
fn take(mirror: &Mirror, limits: Limits, checkpoint_bytes: usize) -> (Vec<(CopyId, Option<Bytes>)>, bool) {
    // Twice: a partial checkpoint is a little longer.
    let mut bytes = 2 * checkpoint_bytes;
    let mut writes = Vec::new();
    for id in mirror.differing() {
        let value = mirror.wanted(id).cloned();
        let cost = mirror.copy_key(id).as_bytes().len() + value.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES;
        let fits = writes.len() < limits.writes_max() && bytes + cost <= limits.bytes;
        // The first one goes even if it does not fit: the server may take it, and nothing would ever move else.
        if !fits && !writes.is_empty() {
            return (writes, false);
        }
        bytes += cost;
        writes.push((id.clone(), value));
    }
    (writes, true)
}

/// The transaction that writes a part, if the leader key and the checkpoint are as seen. If not it reads both, in this
/// order.
pub fn transaction(part: &Part, prefix: &Prefix, fence: &Fence, limits: Limits) -> Txn {
    let checkpoint = prefix.checkpoint();
    let op = |(id, value): &(CopyId, Option<Bytes>)| {
        let key = prefix.copy(&id.0, id.1);
        value.as_ref().map_or_else(|| Op::delete(key.clone()), |value| Op::put(key.clone(), value.clone()))
    };
    let mut then = vec![Op::put(checkpoint.clone(), part.checkpoint.encode())];
    let ops: Vec<Op> = part.writes.iter().map(op).collect();
    match limits.children(ops.len()) {
        0 => then.extend(ops),
        children => {
            for chunk in ops.chunks(ops.len().div_ceil(children)) {
                then.push(Op::Txn(Txn { then: chunk.to_vec(), ..Txn::default() }));
            }
        }
    }
    Txn {
        compares: vec![fence.compare(), Compare::Modified(checkpoint.clone(), part.seen)],
        then,
        otherwise: vec![Op::get(fence.key.clone()), Op::get(checkpoint)],
    }
}
