//! Pools, as `get pools` shows them: the definition and how full it is.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::{Shown, Stores, joined};
use crate::cli::content::Content;
use crate::model::documents::Document;
use crate::model::names::PoolName;
use crate::model::pool::Pool;
use crate::plan::index::Index;
use crate::plan::outside::outside;
use crate::plan::pools::Pools;
use crate::plan::snapshot::{Snapshot, Stored};
use crate::plan::usage::{PoolUsage, Unit, pool_usage};

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolObject {
    /// Its name.
    pub name: String,
    /// ok; full (nothing is free for the next node); nearly-full (at most 10 % is free); conflict (it stands in another pool's way, or
    /// its domain or sharing was changed by hand: it gives nothing new); invalid (it cannot be read).
    pub condition: String,
    /// What is wrong with it, or how full it is.
    pub message: String,
    /// Its routing domain.
    pub domain: String,
    /// exclusive, shared or host.
    pub sharing: String,
    /// Where addresses come from.
    pub cidrs: Vec<String>,
    /// Ports to give, FIRST-LAST.
    pub ports: String,
    /// Which nodes may use it; empty = all.
    pub selector: String,
    /// Higher first.
    pub priority: i32,
    /// What is counted: addresses, or ports (on addresses).
    pub unit: String,
    /// All that it lists; null = no end, or it cannot be read.
    pub total: Option<Count>,
    /// Bound to nodes.
    pub bound: Count,
    /// Cooling.
    pub cooling: Count,
    /// Reserved for a node that does not have it.
    pub reserved: Count,
    /// Never given.
    pub excluded: Count,
    /// What the next nodes can get; null as for `total`.
    pub free: Option<Count>,
    /// How many nodes have what the pool would not assign to them today: it was changed under them.
    pub outside: u64,
    /// When it was last written, as a store revision.
    pub revision: i64,
}

/// A count. In JSON a number, but a text where the pool lists IPv6, whose counts no JSON reader's numbers hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub value: u128,
    /// Whether it is written as a text.
    pub as_text: bool,
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.value) {
            Ok(value) if !self.as_text => serializer.serialize_u64(value),
            _ => serializer.collect_str(&self.value),
        }
    }
}

impl Shown for PoolObject {
    const SOURCE: &'static [&'static str] = &["claims", "nodes", "pools"];
    const MANAGER: &'static [&'static str] = &[];
    const HEADINGS: &'static [&'static str] =
        &["POOL", "CONDITION", "CIDRS", "TOTAL", "BOUND", "COOLING", "RESERVED", "EXCLUDED", "FREE", "UNIT", "OUTSIDE"];
    const NARROW: &'static [&'static str] = &["OUTSIDE", "EXCLUDED", "RESERVED", "UNIT", "COOLING", "TOTAL"];
    const WIDE: &'static [&'static str] = &["SHARING", "DOMAIN", "PORTS", "SELECTOR", "PRIORITY", "MESSAGE"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        let snapshot = stores.source.map(Content::snapshot).unwrap_or_default();
        let mut objects: Vec<_> = snapshot.pools.iter().map(|(name, stored)| pool_object(&snapshot, name, stored)).collect();
        // Counted once for all pools: it looks at every node.
        let index = Index::of(&snapshot);
        let outside = outside(&snapshot, &Pools::new(&snapshot, &index));
        for object in &mut objects {
            let nodes = outside.iter().find(|(pool, _)| pool.as_str() == object.name);
            object.outside = nodes.map_or(0, |(_, nodes)| nodes.len() as u64);
        }
        objects
    }

    fn documents(stores: Stores<'_>) -> Option<Vec<(String, Result<Document, String>)>> {
        let pools = stores.source.map(Content::snapshot).unwrap_or_default().pools;
        let document = |stored: Stored<Pool>| stored.value.map(Document::Pool).map_err(|fault| fault.to_string());
        Some(pools.into_iter().map(|(name, stored)| (name.to_string(), document(stored))).collect())
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        let none = if self.condition == "invalid" { "-" } else { "∞" };
        let endless = |count: Option<Count>| count.map_or_else(|| none.into(), short);
        vec![
            self.name.clone(),
            self.condition.clone(),
            joined(&self.cidrs),
            endless(self.total),
            short(self.bound),
            short(self.cooling),
            short(self.reserved),
            short(self.excluded),
            endless(self.free),
            self.unit.clone(),
            self.outside.to_string(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![
            self.sharing.clone(),
            self.domain.clone(),
            self.ports.clone(),
            self.selector.clone(),
            self.priority.to_string(),
            self.message.clone(),
        ]
    }
}

/// The condition of a pool that gives nothing to the next node.
pub const FULL: &str = "full";
/// The condition of one that soon will not.
pub const NEARLY_FULL: &str = "nearly-full";
/// A pool is nearly full when at most this share of what it can give is free, in per cent: a tenth is what a fleet that is
/// replaced step by step needs, whose old addresses cool while the new ones are taken.
const NEARLY_FULL_PERCENT: u128 = 10;

/// How full a usable pool is: its condition, and the numbers that it rests on.
fn fullness(usage: Option<&PoolUsage>) -> (&'static str, String) {
    let Some(PoolUsage { total: Some(total), free: Some(free), .. }) = usage else { return ("ok", String::new()) };
    let (Some(usage), free) = (usage, *free) else { return ("ok", String::new()) };
    let gives = total.saturating_sub(usage.excluded);
    // A share without a product: counts saturate at the end of the numbers.
    let is_low = free <= gives / 100 * NEARLY_FULL_PERCENT + gives % 100 * NEARLY_FULL_PERCENT / 100;
    let unit = if usage.unit == Unit::Ports { "ports" } else { "addresses" };
    let message = format!("{free} of {gives} {unit} are free, {} cool", usage.cooling);
    match free {
        0 => (FULL, message),
        _ if is_low => (NEARLY_FULL, format!("{message}: at most {NEARLY_FULL_PERCENT} %")),
        _ => ("ok", String::new()),
    }
}

/// For people: beyond twelve digits only how large it is.
fn short(count: Count) -> String {
    if count.value < 1_000_000_000_000 { count.value.to_string() } else { format!("{:.1e}", count.value as f64) }
}

/// One pool, counted.
pub fn pool_object(snapshot: &Snapshot, name: &PoolName, stored: &Stored<Pool>) -> PoolObject {
    let pool = stored.ok();
    let usage = pool_usage(snapshot, name);
    let as_text = pool.is_some_and(|pool| pool.cidrs.iter().any(|net| net.addr().is_ipv6()));
    let counted = |pick: fn(&PoolUsage) -> u128| Count { value: usage.as_ref().map(pick).unwrap_or_default(), as_text };
    let endless = |pick: fn(&PoolUsage) -> Option<u128>| usage.as_ref().and_then(pick).map(|value| Count { value, as_text });
    let (condition, message) = match (&stored.value, &usage) {
        (Err(fault), _) => ("invalid", fault.to_string()),
        (Ok(_), Some(usage)) if !usage.is_usable => {
            let index = Index::of(snapshot);
            let pools = Pools::new(snapshot, &index);
            ("conflict", pools.get(name).and_then(|view| view.fault.clone()).unwrap_or_default())
        }
        (Ok(_), usage) => fullness(usage.as_ref()),
    };
    PoolObject {
        name: name.to_string(),
        condition: condition.into(),
        message,
        domain: pool.map(|pool| pool.domain.to_string()).unwrap_or_default(),
        sharing: pool.map(|pool| pool.sharing.to_string()).unwrap_or_default(),
        cidrs: pool.into_iter().flat_map(|pool| &pool.cidrs).map(ToString::to_string).collect(),
        ports: pool.map(|pool| pool.ports.to_string()).unwrap_or_default(),
        selector: pool.map(|pool| pool.selector.to_string()).unwrap_or_default(),
        priority: pool.map_or(0, |pool| pool.priority),
        unit: match usage.as_ref().map(|usage| usage.unit) {
            Some(Unit::Ports) => "ports",
            _ => "addresses",
        }
        .into(),
        total: endless(|usage| usage.total),
        bound: counted(|usage| usage.bound),
        cooling: counted(|usage| usage.cooling),
        reserved: counted(|usage| usage.reserved),
        excluded: counted(|usage| usage.excluded),
        free: endless(|usage| usage.free),
        outside: 0,
        revision: stored.mod_revision.0,
    }
}
