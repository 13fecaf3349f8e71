//! What stands below `nodes/`, and what of it was written meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::Instant;

use crate::model::names::Revision;
use crate::reconcile::Site;
use crate::store::api::Key;
use crate::store::keys::{NodePart, ParsedKey, Role};
use crate::store::wire::{RoleReport, Stored};

/// How often something is looked for that no event is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Every key below `nodes/` and when it was last written.
pub struct Stand(BTreeMap<Key, Revision>);

/// How many keys of each kind were written, made or deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Labels.
    pub labels: usize,
    /// Statuses.
    pub statuses: usize,
    /// Assignments.
    pub assignments: usize,
    /// Holds and their clocks.
    pub holds: usize,
}

impl Stand {
    /// As it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn read(site: &Site) -> anyhow::Result<Stand> {
        let all = site.store.read_all(site.prefix.folder("nodes"), None).await.context("failed to read the nodes")?;
        Ok(Stand(all.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect()))
    }

    /// What differs in a later one.
    pub fn differences(&self, later: &Stand, site: &Site) -> Differences {
        let changed = self.0.iter().filter(|(key, revision)| later.0.get(key) != Some(*revision)).map(|(key, _)| key);
        let made = later.0.keys().filter(|key| !self.0.contains_key(key));
        let mut differences = Differences::default();
        for key in changed.chain(made) {
            match site.prefix.parse(key) {
                ParsedKey::Node(_, NodePart::Label) => differences.labels += 1,
                ParsedKey::Node(_, NodePart::Status) => differences.statuses += 1,
                ParsedKey::Node(_, NodePart::Assignment) => differences.assignments += 1,
                _ => differences.holds += 1,
            }
        }
        differences
    }
}

/// Waits until the allocator says that its brake is on, or off. Answers how long that took.
///
/// # Errors
/// When it does not say so in time.
pub async fn brake(site: &Site, on: bool, limit: Duration) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let (_, report) = site.store.get(site.prefix.role(Role::Allocator)).await.context("failed to read the role's report")?;
        let report = report.and_then(|kv| RoleReport::decode(&kv.value).ok());
        if report.is_some_and(|report| report.brake.is_empty() != on) {
            return Ok(began.elapsed());
        }
        let word = if on { "on" } else { "off" };
        ensure!(began.elapsed() < limit, "the allocator does not say after {limit:?} that its brake is {word}");
        tokio::time::sleep(LOOK).await;
    }
}
