//! What a request wanted to do, in words: for the error of a request that etcd refused for want of permission. Pure.

use std::collections::BTreeSet;

use crate::store::api::{Compare, Key, KeyRange, Op, Txn};

/// Keys that are named at most; the others are counted.
const NAMED_MAX: usize = 3;

/// A read.
pub(super) fn of_range(range: &KeyRange) -> String {
    format!("read {}", keys(range))
}

/// A watch, which etcd allows to whoever may read.
pub(super) fn of_watch(range: &KeyRange) -> String {
    format!("watch {}", keys(range))
}

/// A transaction: etcd wants permission for each key in it, compared ones too.
pub(super) fn of_txn(txn: &Txn) -> String {
    let (mut written, mut read) = (BTreeSet::new(), BTreeSet::new());
    collect(txn, &mut written, &mut read);
    let words = |verb: &str, ranges: &BTreeSet<KeyRange>| {
        let named: Vec<String> = ranges.iter().take(NAMED_MAX).map(keys).collect();
        let more = ranges.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{verb} {}{more}", named.join(", "))
    };
    match (written.is_empty(), read.is_empty()) {
        (false, false) => format!("{}, or not {}", words("write", &written), words("read", &read)),
        (false, true) => words("write", &written),
        (true, _) => words("read", &read),
    }
}

fn collect(txn: &Txn, written: &mut BTreeSet<KeyRange>, read: &mut BTreeSet<KeyRange>) {
    let one = |key: &Key| KeyRange::one(key.clone());
    read.extend(txn.compares.iter().map(|compare| match compare {
        Compare::Modified(key, _) | Compare::Created(key, _) | Compare::Value(key, _) => one(key),
        Compare::Empty(range) => range.clone(),
    }));
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { key, .. } => drop(written.insert(one(key))),
            Op::Delete(range) => drop(written.insert(range.clone())),
            Op::Get(request) => drop(read.insert(request.range.clone())),
            Op::Txn(inner) => collect(inner, written, read),
        }
    }
}

/// A key, or the prefix that a range is, as near as it comes to one.
fn keys(range: &KeyRange) -> String {
    match &range.end {
        None => range.start.to_string(),
        Some(_) if *range == KeyRange::prefix(range.start.clone()) => format!("{}*", range.start),
        Some(end) => format!("{} to {end}", range.start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_their_verbs_and_keys() {
        assert_eq!(of_range(&KeyRange::prefix("/e/nodes/")), "read /e/nodes/*");
        assert_eq!(of_watch(&KeyRange::between("/a", "/c")), "watch /a to /c");
        let inner = Txn { compares: vec![Compare::Empty(KeyRange::one("/d"))], then: vec![Op::delete("/c")], ..Txn::default() };
        let txn = Txn { then: vec![Op::put("/a", "x"), Op::put("/b", "x"), Op::Txn(inner)], ..Txn::default() };
        assert_eq!(of_txn(&txn), "write /a, /b, /c, or not read /d");
        let many = Txn { then: (0..5).map(|n| Op::put(format!("/{n}"), "x")).collect(), ..Txn::default() };
        assert_eq!(of_txn(&many), "write /0, /1, /2 and 2 more");
        assert_eq!(of_txn(&Txn { then: vec![Op::get("/a")], ..Txn::default() }), "read /a");
    }
}
