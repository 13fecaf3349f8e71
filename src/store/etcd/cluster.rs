//! Which cluster the endpoints of a store lead to, decided from what each endpoint said of itself. Pure: it asks no endpoint and
//! reads no clock. [`admit`](super::admit) does the asking.
//!
//! A member whose data were wiped can come back alone, as a cluster of its own, under its old address. It answers every call, and
//! its store is empty. So calls go to members of one cluster, and a member of another cluster is set aside.
//!
//! * A process that knows no cluster yet takes the one that most endpoints are of. Of two endpoints one is enough while the other
//!   is silent, but not if it is of another cluster. Of three or more endpoints one is enough if its cluster has so many members
//!   that the other endpoints can be of it.
//! * A process that knows its cluster stays with it while any endpoint is of it. When no endpoint is, it follows a majority of
//!   the endpoints: that is a cluster that was made anew from a backup.
//! * A single endpoint may be a load balancer in front of many members. It must lead to the other cluster for [`PATIENCE`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a single endpoint must lead to another cluster before the store follows it. Longer than an election, and shorter than
/// the lease TTL that agents have by default.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What an endpoint said last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was not asked.
    #[default]
    NotAsked,
    /// It did not answer, or cannot serve.
    Silent,
    /// It is a member of this cluster.
    Cluster(u64),
}

/// Where calls may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// To members of this cluster.
    Cluster(u64),
    /// Nowhere yet: these endpoints are to be asked first.
    Ask(Vec<usize>),
    /// Nowhere yet: this endpoint is to be asked how many members its cluster has.
    Count(usize),
    /// Nowhere: the endpoints are of several clusters, and none has a majority.
    Split,
    /// Nowhere: too few endpoints answer to know that theirs is the right cluster.
    Minority,
}

/// What is known of the clusters of some endpoints.
#[derive(Debug, Clone)]
pub(super) struct Clusters {
    /// The cluster that calls go to.
    chosen: Option<u64>,
    /// By endpoint; at least one.
    heard: Vec<Heard>,
    /// How many members a cluster said that it has.
    members: BTreeMap<u64, usize>,
    /// The cluster that answers in place of the chosen one, and since when.
    other_since: Option<(u64, Instant)>,
}

impl Clusters {
    /// Nothing is known of so many endpoints.
    pub(super) fn new(endpoints: usize) -> Self {
        let heard = vec![Heard::NotAsked; endpoints];
        Clusters { chosen: None, heard, members: BTreeMap::new(), other_since: None }
    }

    /// The cluster that this process used before it was started, or before its endpoints were changed.
    pub(super) fn expect(&mut self, cluster: u64) {
        self.chosen.get_or_insert(cluster);
    }

    /// The cluster that calls go to.
    pub(super) fn chosen(&self) -> Option<u64> {
        self.chosen
    }

    /// An endpoint said of which cluster it is.
    pub(super) fn hear(&mut self, endpoint: usize, cluster: u64, now: Instant) {
        self.set(endpoint, Heard::Cluster(cluster));
        if self.chosen == Some(cluster) {
            self.other_since = None;
        } else if self.other_since.is_none_or(|(other, _)| other != cluster) {
            self.other_since = Some((cluster, now));
        }
    }

    /// An endpoint does not answer, or cannot serve.
    pub(super) fn silent(&mut self, endpoint: usize) {
        self.set(endpoint, Heard::Silent);
    }

    /// A cluster said how many members it has.
    pub(super) fn count(&mut self, cluster: u64, members: usize) {
        self.members.insert(cluster, members);
    }

    fn set(&mut self, endpoint: usize, heard: Heard) {
        if let Some(slot) = self.heard.get_mut(endpoint) {
            *slot = heard;
        }
    }

    /// Where calls may go now.
    pub(super) fn decide(&mut self, now: Instant) -> Choice {
        let choice = match self.chosen {
            Some(chosen) => Choice::Cluster(self.successor(chosen, now).unwrap_or(chosen)),
            None => self.first(),
        };
        if let Choice::Cluster(cluster) = choice {
            if self.chosen != Some(cluster) {
                self.other_since = None;
            }
            self.chosen = Some(cluster);
        }
        choice
    }

    /// Those that were silent are asked again before the next decision.
    pub(super) fn forget_silence(&mut self) {
        self.heard.iter_mut().filter(|heard| **heard == Heard::Silent).for_each(|heard| *heard = Heard::NotAsked);
    }

    /// How many endpoints are of each cluster.
    fn counts(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for heard in &self.heard {
            if let Heard::Cluster(cluster) = heard {
                *counts.entry(*cluster).or_default() += 1;
            }
        }
        counts
    }

    fn majority(&self) -> Option<u64> {
        self.counts().into_iter().find(|(_, count)| count * 2 > self.heard.len()).map(|(cluster, _)| cluster)
    }

    /// The cluster that took the place of the chosen one.
    fn successor(&self, chosen: u64, now: Instant) -> Option<u64> {
        if self.heard.contains(&Heard::Cluster(chosen)) {
            return None;
        }
        let lasts = |cluster: u64| {
            self.other_since.is_some_and(|(other, since)| other == cluster && now.saturating_duration_since(since) >= PATIENCE)
        };
        self.majority().filter(|cluster| self.heard.len() > 1 || lasts(*cluster))
    }

    fn first(&self) -> Choice {
        if let Some(cluster) = self.majority() {
            return Choice::Cluster(cluster);
        }
        let not_asked: Vec<usize> = (0..self.heard.len()).filter(|at| self.heard[*at] == Heard::NotAsked).collect();
        if let Some(first) = not_asked.first() {
            // One as a rule, because each question is a connection. The others together when one was silent, because that takes
            // time.
            let all = self.heard.contains(&Heard::Silent);
            return Choice::Ask(if all { not_asked } else { vec![*first] });
        }
        let counts = self.counts();
        let (Some((cluster, count)), true) = (counts.first_key_value(), counts.len() < 2) else { return Choice::Split };
        let is_enough = |of: usize| of * 2 >= self.heard.len();
        if is_enough(*count) {
            return Choice::Cluster(*cluster);
        }
        match self.members.get(cluster) {
            // More than half: a cluster of one proves nothing of two others.
            Some(members) if members * 2 > self.heard.len() => Choice::Cluster(*cluster),
            Some(_) => Choice::Minority,
            None => {
                let at = self.heard.iter().position(|heard| *heard == Heard::Cluster(*cluster));
                at.map_or(Choice::Minority, Choice::Count)
            }
        }
    }

    /// Who said what, in words, for people who know the endpoints by these names.
    pub(super) fn describe(&self, names: &[&str]) -> String {
        let said = names.iter().zip(&self.heard).map(|(name, heard)| match heard {
            Heard::Cluster(cluster) => format!("{name} is a member of cluster {cluster:x}"),
            Heard::Silent | Heard::NotAsked => format!("{name} does not answer"),
        });
        said.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests;
