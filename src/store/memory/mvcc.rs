//! Keys, values and revisions of the model: every version of every key, and the events of every revision. Pure and
//! deterministic. A compaction deletes nothing; it only bounds the reads of clients, so that checkers can look at every
//! revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::model::names::Revision;
use crate::store::api::{Compare, Event, Header, Key, KeyRange, KeyValue, LeaseId, RangeRequest, RangeResponse, StoreError};

/// The multi-version store.
#[derive(Debug, Clone)]
pub(super) struct Mvcc {
    /// The revision of the last write. An empty etcd is at 1.
    pub(super) revision: i64,
    /// Clients cannot read older revisions.
    pub(super) compacted: i64,
    current: BTreeMap<Key, KeyValue>,
    /// Each key's versions, oldest first; `None` = deleted.
    versions: BTreeMap<Key, Vec<(i64, Option<KeyValue>)>>,
    log: BTreeMap<i64, Vec<Event>>,
}

impl Mvcc {
    pub(super) fn new() -> Self {
        Mvcc { revision: 1, compacted: 0, current: BTreeMap::new(), versions: BTreeMap::new(), log: BTreeMap::new() }
    }

    /// All events, by revision.
    pub(super) fn log(&self) -> &BTreeMap<i64, Vec<Event>> {
        &self.log
    }

    /// The state at a revision.
    pub(super) fn at(&self, revision: i64) -> BTreeMap<Key, KeyValue> {
        if revision >= self.revision {
            return self.current.clone();
        }
        let version = |(key, versions): (&Key, &Vec<_>)| Some((key.clone(), version_at(versions, revision)?.clone()));
        self.versions.iter().filter_map(version).collect()
    }

    /// Whether a range may be read as of this revision.
    pub(super) fn check_readable(&self, revision: Option<Revision>) -> Result<(), StoreError> {
        match revision {
            Some(Revision(revision)) if revision > self.revision => Err(StoreError::Future),
            // etcd's error does not name the oldest revision, so the model's does not either.
            Some(Revision(revision)) if revision > 0 && revision < self.compacted => Err(StoreError::Compacted(Revision::NONE)),
            _ => Ok(()),
        }
    }

    /// Reads a range; the caller sets the revision of the header and has called `check_readable`.
    pub(super) fn range(&self, request: &RangeRequest) -> RangeResponse {
        let past = request.revision.filter(|revision| revision.0 > 0);
        let found: Vec<&KeyValue> = match past {
            None => select(&self.current, &request.range).map(|(_, kv)| kv).collect(),
            Some(Revision(revision)) => {
                select(&self.versions, &request.range).filter_map(|(_, versions)| version_at(versions, revision)).collect()
            }
        };
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let kvs = match request.count_only {
            true => Vec::new(),
            false => found.iter().take(limit).map(|kv| without_value_if(request.keys_only, kv)).collect(),
        };
        let more = !request.count_only && found.len() > limit;
        RangeResponse { header: Header::default(), kvs, more, count }
    }

    /// Whether a condition holds now.
    pub(super) fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Modified(key, revision) => self.current.get(key).map_or(Revision::NONE, |kv| kv.mod_revision) == *revision,
            Compare::Created(key, revision) => self.current.get(key).map_or(Revision::NONE, |kv| kv.create_revision) == *revision,
            Compare::Value(key, value) => self.current.get(key).is_some_and(|kv| kv.value == *value),
            Compare::Empty(range) => select(&self.current, range).next().is_none(),
        }
    }

    /// The lease of a key; none if it is absent.
    pub(super) fn lease_of(&self, key: &Key) -> LeaseId {
        self.current.get(key).map_or(LeaseId::NONE, |kv| kv.lease)
    }

    /// Writes a key at the revision after the present one; the event is for [`commit`](Self::commit).
    pub(super) fn put(&mut self, key: &Key, value: &Bytes, lease: LeaseId) -> Event {
        let revision = Revision(self.revision + 1);
        let old = self.current.get(key);
        let kv = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            lease,
        };
        self.current.insert(key.clone(), kv.clone());
        self.versions.entry(key.clone()).or_default().push((revision.0, Some(kv.clone())));
        Event::Put(kv)
    }

    /// Deletes the keys of a range, in key order, at the revision after the present one.
    pub(super) fn delete(&mut self, range: &KeyRange) -> Vec<Event> {
        let revision = Revision(self.revision + 1);
        let keys: Vec<Key> = select(&self.current, range).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.current.remove(key);
            self.versions.entry(key.clone()).or_default().push((revision.0, None));
        }
        keys.into_iter().map(|key| Event::Delete { key, mod_revision: revision }).collect()
    }

    /// Makes the writes since the last commit one revision. Without writes there is no new revision, as in etcd.
    pub(super) fn commit(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.log.insert(self.revision, events);
        }
    }
}

fn version_at(versions: &[(i64, Option<KeyValue>)], revision: i64) -> Option<&KeyValue> {
    let after = versions.partition_point(|(written, _)| *written <= revision);
    versions.get(after.checked_sub(1)?)?.1.as_ref()
}

fn without_value_if(keys_only: bool, kv: &KeyValue) -> KeyValue {
    let value = if keys_only { Bytes::new() } else { kv.value.clone() };
    KeyValue { value, ..kv.clone() }
}

/// The entries of a map in a range of keys.
fn select<'a, V>(map: &'a BTreeMap<Key, V>, range: &'a KeyRange) -> impl Iterator<Item = (&'a Key, &'a V)> {
    map.range(range.start.clone()..).take_while(|(key, _)| match &range.end {
        None => **key == range.start,
        Some(_) => range.contains(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_revision_stays_readable_for_checkers() {
        let mut mvcc = Mvcc::new();
        let put = mvcc.put(&"a".into(), &Bytes::from_static(b"1"), LeaseId::NONE);
        mvcc.commit(vec![put]);
        let gone = mvcc.delete(&KeyRange::one("a"));
        mvcc.commit(gone);
        mvcc.commit(Vec::new());
        mvcc.compacted = 3;
        assert_eq!(mvcc.revision, 3);
        assert_eq!(mvcc.at(1).len(), 0);
        assert_eq!(mvcc.at(2).len(), 1);
        assert_eq!(mvcc.at(3).len(), 0);
        assert_eq!(mvcc.check_readable(Some(Revision(2))), Err(StoreError::Compacted(Revision::NONE)));
        assert_eq!(mvcc.check_readable(Some(Revision(3))), Ok(()));
        assert_eq!(mvcc.check_readable(Some(Revision(4))), Err(StoreError::Future));
    }
}
