//! The relay: makes `manager/nodes/` at the destination equal to `nodes/` at the source, cut by cut.
//!
//! `diff` sees both sides and what differs, `cut` turns that into transactions, `guard` says what must not be done, and
//! `check` finds what is not as it should be: all pure. `leader` is the shell. Every reader of the copies may rely on
//! this: while `manager/checkpoint` is there and not partial, the copies written up to it equal the source at one
//! revision. The relay never writes outside `manager/nodes/` and `manager/checkpoint` (and its own leader and role keys).

pub mod diff;
pub mod cut;
pub mod guard;
pub mod check;
mod leader;
mod reads;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use tracing::{Instrument as _, error_span};

use crate::reconcile::election::Election;
use crate::reconcile::standby::first_contact;
use crate::reconcile::{Context, Site};
use crate::store::api::{KeyValue, RangeRequest, StoreError};
use crate::store::keys::Role;
use crate::store::wire::{Checkpoint, Stored};

pub use check::check;
use guard::Refusal;
use leader::Leader;

/// Settings of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// TTL of the leader's lease.
    pub leader_ttl: Duration,
    /// The name of the source, written into the checkpoint.
    pub source_name: String,
    /// Take over a destination that holds copies of another source.
    pub adopt: bool,
    /// Let a source that is empty altogether empty the destination.
    pub allow_empty: bool,
}

impl Default for RelaySettings {
    fn default() -> Self {
        RelaySettings { leader_ttl: Duration::from_secs(10), source_name: "default".into(), adopt: false, allow_empty: false }
    }
}

/// Runs a relay until `context.shutdown`. It campaigns at the destination: a transaction can only compare a leader key
/// that is in its own store.
///
/// # Errors
/// What a human must mend: a loop, a foreign source in the checkpoint, refused credentials at the first contact.
pub async fn run(source: Site, destination: Site, settings: RelaySettings, context: Context) -> anyhow::Result<()> {
    campaign_and_lead(source, destination, settings, context).instrument(error_span!("role", role = %Role::Relay)).await
}

async fn campaign_and_lead(source: Site, destination: Site, settings: RelaySettings, context: Context) -> anyhow::Result<()> {
    // Before the campaign: while another source's relay leads, this one would wait and say nothing.
    if !look_first(&source, &destination, &settings, &context).await? {
        return Ok(());
    }
    let mut election = Election::new(&destination, Role::Relay, settings.leader_ttl, &context);
    while let Some(mut leadership) = election.win().await {
        let mut leader = Leader::new(&source, &destination, &settings, &context, &leadership);
        let ended = leader.lead(&mut leadership, &context).await;
        drop(leader);
        election.leave(leadership).await;
        ended?;
    }
    Ok(())
}

/// Looks at both sides once, for what must stop this relay before it does anything. Answers false at a shutdown.
async fn look_first(source: &Site, destination: &Site, settings: &RelaySettings, context: &Context) -> anyhow::Result<bool> {
    let seen = first_contact(Role::Relay, context, || both(source, destination)).await;
    let Some((same_cluster, checkpoint)) = seen.context("relay: the first contact failed")? else { return Ok(false) };
    refuse(source, destination, settings, same_cluster, checkpoint)?;
    Ok(true)
}

/// Whether both sites are in one cluster, and the stored checkpoint. Reads nothing but what a relay must be able to read.
async fn both(source: &Site, destination: &Site) -> Result<(bool, Option<KeyValue>), StoreError> {
    let request = RangeRequest { limit: 1, keys_only: true, ..RangeRequest::all(source.prefix.folder("nodes")) };
    let there = source.store.range(request).await?.header.cluster_id;
    let (header, checkpoint) = destination.store.get(destination.prefix.checkpoint()).await?;
    Ok((there == header.cluster_id, checkpoint))
}

fn refuse(
    source: &Site,
    destination: &Site,
    settings: &RelaySettings,
    same_cluster: bool,
    checkpoint: Option<KeyValue>,
) -> Result<(), Refusal> {
    guard::no_loop(&source.prefix, &destination.prefix, same_cluster)?;
    let stored = checkpoint.map(|kv| Checkpoint::decode(&kv.value));
    guard::same_source(stored.as_ref(), &settings.source_name, settings.adopt)
}
