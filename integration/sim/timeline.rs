//! The whole past of a store, over the times that it was emptied or restored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::model::names::Revision;
use enlist::store::api::{Event, Key, KeyValue};
use enlist::store::memory::{MemoryEtcd, Snapshot};

use crate::history::steps::Times;

/// All events of a store from its first revision until it was replaced. After a restore the first ones are the backup's.
pub(crate) type Era = BTreeMap<Revision, Vec<Event>>;

/// How often it is looked which revision a store is at.
const SAMPLE: Duration = Duration::from_millis(20);

/// What `--bump-revision` is given: more than any run writes.
const RAISED_BY: i64 = 1_000_000;

/// A store with a past.
pub(crate) struct Timeline {
    etcd: MemoryEtcd,
    times: Arc<Mutex<Vec<Times>>>,
    past: Vec<Era>,
    backup: Option<(Revision, Snapshot)>,
}

impl Timeline {
    pub(crate) fn new(etcd: MemoryEtcd) -> Self {
        let times = Arc::new(Mutex::new(vec![Times::default()]));
        let (sampled, samples) = (etcd.clone(), times.clone());
        tokio::spawn(async move {
            loop {
                samples.lock().unwrap().last_mut().unwrap().saw(sampled.revision());
                tokio::time::sleep(SAMPLE).await;
            }
        });
        Timeline { etcd, times, past: Vec::new(), backup: None }
    }

    /// When the revisions of an era were written, to [`SAMPLE`].
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
        self.backup = Some((self.etcd.revision(), self.etcd.snapshot()));
    }

    /// Puts the last backup in, perhaps with raised revisions. Answers whether there was one that is older than what is there.
    pub(crate) fn restore(&mut self, raised: bool) -> bool {
        let Some((at, backup)) = self.backup.clone() else { return false };
        let (era, before) = (self.etcd.history(), self.etcd.revision());
        match raised {
            true => self.etcd.restore_raised(backup, RAISED_BY),
            false => self.etcd.restore(backup),
        }
        self.ended(era);
        at < before
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

/// Shows a whole past, for whoever looks for what went wrong.
pub(crate) fn tell(eras: &[Era]) {
    for (number, era) in eras.iter().enumerate() {
        for (revision, events) in era {
            for event in events {
                let value = match event {
                    Event::Put(kv) => String::from_utf8_lossy(&kv.value).into_owned(),
                    Event::Delete { .. } => "deleted".to_owned(),
                };
                eprintln!("{number} {revision:?} {} {value}", event.key());
            }
        }
    }
}
