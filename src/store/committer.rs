//! The committer sends the many small all-or-nothing writes of a role's leader in few requests.
//!
//! A unit is the write of one caller with its compares. Units that wait while requests are in flight go together
//! (`store/batcher.rs`), all of them under the fence of the leader.

use crate::model::names::Revision;
use crate::store::api::{KeyValue, OpResult, Store, StoreError, TxnResponse};
use crate::store::batcher::{Answer, Batcher};

pub use crate::store::batch::Unit;
pub use crate::store::batcher::Fence;

/// The result of a unit.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Written at this revision.
    Committed(Revision),
    /// A compare failed; these are the keys that `reads` then found.
    Lost(Vec<KeyValue>),
    /// The leader key is gone: nothing was written, and later units will fail too.
    Deposed,
    /// No answer: it may have been written. Read, then decide.
    Unknown(StoreError),
    /// Rejected for good (too large, no space, permission): not written.
    Refused(StoreError),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Outcome {
        match answer {
            Ok(Some(response)) if response.succeeded => Outcome::Committed(response.header.revision),
            Ok(Some(response)) => Outcome::Lost(read(response)),
            Ok(None) => Outcome::Deposed,
            Err(error) if error.is_unknown_outcome() => Outcome::Unknown(error),
            Err(error) => Outcome::Refused(error),
        }
    }
}

fn read(response: TxnResponse) -> Vec<KeyValue> {
    let ranges = response.results.into_iter().filter_map(|result| match result {
        OpResult::Range(range) => Some(range.kvs),
        _ => None,
    });
    ranges.flatten().collect()
}

/// Collects units while requests are in flight and sends at once when idle. A cheap handle; dropping the last one ends
/// the task.
#[derive(Debug, Clone)]
pub struct Committer(Batcher);

impl Committer {
    /// A committer that writes only while `fence` holds.
    pub fn new(store: Store, fence: Fence) -> Self {
        Committer(Batcher::new(store, Some(fence)))
    }

    /// Commits units; the outcomes are in the order of the units. The caller bounds the queue: a role waits for the
    /// outcomes of a pass before it plans the next one.
    pub async fn commit(&self, units: Vec<Unit>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(units.len());
        for answer in self.0.send_all(units) {
            outcomes.push(answer.get().await.into());
        }
        outcomes
    }
}

#[cfg(test)]
mod tests;
