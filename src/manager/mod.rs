//! The manager: keeps groups equal to what their selectors say of the copied labels.
//!
//! `view` holds all that is seen: `copies` (the last complete state), `definitions`, `written` (what is stored below
//! `manager/groups/`) and the `roster` over the `index` (who matches). `state` says what kind of member a node is, `diff`
//! what is to be written, `check` what is not as it should be, `explain` why a node is in a group or not: all pure. `leader` is the shell. The manager never reads
//! `nodes/`: it stands on the copies alone, so it can be in another cluster than the nodes.

pub mod state;
pub mod copies;
pub mod definitions;
mod sets;
pub mod index;
pub mod roster;
pub mod written;
pub mod view;
pub mod diff;
pub mod check;
pub mod explain;
mod leader;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use tracing::{Instrument as _, error_span};

use crate::reconcile::election::Election;
use crate::reconcile::standby::first_contact;
use crate::reconcile::{Context, Site};
use crate::store::keys::Role;

pub use check::check;
use leader::Leader;

/// Settings of the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerSettings {
    /// TTL of the leader's lease.
    pub leader_ttl: Duration,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        ManagerSettings { leader_ttl: Duration::from_secs(10) }
    }
}

/// Runs a manager until `context.shutdown`.
///
/// # Errors
/// Only what a human must mend: the store refuses the credentials at the first contact.
pub async fn run(site: Site, settings: ManagerSettings, context: Context) -> anyhow::Result<()> {
    campaign_and_lead(site, settings, context).instrument(error_span!("role", role = %Role::Manager)).await
}

async fn campaign_and_lead(site: Site, settings: ManagerSettings, context: Context) -> anyhow::Result<()> {
    if !look_first(&site, &context).await? {
        return Ok(());
    }
    let mut election = Election::new(&site, Role::Manager, settings.leader_ttl, &context);
    while let Some(mut leadership) = election.win().await {
        let mut leader = Leader::new(&site, &context, &leadership);
        leader.lead(&mut leadership, &context).await;
        drop(leader);
        election.leave(leadership).await;
    }
    Ok(())
}

/// Asks the store something, to see whether it lets this process in at all. Answers false at a shutdown.
async fn look_first(site: &Site, context: &Context) -> anyhow::Result<bool> {
    let seen = first_contact(Role::Manager, context, || site.store.get(site.prefix.checkpoint())).await;
    Ok(seen.context("manager: the first contact failed")?.is_some())
}
