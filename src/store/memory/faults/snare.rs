//! A fault that waits for one certain write: chance alone would have to hit a moment of milliseconds.

use std::time::Duration;

use crate::store::api::{Op, Txn};

/// The next transaction that does this write, nested or not, is done late, and its client never hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snare {
    /// How the key ends.
    pub key: String,
    /// What the value that is put holds somewhere; `None` = the key is deleted.
    pub put: Option<String>,
    /// It arrives this much later.
    pub late: Duration,
}

impl Snare {
    /// Whether it waits for this one.
    pub(super) fn catches(&self, txn: &Txn) -> bool {
        txn.then.iter().any(|op| match (op, &self.put) {
            (Op::Txn(nested), _) => self.catches(nested),
            (Op::Put { key, value, .. }, Some(part)) => {
                self.is_key(key.as_bytes())
                    && (part.is_empty() || value.windows(part.len()).any(|piece| piece == part.as_bytes()))
            }
            (Op::Delete(range), None) => range.end.is_none() && self.is_key(range.start.as_bytes()),
            _ => false,
        })
    }

    fn is_key(&self, key: &[u8]) -> bool {
        key.ends_with(self.key.as_bytes())
    }
}
