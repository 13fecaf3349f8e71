//! Checks the transactions that etcd rejects before it looks at any key: rules of `etcdserver/api/v3rpc/key.go`. Pure.

use std::collections::BTreeSet;

use crate::store::api::{Compare, Key, KeyRange, Op, StoreError, Txn};

/// Rejects the same transactions as etcd: too many operations on a level, an empty key, a key written twice, a request
/// too large.
pub(super) fn check(txn: &Txn, ops_max: usize, bytes_max: usize) -> Result<(), StoreError> {
    check_width(txn, ops_max)?;
    check_level(&txn.then)?;
    check_level(&txn.otherwise)?;
    // Only proposals to the cluster are bounded, and a read is not one.
    if txn.writes() && size(txn) > bytes_max { Err(StoreError::TooLarge) } else { Ok(()) }
}

/// Bounds compares, then-list and else-list each; children get the rest of the widest of them.
fn check_width(txn: &Txn, ops_max: usize) -> Result<(), StoreError> {
    let width = txn.compares.len().max(txn.then.len()).max(txn.otherwise.len());
    if width > ops_max {
        return Err(StoreError::TooManyOps);
    }
    let no_key = |key: &Key| key.as_bytes().is_empty();
    let key_of = |compare: &Compare| match compare {
        Compare::Modified(key, _) | Compare::Created(key, _) | Compare::Value(key, _) => no_key(key),
        Compare::Empty(range) => no_key(&range.start),
    };
    if txn.compares.iter().any(key_of) {
        return Err(empty_key());
    }
    txn.then.iter().chain(&txn.otherwise).try_for_each(|op| match op {
        Op::Txn(inner) => check_width(inner, ops_max - width),
        Op::Put { key, .. } if no_key(key) => Err(empty_key()),
        Op::Delete(range) if no_key(&range.start) => Err(empty_key()),
        Op::Get(request) if no_key(&request.range.start) => Err(empty_key()),
        _ => Ok(()),
    })
}

pub(super) fn empty_key() -> StoreError {
    StoreError::Other("key is not provided".to_owned())
}

/// The keys that a branch may put, and the ranges that it may delete.
#[derive(Default)]
struct Touched {
    puts: BTreeSet<Key>,
    deletes: Vec<KeyRange>,
}

impl Touched {
    fn put(&mut self, key: &Key) -> Result<(), StoreError> {
        let twice = !self.puts.insert(key.clone()) || self.deletes.iter().any(|range| range.contains(key));
        if twice { Err(StoreError::Other("duplicate key given in txn request".to_owned())) } else { Ok(()) }
    }
}

/// Deletes of this level come first; then each child's puts against the puts of earlier children and the deletes so far
/// (a delete in a *later* child is not seen, as in etcd); then this level's puts.
fn check_level(ops: &[Op]) -> Result<Touched, StoreError> {
    let mut all = Touched::default();
    all.deletes.extend(ops.iter().filter_map(|op| if let Op::Delete(range) = op { Some(range.clone()) } else { None }));
    for op in ops {
        let Op::Txn(inner) = op else { continue };
        let (then, otherwise) = (check_level(&inner.then)?, check_level(&inner.otherwise)?);
        then.puts.iter().try_for_each(|key| all.put(key))?;
        // The branches exclude each other, so the same key may be in both.
        otherwise.puts.difference(&then.puts).try_for_each(|key| all.put(key))?;
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Op::Put { key, .. } = op {
            all.put(key)?;
        }
    }
    Ok(all)
}

/// Whether the transaction can make the store larger, in either branch.
pub(super) fn puts(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).any(|op| match op {
        Op::Put { .. } => true,
        Op::Delete(_) | Op::Get(_) => false,
        Op::Txn(inner) => puts(inner),
    })
}

/// The approximate size on the wire: keys, values and some bytes of framing for each.
fn size(txn: &Txn) -> usize {
    const FRAME: usize = 12;
    let range =
        |range: &KeyRange| FRAME + range.start.as_bytes().len() + range.end.as_ref().map_or(0, |end| end.as_bytes().len());
    let compares = txn.compares.iter().map(|compare| match compare {
        Compare::Modified(key, _) | Compare::Created(key, _) => FRAME + key.as_bytes().len(),
        Compare::Value(key, value) => FRAME + key.as_bytes().len() + value.len(),
        Compare::Empty(empty) => range(empty),
    });
    let ops = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
        Op::Put { key, value, .. } => FRAME + key.as_bytes().len() + value.len(),
        Op::Delete(deleted) => range(deleted),
        Op::Get(request) => range(&request.range),
        Op::Txn(inner) => FRAME + size(inner),
    });
    compares.sum::<usize>() + ops.sum::<usize>()
}
