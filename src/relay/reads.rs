//! How a relay reads both sides.

use futures::future::BoxFuture;

use crate::model::names::Revision;
use crate::reconcile::{Context, Site};
use crate::store::api::{KeyRange, RangeRequest, StoreError};
use crate::store::feed::{Feed, FeedSettings, Scope};

/// Asks the source for its revision, to hear whether it answers. (The feed's silence proves nothing: a quiet prefix is silent.)
pub(super) fn ask(source: &Site) -> BoxFuture<'static, Result<Revision, StoreError>> {
    let request = RangeRequest { limit: 1, keys_only: true, ..RangeRequest::all(source.prefix.folder("nodes")) };
    let store = source.store.clone();
    Box::pin(async move { store.range(request).await.map(|response| response.header.revision) })
}

/// Follows what is copied.
pub(super) fn open_source(source: &Site, context: &Context) -> Feed {
    let scope = Scope::one(source.prefix.folder("nodes"));
    Feed::open(source.store.clone(), scope, FeedSettings::default(), context.rng("relay-source"))
}

/// Follows the copies and their checkpoint.
pub(super) fn open_destination(destination: &Site, context: &Context) -> Feed {
    let ranges = vec![KeyRange::one(destination.prefix.checkpoint()), destination.prefix.folder("manager/nodes")];
    Feed::open(destination.store.clone(), Scope { ranges }, FeedSettings::default(), context.rng("relay-destination"))
}
