//! Which nodes have a live status, and which are registered, as one watch over `nodes/` tells.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, timeout};

use super::progress::Bar;
use crate::model::names::NodeId;
use crate::model::status::{Phase, Status};
use crate::reconcile::Site;
use crate::store::api::{Event, Key, KeyValue};
use crate::store::feed::{Feed, FeedSettings, Scope, Update};
use crate::store::keys::{NodePart, ParsedKey, Prefix};
use crate::store::wire::Stored;

/// Longer than this without any change is a fault, not a figure. Leases of ten minutes may run out meanwhile.
const STUCK: Duration = Duration::from_secs(700);

/// Who lives.
pub struct Living {
    feed: Feed,
    prefix: Prefix,
    live: HashSet<NodeId>,
    registered: HashSet<NodeId>,
}

impl Living {
    /// Follows a site's nodes.
    pub fn open(site: &Site) -> Living {
        let scope = Scope::one(site.prefix.folder("nodes"));
        let feed = Feed::open(site.store.clone(), scope, FeedSettings::default(), fastrand::Rng::with_seed(9));
        Living { feed, prefix: site.prefix.clone(), live: HashSet::new(), registered: HashSet::new() }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Reset { kvs, .. } => {
                self.live.clear();
                self.registered.clear();
                kvs.iter().for_each(|kv| self.put(kv));
            }
            Update::Events { events, .. } => {
                for event in events {
                    match event {
                        Event::Put(kv) => self.put(&kv),
                        Event::Delete { key, .. } => self.end(&key),
                    }
                }
            }
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        let ParsedKey::Node(node, NodePart::Status) = self.prefix.parse(&kv.key) else { return };
        if Status::decode(&kv.value).is_ok_and(|status| status.phase == Phase::Registered) {
            self.registered.insert(node.clone());
        } else {
            self.registered.remove(&node);
        }
        self.live.insert(node);
    }

    fn end(&mut self, key: &Key) {
        if let ParsedKey::Node(node, NodePart::Status) = self.prefix.parse(key) {
            self.live.remove(&node);
            self.registered.remove(&node);
        }
    }

    /// Waits until so many are registered. Answers how many looks that took; the first is at everything.
    ///
    /// # Errors
    /// When nothing moves any more.
    pub async fn registered(&mut self, nodes: usize, what: &str) -> anyhow::Result<usize> {
        self.until(nodes, what, |living| living.registered.len()).await
    }

    /// Waits until none of so many lives.
    ///
    /// # Errors
    /// When nothing moves any more.
    pub async fn gone(&mut self, nodes: usize, what: &str) -> anyhow::Result<()> {
        self.until(nodes, what, |living| nodes.saturating_sub(living.live.len())).await.map(drop)
    }

    async fn until(&mut self, nodes: usize, what: &str, count: impl Fn(&Living) -> usize) -> anyhow::Result<usize> {
        let (bar, mut looks) = (Bar::new(what, nodes), 0);
        let (mut last, mut moved) = (count(self), Instant::now());
        while last < nodes {
            // The feed tells new revisions without events too, so it is not its silence that counts.
            if let Ok(update) = timeout(STUCK, self.feed.next()).await {
                self.apply(update);
                looks += 1;
            }
            let now = count(self);
            if now != last {
                (last, moved) = (now, Instant::now());
                bar.set(now);
            }
            if moved.elapsed() > STUCK {
                bail!("nothing moved for {STUCK:?} ({what}: {now} of {nodes})");
            }
        }
        Ok(looks)
    }

    /// Waits until nothing below `nodes/` changes for so long.
    ///
    /// # Errors
    /// When it never is quiet.
    pub async fn quiet(&mut self, time: Duration) -> anyhow::Result<()> {
        let (began, mut changed) = (Instant::now(), Instant::now());
        while changed.elapsed() < time {
            if let Ok(update) = timeout(time, self.feed.next()).await {
                if !matches!(&update, Update::Events { events, .. } if events.is_empty()) {
                    changed = Instant::now();
                }
                self.apply(update);
            }
            if began.elapsed() > STUCK {
                bail!("the nodes' keys do not come to rest within {STUCK:?}");
            }
        }
        Ok(())
    }
}
