//! Random scripts, driven against the model and both etcds in step: every answer and every event must be the same. What the
//! simulation finds on the model is then true of etcd too.
//!
//! All three begin empty, so revisions are equal as they are; ids of clusters and leases are not and are replaced.

use bytes::Bytes;
use enlist::model::names::Revision;
use enlist::store::api::{
    Compare, Event, Header, Key, KeyRange, KeyValue, LeaseId, Op, OpResult, RangeRequest, RangeResponse, StoreError, Txn,
    TxnResponse, Watch, WatchMessage,
};
use fastrand::Rng;
use futures::FutureExt;

use super::subject::{Subject, response, show};
use crate::support::etcd::{Etcd, EtcdVersion};

const STEPS: usize = 500;
const SEEDS: std::ops::Range<u64> = 1..4;
/// Some are prefixes of others, as an address is of its ports.
const KEYS: [&str; 7] = ["d/a", "d/a/1", "d/a/2", "d/b", "d/b0", "d/c/x", "d/d"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_and_both_etcds_answer_alike() {
    let mut outcomes = Outcomes::default();
    for seed in SEEDS {
        let mut sides = vec![Side::new(Subject::memory())];
        for version in EtcdVersion::ALL {
            sides.push(Side::new(Subject::etcd(Etcd::start(version)).await));
        }
        run(seed, &mut sides, &mut outcomes).await;
    }
    outcomes.check();
}

async fn run(seed: u64, sides: &mut [Side], outcomes: &mut Outcomes) {
    let mut script = Script { random: Rng::with_seed(seed), revision: 1, compacted: 0, leases: 0 };
    let mut live = Vec::new();
    for side in sides.iter() {
        live.push(Follower { watch: side.subject.watch("d/", Revision(1)).await.0, events: Vec::new() });
    }
    for number in 0..STEPS {
        let step = script.step();
        let mut answers = Vec::new();
        for side in sides.iter_mut() {
            answers.push(side.run(&step).await);
        }
        for (side, answer) in sides.iter().zip(&answers) {
            let name = side.subject.name();
            assert_eq!(answer, &answers[0], "seed {seed}, step {number} on {name} differs from memory: {step:#?}");
        }
        // A watch of the model that is not read falls behind, and is cancelled by the next compaction.
        live.iter_mut().for_each(Follower::take_what_is_there);
        outcomes.count(&answers[0]);
        script.learn(&step, &answers[0]);
    }
    for side in sides.iter() {
        side.subject.put("d/end", "").await;
    }
    // Live, from the first revision on; and read up afterwards, from the oldest that is left.
    let live = until_end(live).await;
    let mut late = Vec::new();
    for side in sides.iter() {
        let watch = side.subject.watch("d/", Revision(script.compacted.max(1)).next()).await.0;
        late.push(Follower { watch, events: Vec::new() });
    }
    let late = until_end(late).await;
    assert!(live[0].len() > 100 && !late[0].is_empty());
    for (side, (live_events, late_events)) in sides.iter().zip(live.iter().zip(&late)) {
        let name = side.subject.name();
        assert_eq!(show_all(live_events), show_all(&live[0]), "seed {seed}: events on {name} differ from memory");
        assert_eq!(show_all(late_events), show_all(&late[0]), "seed {seed}: past events on {name} differ from memory");
        assert!(live_events.ends_with(late_events), "seed {seed}: {name} tells the past otherwise than it happened");
    }
}

/// A watch, and what it told so far.
struct Follower {
    watch: Box<dyn Watch>,
    events: Vec<Event>,
}

impl Follower {
    fn take_what_is_there(&mut self) {
        while let Some(message) = self.watch.next().now_or_never() {
            match message {
                Some(Ok(WatchMessage::Events { events, .. })) => self.events.extend(events),
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn until_end(followers: Vec<Follower>) -> Vec<Vec<Event>> {
    let mut all = Vec::new();
    for Follower { mut watch, mut events } in followers {
        while events.last().is_none_or(|event| event.key().as_str() != Some("d/end")) {
            events.extend(response(&mut watch).await.1);
        }
        all.push(events);
    }
    all
}

/// Events with their revisions and versions.
fn show_all(events: &[Event]) -> Vec<String> {
    let revisions = events.iter().map(|event| match event {
        Event::Put(kv) => format!("@{} created {} version {}", kv.mod_revision, kv.create_revision, kv.version),
        Event::Delete { mod_revision, .. } => format!("@{mod_revision}"),
    });
    show(events).into_iter().zip(revisions).map(|(event, revision)| event + &revision).collect()
}

/// One thing to do. Leases are numbers: the first one granted is 1; 0 is none; the highest was never granted.
#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Range(RangeRequest),
    Grant(u64),
    Revoke(LeaseId),
    TimeToLive(LeaseId),
    Beat(LeaseId),
    Compact(Revision),
}

/// What came of it, without what differs between stores.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Txn(TxnResponse),
    Range(RangeResponse),
    Number(i64),
    Done,
    Error(String),
}

/// One of the stores, with the ids of its leases in the order of their grants.
struct Side {
    subject: Subject,
    leases: Vec<LeaseId>,
}

impl Side {
    fn new(subject: Subject) -> Self {
        Side { subject, leases: vec![LeaseId::NONE] }
    }

    async fn run(&mut self, step: &Step) -> Answer {
        let store = &self.subject.store;
        let answer = match step {
            Step::Txn(txn) => store.txn(self.real_txn(txn)).await.map(|answer| Answer::Txn(self.plain_txn(answer))),
            Step::Range(request) => store.range(request.clone()).await.map(|answer| Answer::Range(self.plain_range(answer))),
            Step::Grant(ttl) => store.grant(*ttl).await.map(|(lease, ttl)| {
                self.leases.push(lease);
                Answer::Number(i64::try_from(ttl).unwrap())
            }),
            Step::Revoke(lease) => store.revoke(self.real(*lease)).await.map(|()| Answer::Done),
            Step::TimeToLive(lease) => store.time_to_live(self.real(*lease)).await.map(|(_, granted)| Answer::Number(granted)),
            Step::Beat(lease) => store.keep_alive(self.real(*lease)).await.unwrap().beat().await.map(Answer::Number),
            Step::Compact(revision) => {
                self.subject.compact(*revision);
                Ok(Answer::Done)
            }
        };
        answer.unwrap_or_else(|error| match error {
            StoreError::Other(text) => Answer::Error(text),
            other => Answer::Error(format!("{other:?}")),
        })
    }

    fn real(&self, lease: LeaseId) -> LeaseId {
        self.leases.get(usize::try_from(lease.0).unwrap()).copied().unwrap_or(LeaseId(0x0bad_cafe))
    }

    fn plain(&self, lease: LeaseId) -> LeaseId {
        LeaseId(i64::try_from(self.leases.iter().position(|real| *real == lease).unwrap()).unwrap())
    }

    fn real_txn(&self, txn: &Txn) -> Txn {
        let op = |op: &Op| match op {
            Op::Put { key, value, lease } => Op::Put { key: key.clone(), value: value.clone(), lease: self.real(*lease) },
            Op::Txn(inner) => Op::Txn(self.real_txn(inner)),
            other => other.clone(),
        };
        Txn {
            compares: txn.compares.clone(),
            then: txn.then.iter().map(op).collect(),
            otherwise: txn.otherwise.iter().map(op).collect(),
        }
    }

    fn plain_txn(&self, answer: TxnResponse) -> TxnResponse {
        let result = |result| match result {
            OpResult::Range(range) => OpResult::Range(self.plain_range(range)),
            OpResult::Txn(inner) => OpResult::Txn(self.plain_txn(inner)),
            other => other,
        };
        TxnResponse { header: plain_header(answer.header), results: answer.results.into_iter().map(result).collect(), ..answer }
    }

    fn plain_range(&self, answer: RangeResponse) -> RangeResponse {
        let kvs = answer.kvs.into_iter().map(|kv| KeyValue { lease: self.plain(kv.lease), ..kv }).collect();
        RangeResponse { header: plain_header(answer.header), kvs, ..answer }
    }
}

fn plain_header(header: Header) -> Header {
    Header { revision: header.revision, ..Header::default() }
}

/// Makes steps up.
struct Script {
    random: Rng,
    /// Of the stores, as far as answers tell.
    revision: i64,
    compacted: i64,
    /// How many were granted.
    leases: i64,
}

impl Script {
    fn step(&mut self) -> Step {
        match self.random.u32(..100) {
            0..70 => Step::Txn(self.txn(0)),
            70..82 => Step::Range(self.range_request()),
            82..88 => Step::Grant(self.random.u64(100..200)),
            88..91 => Step::Revoke(self.some_lease()),
            91..94 => Step::TimeToLive(self.some_lease()),
            94..97 => Step::Beat(self.some_lease()),
            _ if self.compacted + 20 < self.revision => Step::Compact(Revision(self.revision - self.random.i64(5..15))),
            _ => Step::Grant(100),
        }
    }

    fn learn(&mut self, step: &Step, answer: &Answer) {
        match (step, answer) {
            (_, Answer::Txn(answer)) => self.revision = answer.header.revision.0,
            (_, Answer::Range(answer)) => self.revision = answer.header.revision.0,
            (Step::Grant(_), Answer::Number(_)) => self.leases += 1,
            (Step::Compact(revision), _) => self.compacted = revision.0,
            _ => {}
        }
    }

    fn txn(&mut self, depth: usize) -> Txn {
        Txn {
            compares: (0..self.random.usize(..3)).map(|_| self.compare()).collect(),
            then: (0..self.random.usize(..4)).map(|_| self.op(depth)).collect(),
            otherwise: (0..self.random.usize(..3)).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: usize) -> Op {
        match self.random.u32(..10) {
            0..4 => {
                let lease = if self.random.u32(..3) == 0 { self.some_lease() } else { LeaseId::NONE };
                Op::Put { key: self.key(), value: self.value(), lease }
            }
            4 => Op::Delete(self.range()),
            5 | 6 => Op::Get(self.range_request()),
            _ if depth < 2 => Op::Txn(self.txn(depth + 1)),
            _ => Op::Delete(KeyRange::one(self.key())),
        }
    }

    /// Few, so that compares find them; the empty one too.
    fn value(&mut self) -> Bytes {
        let n = self.random.u32(..8);
        Bytes::from(if n == 0 { String::new() } else { n.to_string() })
    }

    fn compare(&mut self) -> Compare {
        match self.random.u32(..7) {
            0 | 1 => Compare::Modified(self.key(), Revision::NONE),
            2 => Compare::Modified(self.key(), Revision((self.revision - self.random.i64(0..4)).max(0))),
            3 => Compare::Created(self.key(), Revision::NONE),
            4 => Compare::Created(self.key(), Revision((self.revision - self.random.i64(0..4)).max(0))),
            5 => Compare::Value(self.key(), self.value()),
            _ => Compare::Empty(self.range()),
        }
    }

    fn range_request(&mut self) -> RangeRequest {
        let revision = match self.random.u32(..6) {
            0 => Some(self.revision - self.random.i64(0..10)),
            1 => Some(self.compacted),
            2 if self.random.u32(..4) == 0 => Some(self.revision + 1),
            3 if self.random.u32(..8) == 0 => Some(self.compacted - 1),
            _ => None,
        };
        RangeRequest {
            range: self.range(),
            revision: revision.filter(|revision| *revision > 0).map(Revision),
            limit: if self.random.bool() { 0 } else { self.random.i64(1..4) },
            keys_only: self.random.u32(..5) == 0,
            count_only: self.random.u32(..5) == 0,
        }
    }

    fn range(&mut self) -> KeyRange {
        match self.random.u32(..4) {
            0 => KeyRange::one(self.key()),
            1 => KeyRange::prefix(self.key()),
            2 => KeyRange::prefix(format!("{}/", self.key())),
            _ => KeyRange::between(self.key(), self.key()),
        }
    }

    fn key(&mut self) -> Key {
        Key::from(KEYS[self.random.usize(..KEYS.len())])
    }

    /// 1 to the number granted, seldom one that was never granted.
    fn some_lease(&mut self) -> LeaseId {
        match self.random.u32(..20) {
            0 => LeaseId(self.leases + 1),
            _ if self.leases == 0 => LeaseId::NONE,
            _ => LeaseId(self.random.i64((self.leases - 3).max(1)..=self.leases)),
        }
    }
}

/// Whether the scripts reach what they are for.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: u32,
    failed: u32,
    no_lease: u32,
    duplicate: u32,
    compacted: u32,
    future: u32,
}

impl Outcomes {
    fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Txn(answer) if answer.succeeded => self.succeeded += 1,
            Answer::Txn(_) => self.failed += 1,
            Answer::Error(text) if text.contains("NoLease") => self.no_lease += 1,
            Answer::Error(text) if text.contains("duplicate") => self.duplicate += 1,
            Answer::Error(text) if text.contains("Compacted") => self.compacted += 1,
            Answer::Error(text) if text.contains("Future") => self.future += 1,
            _ => {}
        }
    }

    fn check(&self) {
        let all = [self.succeeded, self.failed, self.no_lease, self.duplicate, self.compacted, self.future];
        assert!(all.iter().all(|count| *count > 0), "the script does not reach everything: {self:?}");
    }
}
