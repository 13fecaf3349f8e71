//! From settings to a store: checked at once for commands, with patience for what runs on.

use tokio_util::sync::CancellationToken;

use super::output;
use crate::config::resolve::SiteSettings;
use crate::reconcile::{Context, Site, Wall};
use crate::store::api::{EndpointInfo, KeyRange, RangeRequest, Store, StoreError};

/// A store that answered: for commands.
///
/// # Errors
/// When it did not answer within the dial time-out, or refused.
pub async fn connect(settings: SiteSettings) -> anyhow::Result<Site> {
    let site = Site { store: Store::connect(settings.store).await?, prefix: settings.prefix };
    knock(&site, Door::Nodes).await?;
    Ok(site)
}

/// Warns of endpoints that do not answer, or are members of another cluster. Answers the latter.
pub async fn look_at_endpoints(site: &Site) -> Vec<EndpointInfo> {
    let mut endpoints = site.store.endpoints().await;
    for trouble in endpoints.iter().filter_map(EndpointInfo::trouble) {
        output::say(format_args!("enlist: warning: {trouble}"));
    }
    endpoints.retain(EndpointInfo::is_foreign);
    endpoints
}

/// A store that need not be there yet: for roles and agents.
///
/// # Errors
/// When an endpoint cannot be understood.
pub fn open(settings: SiteSettings) -> anyhow::Result<Site> {
    Ok(Site { store: Store::open(settings.store)?, prefix: settings.prefix })
}

/// Where to knock: a key that whoever has business there may read, whatever else he may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Where nodes register.
    Nodes,
    /// Where relay and manager write: their users need not be let in anywhere else.
    Manager,
}

/// One small read below the prefix: proves that the store is there *and* lets us in.
pub(super) async fn knock(site: &Site, door: Door) -> Result<(), StoreError> {
    let key = match door {
        Door::Nodes => site.prefix.key("nodes/"),
        Door::Manager => site.prefix.checkpoint(),
    };
    let request = RangeRequest { count_only: true, ..RangeRequest::all(KeyRange::one(key)) };
    site.store.range(request).await.map(|_| ())
}

/// What a role or an agent is given by this process.
pub fn context(shutdown: CancellationToken) -> Context {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "host".into());
    Context { identity: format!("{host}/{}", std::process::id()), seed: fastrand::u64(..), wall: Wall::system(), shutdown }
}
