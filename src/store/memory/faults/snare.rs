//! A fault that waits for one specific write: chance alone would have to hit a moment of milliseconds.

use std::time::Duration;

use crate::store::api::{Op, Txn};

/// The store executes the next transaction with this write, nested or not, late, and its client gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snare {
    /// The end of the key.
    pub key: String,
    /// A part of the written value; `None` = the key is deleted.
    pub put: Option<String>,
    /// The delay of the write.
    pub late: Duration,
}

impl Snare {
    /// Whether the snare catches this transaction.
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
