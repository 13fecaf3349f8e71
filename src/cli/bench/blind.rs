//! Writes that decide nothing, as in the floor: flat puts in batches, a few requests under way.

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::floor::{BATCHES_IN_FLIGHT, FLAT};
use super::progress::Bar;
use crate::model::names::Revision;
use crate::store::api::{Op, Store, Txn};

/// Writes all of them. Answers the highest revision of an answer.
///
/// # Errors
/// When etcd refuses one.
pub async fn write(store: &Store, puts: impl Iterator<Item = Op>, bar: &Bar) -> anyhow::Result<Revision> {
    let mut puts = puts.peekable();
    let batches = std::iter::from_fn(move || {
        puts.peek()?;
        Some(puts.by_ref().take(FLAT).collect::<Vec<Op>>())
    });
    let writes = stream::iter(batches).map(async |then| {
        let count = then.len();
        let answer = store.txn(Txn { then, ..Txn::default() }).await.context("failed to write what is measured")?;
        ensure!(answer.succeeded, "a write without compares did not succeed");
        bar.add(count);
        anyhow::Ok(answer.header.revision)
    });
    writes.buffered(BATCHES_IN_FLIGHT).try_fold(Revision::NONE, async |last, revision| Ok(last.max(revision))).await
}
