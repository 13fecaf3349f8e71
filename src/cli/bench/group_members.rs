//! From a label's change at the source to its member's key: relay and manager on a real etcd.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::blind;
use super::fleet_of_labels::{Tenants, group_name};
use super::nodes::{id, values};
use super::numbers::Latency;
use super::place::Place;
use super::progress::Bar;
use super::role::Running;
use crate::model::documents::{Document, to_stored};
use crate::reconcile::Site;
use crate::store::api::{Key, Op, RangeRequest, Txn, Watch, WatchMessage, WatchRequest};
use crate::store::keys::NodePart;
use crate::store::wire::Stored;

/// Longer than this without any progress is a fault, not a figure.
const STUCK: Duration = Duration::from_secs(300);
/// Counting costs etcd something, too.
const LOOK: Duration = Duration::from_millis(250);

/// How soon a change is written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Members {
    /// How many groups there are.
    pub groups: usize,
    /// How many changes, one after another.
    pub changes: usize,
    /// From the label's write being sent until the member's key was seen.
    pub latency: Latency,
}

/// Measures it.
///
/// # Errors
/// When something refuses, or stands still.
pub async fn measure(place: &Place, tenants: &Tenants, groups: usize, changes: usize) -> anyhow::Result<Members> {
    let site = place.site()?;
    fill(&site, tenants, groups).await?;
    let relay = Running::relay(place.site()?, place.site()?);
    let manager = Running::manager(place.site()?);
    all_members(&site, groups + tenants.members(groups)).await?;

    let bar = Bar::new("change to member", changes);
    let start = site.store.get(site.prefix.checkpoint()).await?.0.revision.next();
    let range = site.prefix.folder("manager/groups");
    let mut watch = site.store.watch(WatchRequest { range, start, beside: false }).await?;
    let (mut micros, mut moved) = (Vec::with_capacity(changes), HashMap::new());
    for n in 0..changes {
        // Another node each time, that goes to the next tenant's group.
        let node = tenants.changed(n);
        let at = moved.entry(node).or_insert_with(|| tenants.tenant(node));
        let tenant = (*at + 1) % groups;
        *at = tenant;
        let member = site.prefix.member(group_name(tenant)?.as_str(), &id(node)?);
        let put = Op::put(site.prefix.node(&id(node)?, NodePart::Label), tenants.moved(node, tenant)?.encode());
        let began = Instant::now();
        site.store.txn(Txn { then: vec![put], ..Txn::default() }).await?;
        timeout(STUCK, seen(watch.as_mut(), &member)).await.with_context(|| format!("{member} did not come"))??;
        micros.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        bar.add(1);
    }
    relay.stop().await?;
    manager.stop().await?;
    Ok(Members { groups, changes, latency: Latency::of(micros) })
}

async fn fill(site: &Site, tenants: &Tenants, groups: usize) -> anyhow::Result<()> {
    let bar = Bar::new("filling the store", groups + tenants.nodes * 3);
    // No name can be refused here: all of them were made by the same few lines.
    let definitions = (0..groups).filter_map(|tenant| {
        let group = Tenants::group(tenant).ok()?;
        Some(Op::put(site.prefix.group(&group.name), to_stored(&Document::Group(group))))
    });
    let nodes = (0..tenants.nodes).filter_map(|n| Some((values(n).ok()?, tenants.label(n, 0).ok()?)));
    let puts = nodes.flat_map(|(node, label)| {
        let key = |part| site.prefix.node(&node.id, part);
        [
            Op::put(key(NodePart::Label), label.encode()),
            Op::put(key(NodePart::Status), node.registered.encode()),
            Op::put(key(NodePart::Assignment), node.assignment.encode()),
        ]
    });
    blind::write(&site.store, definitions.chain(puts), &bar).await?;
    Ok(())
}

/// Waits until so many keys are below `manager/groups/`.
async fn all_members(site: &Site, keys: usize) -> anyhow::Result<()> {
    let bar = Bar::new("first members", keys);
    let (mut last, mut moved) = (0, Instant::now());
    while last < keys {
        sleep(LOOK).await;
        let request = RangeRequest { count_only: true, ..RangeRequest::all(site.prefix.folder("manager/groups")) };
        let now = usize::try_from(site.store.range(request).await?.count).unwrap_or(0);
        bar.set(now);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        ensure!(moved.elapsed() < STUCK, "nothing moved for {STUCK:?}: {last} of {keys} members and summaries are there");
    }
    Ok(())
}

async fn seen(watch: &mut dyn Watch, member: &Key) -> anyhow::Result<()> {
    while let Some(message) = watch.next().await {
        if let WatchMessage::Events { events, .. } = message?
            && events.iter().any(|event| event.key() == member)
        {
            return Ok(());
        }
    }
    anyhow::bail!("etcd ended a watch")
}
