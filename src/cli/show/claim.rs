//! Claims, as `get claims` shows them.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::{Shown, Stores, age_of};
use crate::cli::content::{Content, stored};
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::plan::snapshot::Stored;
use crate::store::keys::ParsedKey;

/// An address, or a port on one, is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimObject {
    /// Routing domain.
    pub domain: String,
    /// The address.
    pub address: IpAddr,
    /// The port; null = the address whole.
    pub port: Option<u16>,
    /// The owner; while cooling the last one; empty = unreadable.
    pub node: String,
    /// bound, cooling, or unreadable (which counts as taken).
    pub state: String,
    /// The pool it came from.
    pub pool: String,
    /// When it began to cool (RFC 3339); empty when bound.
    pub since: String,
    /// When it was last written, as a store revision.
    pub revision: i64,
}

impl Shown for ClaimObject {
    const SOURCE: &'static [&'static str] = &["claims"];
    const MANAGER: &'static [&'static str] = &[];
    const HEADINGS: &'static [&'static str] = &["CLAIM", "STATE", "NODE", "POOL", "COOLING"];
    const NARROW: &'static [&'static str] = &["POOL"];
    const WIDE: &'static [&'static str] = &["REVISION"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        let parsed = stores.source.into_iter().flat_map(Content::parsed);
        let mut claims: Vec<(ClaimKey, Stored<Claim>)> = parsed
            .filter_map(|(key, kv)| match key {
                ParsedKey::Claim(key) => Some((key, stored(kv))),
                _ => None,
            })
            .collect();
        claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        claims.iter().map(|(key, stored)| object(key, stored)).collect()
    }

    fn name(&self) -> String {
        let port = self.port.map(|port| format!("/{port}")).unwrap_or_default();
        format!("{}/{}{port}", self.domain, self.address)
    }

    /// The whole name, an address (with all its ports), or `address/port`.
    fn is_called(&self, name: &str) -> bool {
        let full = self.name();
        let local = full.split_once('/').map_or("", |(_, rest)| rest);
        full == name || local == name || self.address.to_string() == name
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![self.name(), self.state.clone(), self.node.clone(), self.pool.clone(), age_of(&self.since, now)]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![self.revision.to_string()]
    }
}

fn object(key: &ClaimKey, stored: &Stored<Claim>) -> ClaimObject {
    let (node, pool, state, since) = match &stored.value {
        Err(_) => (String::new(), String::new(), "unreadable", String::new()),
        Ok(Claim { node, pool, state }) => match state {
            ClaimState::Bound => (node.to_string(), pool.to_string(), "bound", String::new()),
            ClaimState::Cooling(cooling) => (node.to_string(), pool.to_string(), "cooling", cooling.since.clone()),
        },
    };
    ClaimObject {
        domain: key.domain.to_string(),
        address: key.ip,
        port: key.port,
        node,
        state: state.into(),
        pool,
        since,
        revision: stored.mod_revision.0,
    }
}
