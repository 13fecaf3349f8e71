//! The allocator: sees labels, chooses addresses and ports, commits them with compares.
//!
//! The decisions are [`crate::plan`]'s (pure). Here is the loop around them: `view` is the typed picture of the prefix,
//! `encode` turns a planned change into a transaction, `lineage` counts the passes, `lead` runs passes while this instance leads. It may never write
//! without its leader key in the compares, and never plan before it leads and the view is complete.

mod listing;
mod view;
mod encode;
mod lineage;
mod lead;
mod tally;

use std::time::Duration;

use anyhow::Result;
use tracing::{Instrument as _, error_span};

use crate::reconcile::election::Election;
use crate::reconcile::{Context, Site};
use crate::store::api::KeyRange;
use crate::store::feed::{Feed, FeedSettings, Scope};
use crate::store::keys::Role;

pub use listing::Listing;
pub use view::View;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// Settings of the allocator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatorSettings {
    /// TTL of the leader's lease.
    pub leader_ttl: Duration,
    /// Grant only what nodes reclaim for a while: the store was restored while the roles were stopped.
    pub after_restore: bool,
    /// How long that while is at the least: twice the TTL of the agents' leases. With pools that withdraw it is their
    /// longest hold and cooldown, if that is longer.
    pub restore_quiet: Duration,
    /// Label, status and hold of a released node are deleted after this.
    pub forget: Duration,
}

impl Default for AllocatorSettings {
    fn default() -> Self {
        AllocatorSettings {
            leader_ttl: Duration::from_secs(10),
            after_restore: false,
            restore_quiet: Duration::from_secs(30),
            forget: Duration::from_secs(crate::plan::away::FORGET_S),
        }
    }
}

/// Everything the allocator looks at, seen in one total order: a commit's claims and assignment arrive together.
pub fn scope(site: &Site) -> Scope {
    let folders = ["brakes", "claims", "nodes", "pools"].map(|folder| site.prefix.folder(folder));
    Scope { ranges: folders.into_iter().chain([KeyRange::one(site.prefix.lineage())]).collect() }
}

fn open_feed(site: &Site, context: &Context) -> Feed<Listing> {
    let (prefix, rng) = (site.prefix.clone(), context.rng("allocator-feed"));
    Feed::collecting(site.store.clone(), scope(site), FeedSettings::default(), rng, move || Listing::new(prefix.clone()))
}

/// Runs an allocator until `context.shutdown`: campaigns, leads while it can, and campaigns again.
///
/// The view is kept warm while standing by, so that a take-over costs no read. A warm view may be a moment old; every
/// decision is compared with what it saw.
///
/// # Errors
/// None at present; the signature is that of every role.
pub async fn run(site: Site, settings: AllocatorSettings, context: Context) -> Result<()> {
    campaign_and_lead(site, settings, context).instrument(error_span!("role", role = %Role::Allocator)).await
}

async fn campaign_and_lead(site: Site, settings: AllocatorSettings, context: Context) -> Result<()> {
    let mut feed = open_feed(&site, &context);
    let mut view = View::new(site.prefix.clone());
    let mut carried = lead::Carried::new(&site, &settings, &context);
    let mut election = Election::new(&site, Role::Allocator, settings.leader_ttl, &context);
    while !context.shutdown.is_cancelled() {
        let won = {
            let campaign = election.win();
            tokio::pin!(campaign);
            loop {
                tokio::select! {
                    biased;
                    won = &mut campaign => break won,
                    update = feed.next() => drop(carried.apply(&mut view, update)),
                }
            }
        };
        let Some(mut leadership) = won else { break };
        let leader = lead::Leader::new(&site, &context, &leadership, settings.forget);
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => {}
            () = leadership.lost() => {}
            () = leader.run(&mut feed, &mut view, &mut carried) => {}
        }
        carried.lineage.end_term();
        election.leave(leadership).await;
    }
    Ok(())
}
