//! The whole past of a store, over the times that it was emptied or restored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyValue};
use enlist::store::memory::{MemoryEtcd, Snapshot};
use tokio::time::Instant;

/// All events of a store from its first revision until it was replaced. After a restore the first ones are the backup's.
pub(crate) type Era = BTreeMap<Revision, Vec<Event>>;

/// How often it is looked which revision a store is at.
const SAMPLE: Duration = Duration::from_millis(20);

/// When the revisions of one era were written, to [`SAMPLE`].
#[derive(Clone, Default)]
pub(crate) struct Times(Vec<(Instant, Revision)>);

impl Times {
    /// The longest that it can have been from one revision to a later one.
    pub(crate) fn at_most(&self, from: Revision, to: Revision) -> Option<Duration> {
        let before = self.0.partition_point(|(_, seen)| *seen < from).checked_sub(1)?;
        let after = self.0.partition_point(|(_, seen)| *seen < to);
        Some(self.0.get(after)?.0 - self.0[before].0)
    }
}

/// A store with a past.
pub(crate) struct Timeline {
    etcd: MemoryEtcd,
    times: Arc<Mutex<Vec<Times>>>,
    past: Vec<Era>,
    backup: Option<Snapshot>,
}

impl Timeline {
    pub(crate) fn new(etcd: MemoryEtcd) -> Self {
        let times = Arc::new(Mutex::new(vec![Times::default()]));
        let (sampled, samples) = (etcd.clone(), times.clone());
        tokio::spawn(async move {
            loop {
                let now = (Instant::now(), sampled.revision());
                samples.lock().unwrap().last_mut().unwrap().0.push(now);
                tokio::time::sleep(SAMPLE).await;
            }
        });
        Timeline { etcd, times, past: Vec::new(), backup: None }
    }

    /// When the revisions of an era were written.
    pub(crate) fn times(&self, era: usize) -> Times {
        self.times.lock().unwrap()[era].clone()
    }

    fn ended(&mut self, era: Era) {
        self.past.push(era);
        self.times.lock().unwrap().push(Times::default());
    }

    pub(crate) fn etcd(&self) -> &MemoryEtcd {
        &self.etcd
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.etcd.snapshot());
    }

    /// Puts the last backup in. Answers whether there was one that is older than what is there.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        let (era, before) = (self.etcd.history(), self.etcd.revision());
        self.etcd.restore(backup);
        self.ended(era);
        self.etcd.revision() < before
    }

    pub(crate) fn empty(&mut self) {
        self.ended(self.etcd.history());
        self.etcd.empty();
    }

    /// Oldest first; the last one is the present.
    pub(crate) fn eras(&self) -> Vec<Era> {
        let mut eras = self.past.clone();
        eras.push(self.etcd.history());
        eras
    }
}

/// Takes an event in.
pub(crate) fn apply(state: &mut BTreeMap<Key, KeyValue>, event: &Event) {
    match event {
        Event::Put(kv) => drop(state.insert(kv.key.clone(), kv.clone())),
        Event::Delete { key, .. } => drop(state.remove(key)),
    }
}
