//! Whether a connection may be used: its member must be of the cluster that the store is. While that is not known, the other
//! endpoints are asked. The decision itself is [`cluster`](super::cluster)'s.

use etcd_client::Client;
use futures::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::cluster::{Choice, PATIENCE};
use super::error::{Failure, classify};
use super::ring::Ring;
use crate::store::api::{EndpointInfo, StoreError};

/// Rounds of questions until there is a decision: one endpoint, then the others, then a count, and one more for what changed
/// meanwhile.
const ROUNDS_MAX: usize = 6;

impl Ring {
    /// Whether the member at this endpoint may serve calls. `client` is on the connection in question.
    pub(super) async fn admit(&self, index: usize, cluster: u64, client: &Client) -> Result<(), Failure> {
        // Something that tells no cluster is no etcd member, or a proxy: nothing can be decided by it.
        if cluster == 0 {
            return Ok(());
        }
        if let Choice::Cluster(chosen) = self.hear(index, cluster) {
            return self.is_of(index, cluster, chosen);
        }
        // One call asks, the others wait for what it learns.
        let _learning = self.learning.lock().await;
        for _ in 0..ROUNDS_MAX {
            match self.hear(index, cluster) {
                Choice::Cluster(chosen) => return self.is_of(index, cluster, chosen),
                Choice::Ask(others) => {
                    join_all(others.into_iter().map(|other| self.ask(other))).await;
                }
                Choice::Count(_) => {
                    let members = client.cluster_client().member_list().await;
                    let members = members.map_or(1, |list| list.members().iter().filter(|member| !member.is_learner()).count());
                    self.clusters().count(cluster, members);
                }
                Choice::Split | Choice::Minority => break,
            }
        }
        Err(self.undecided(index))
    }

    fn hear(&self, index: usize, cluster: u64) -> Choice {
        let now = Instant::now();
        let mut clusters = self.clusters();
        let before = clusters.chosen();
        clusters.hear(index, cluster, now);
        let choice = clusters.decide(now);
        drop(clusters);
        if let (Some(before), Choice::Cluster(after)) = (before, &choice)
            && before != *after
        {
            let (before, cluster) = (format!("{before:x}"), format!("{after:x}"));
            warn!(before, cluster, "the endpoints lead to another etcd cluster than before; it is used from now on");
        }
        choice
    }

    /// Whether an endpoint of this cluster is of the chosen one.
    fn is_of(&self, index: usize, cluster: u64, chosen: u64) -> Result<(), Failure> {
        let slot = self.slot(index);
        if cluster == chosen {
            slot.is_of_ours(chosen);
            return Ok(());
        }
        slot.set_aside(cluster, chosen);
        let followed = match self.len() {
            1 => format!("when its endpoint leads there for {} s", PATIENCE.as_secs()),
            _ => "when most endpoints are members of it".to_owned(),
        };
        Err(Failure::other_cluster(format!(
            "{} is a member of cluster {cluster:x}, and cluster {chosen:x} is in use; the other one is followed only {followed}",
            slot.name
        )))
    }

    fn undecided(&self, index: usize) -> Failure {
        let mut clusters = self.clusters();
        let said = clusters.describe(&self.names());
        let choice = clusters.decide(Instant::now());
        clusters.forget_silence();
        let why = match choice {
            Choice::Split => "name the endpoints of one cluster only",
            _ => "one endpoint of several is not enough to know that its cluster is the right one",
        };
        drop(clusters);
        tracing::debug!(endpoint = self.endpoint(index), "the cluster of the endpoints is not decided");
        Failure::other_cluster(format!("{said}: {why}"))
    }

    /// Asks another endpoint of which cluster it is.
    pub(super) async fn ask(&self, index: usize) {
        match timeout(self.settings.dial_timeout / 3, self.cluster_of(index)).await {
            // A member that names no cluster decides nothing.
            Ok(Ok(cluster)) if cluster != 0 => self.clusters().hear(index, cluster, Instant::now()),
            Ok(_) | Err(_) => self.clusters().silent(index),
        }
    }

    /// Asks every endpoint of which cluster it is, if there are several.
    pub(super) async fn endpoints(&self) -> Vec<EndpointInfo> {
        if self.len() < 2 {
            return Vec::new();
        }
        let asked = join_all((0..self.len()).map(|index| timeout(self.settings.dial_timeout, self.cluster_of(index)))).await;
        let used = self.clusters().chosen();
        let names = self.names().into_iter().map(str::to_owned);
        let info = |(endpoint, answer): (String, Result<Result<u64, Failure>, _>)| EndpointInfo {
            endpoint,
            cluster_id: answer.ok().and_then(Result::ok).filter(|cluster| *cluster != 0),
            used,
        };
        names.zip(asked).map(info).collect()
    }

    /// The cluster of an endpoint, over a connection of its own. Without a login where etcd answers without one.
    pub(super) async fn cluster_of(&self, index: usize) -> Result<u64, Failure> {
        let slot = self.slot(index);
        let client = self.anonymous(slot).await?;
        let status = match client.maintenance_client().status().await.map_err(|error| classify(error, &slot.name)) {
            Err(failure) if is_refused(&failure) => {
                let client = self.login(slot).await?;
                client.maintenance_client().status().await.map_err(|error| classify(error, &slot.name))
            }
            answer => answer,
        };
        Ok(status?.header().map_or(0, |header| header.cluster_id()))
    }
}

fn is_refused(failure: &Failure) -> bool {
    failure.token || (matches!(failure.error, StoreError::Refused(_)) && !failure.endpoint)
}
