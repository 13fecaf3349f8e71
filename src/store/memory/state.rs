//! The complete state of the model and the effect of a request on it: transactions, leases. Pure; the time is an
//! argument, counted from the start of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check;
use super::mvcc::Mvcc;
use super::{MemoryOptions, watch::Watchers};
use crate::model::names::Revision;
use crate::store::api::{
    Event, Header, Key, KeyRange, LeaseId, Op, OpResult, RangeRequest, RangeResponse, StoreError, Txn, TxnResponse,
};

/// One lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    ttl_s: u64,
    ends: Duration,
    keys: BTreeSet<Key>,
}

/// The complete state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: MemoryOptions,
    pub(super) mvcc: Mvcc,
    pub(super) leases: BTreeMap<i64, Lease>,
    pub(super) watchers: Watchers,
    pub(super) cluster_id: u64,
    /// Out of space: no request may add data.
    pub(super) full: bool,
    /// The cluster has no leader, so no lease ends.
    pub(super) leaderless: bool,
    /// The number of transactions rejected for their form.
    pub(super) refused: u64,
    next_lease: i64,
}

impl State {
    pub(super) fn new(options: MemoryOptions) -> Self {
        State {
            options,
            mvcc: Mvcc::new(),
            leases: BTreeMap::new(),
            watchers: Watchers::default(),
            cluster_id: 0x00c1,
            full: false,
            leaderless: false,
            refused: 0,
            next_lease: 0x1ea5_e000_0001,
        }
    }

    pub(super) fn header(&self) -> Header {
        Header { cluster_id: self.cluster_id, member_id: 1, revision: Revision(self.mvcc.revision) }
    }

    /// Ends the expired leases, in the order of their ends; all keys of one lease go in one revision.
    pub(super) fn tick(&mut self, now: Duration) {
        while !self.leaderless {
            let due = self.leases.iter().filter(|(_, lease)| lease.ends <= now).min_by_key(|(id, lease)| (lease.ends, **id));
            let Some(id) = due.map(|(id, _)| *id) else { return };
            self.end_lease(id);
        }
    }

    /// The time at which the next lease ends.
    pub(super) fn next_end(&self) -> Option<Duration> {
        if self.leaderless {
            return None;
        }
        self.leases.values().map(|lease| lease.ends).min()
    }

    fn end_lease(&mut self, id: i64) {
        let Some(lease) = self.leases.remove(&id) else { return };
        let events = lease.keys.into_iter().flat_map(|key| self.mvcc.delete(&KeyRange::one(key))).collect();
        self.commit(events);
    }

    fn commit(&mut self, events: Vec<Event>) {
        self.watchers.wake_matching(&events);
        self.mvcc.commit(events);
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        if request.range.start.as_bytes().is_empty() {
            return Err(check::empty_key());
        }
        self.mvcc.check_readable(request.revision)?;
        Ok(RangeResponse { header: self.header(), ..self.mvcc.range(request) })
    }

    pub(super) fn grant(&mut self, ttl_s: u64, now: Duration) -> Result<(LeaseId, u64), StoreError> {
        if self.full {
            return Err(StoreError::NoSpace);
        }
        let id = self.next_lease;
        self.next_lease += 1;
        let ttl_s = ttl_s.max(self.options.lease_ttl_min_s);
        let lease = Lease { ttl_s, ends: now + Duration::from_secs(ttl_s), keys: BTreeSet::new() };
        let sooner = self.next_end().is_none_or(|end| lease.ends < end);
        self.leases.insert(id, lease);
        if sooner {
            // Tasks that sleep until the next end must check it again.
            self.watchers.wake_all();
        }
        Ok((LeaseId(id), ttl_s))
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.leases.contains_key(&lease.0) {
            return Err(StoreError::NoLease);
        }
        self.end_lease(lease.0);
        Ok(())
    }

    /// Remaining and granted seconds; −1 and 0 if the lease does not exist.
    pub(super) fn time_to_live(&self, lease: LeaseId, now: Duration) -> (i64, i64) {
        self.leases.get(&lease.0).map_or((-1, 0), |lease| {
            let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
            (whole(lease.ends.saturating_sub(now).as_secs()), whole(lease.ttl_s))
        })
    }

    /// The TTL in seconds, 0 if the lease is gone.
    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Duration) -> i64 {
        self.leases.get_mut(&lease.0).map_or(0, |lease| {
            lease.ends = now + Duration::from_secs(lease.ttl_s);
            i64::try_from(lease.ttl_s).unwrap_or(i64::MAX)
        })
    }

    /// Gives every lease its full time again, as an election does.
    pub(super) fn refresh_leases(&mut self, now: Duration) {
        for lease in self.leases.values_mut() {
            lease.ends = now + Duration::from_secs(lease.ttl_s);
        }
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, StoreError> {
        let allowed = check::check(txn, self.options.max_txn_ops, self.options.request_bytes_max);
        self.refused += u64::from(allowed.is_err());
        allowed?;
        if self.full && check::puts(txn) {
            return Err(StoreError::NoSpace);
        }
        // All compares, nested ones too, see the state before the request. The later checks look only at the branches
        // taken.
        let mut path = Vec::new();
        self.choose(txn, &mut path);
        // An unknown lease or an unreadable revision in a branch taken fails the whole request before any write; etcd
        // checks the leases first.
        Self::check_branch(txn, &mut path.iter().copied(), &|op| match op {
            Op::Put { lease, .. } if *lease != LeaseId::NONE && !self.leases.contains_key(&lease.0) => Err(StoreError::NoLease),
            _ => Ok(()),
        })?;
        Self::check_branch(txn, &mut path.iter().copied(), &|op| match op {
            Op::Get(request) => self.mvcc.check_readable(request.revision),
            _ => Ok(()),
        })?;
        let mut events = Vec::new();
        let mut response = self.apply(txn, &mut path.iter().copied(), &mut events);
        self.commit(events);
        response.header = self.header();
        Ok(response)
    }

    fn choose(&self, txn: &Txn, path: &mut Vec<bool>) {
        let succeeded = txn.compares.iter().all(|compare| self.mvcc.holds(compare));
        path.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Op::Txn(inner) = op {
                self.choose(inner, path);
            }
        }
    }

    /// Checks each operation of the branches taken.
    fn check_branch(
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        check: &impl Fn(&Op) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let succeeded = path.next().unwrap_or_default();
        branch(txn, succeeded).iter().try_for_each(|op| match op {
            Op::Txn(inner) => Self::check_branch(inner, path, check),
            other => check(other),
        })
    }

    fn apply(&mut self, txn: &Txn, path: &mut impl Iterator<Item = bool>, events: &mut Vec<Event>) -> TxnResponse {
        let succeeded = path.next().unwrap_or_default();
        let mut results = Vec::new();
        for op in branch(txn, succeeded) {
            results.push(match op {
                Op::Put { key, value, lease } => {
                    self.attach(key, *lease);
                    events.push(self.mvcc.put(key, value, *lease));
                    OpResult::Put
                }
                Op::Delete(range) => OpResult::Deleted(self.delete(range, events)),
                Op::Get(request) => {
                    // A read sees the earlier writes of the same request, and its revision shows that.
                    let revision = Revision(self.mvcc.revision + i64::from(!events.is_empty()));
                    let header = Header { revision, ..Header::default() };
                    OpResult::Range(RangeResponse { header, ..self.mvcc.range(request) })
                }
                Op::Txn(inner) => OpResult::Txn(self.apply(inner, path, events)),
            });
        }
        TxnResponse { header: Header::default(), succeeded, results }
    }

    fn delete(&mut self, range: &KeyRange, events: &mut Vec<Event>) -> i64 {
        // The leases of the keys are known only before the delete.
        let doomed = self.mvcc.range(&RangeRequest { keys_only: true, ..RangeRequest::all(range.clone()) });
        for kv in &doomed.kvs {
            self.detach(&kv.key, kv.lease);
        }
        events.extend(self.mvcc.delete(range));
        doomed.count
    }

    fn attach(&mut self, key: &Key, lease: LeaseId) {
        self.detach(key, self.mvcc.lease_of(key));
        if let Some(lease) = self.leases.get_mut(&lease.0) {
            lease.keys.insert(key.clone());
        }
    }

    fn detach(&mut self, key: &Key, lease: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&lease.0) {
            lease.keys.remove(key);
        }
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.then } else { &txn.otherwise }
}
