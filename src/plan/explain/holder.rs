//! Who has what a node would like to have, in words. Found in the snapshot; nothing of it is stored in answers.

use crate::model::assignment::Reason;
use crate::model::claim::{Claim, ClaimKey, ClaimState};
use crate::plan::allocate::asker::{Refusal, port_key};
use crate::plan::pools::PoolView;
use crate::plan::snapshot::Stored;
use crate::plan::space::family::{self, Family};
use crate::plan::world::World;

/// So many holders are named.
const NAMED_MAX: usize = 3;

/// Who has what is in the way of a refused node; empty = nobody is to be named. `wanted`: the ports that it wants.
pub(super) fn holders(world: &World<'_>, view: &PoolView<'_>, refusal: &Refusal, wanted: &[u16]) -> String {
    let mut named: Vec<String> = refusal.in_the_way.iter().filter_map(|key| holder(world, key)).collect();
    // A port that is taken on every address: a refusal does not list them all.
    if named.is_empty() && refusal.reason == Reason::PortTaken {
        let is_in_the_way = |key: &&ClaimKey| {
            let listed = view.space(Family::of(&key.ip)).is_some_and(|space| space.listed.contains(family::number(&key.ip)));
            key.domain == view.pool.domain && listed && key.port.is_some_and(|port| wanted.contains(&port))
        };
        named.extend(world.snapshot.claims.keys().filter(is_in_the_way).filter_map(|key| holder(world, key)));
    }
    let more = named.len().saturating_sub(NAMED_MAX);
    named.truncate(NAMED_MAX);
    match (named.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => named.join(", "),
        (false, more) => format!("{}, and {more} more", named.join(", ")),
    }
}

/// Who has a claim, or something under or over it; `None` = nobody.
pub(super) fn holder(world: &World<'_>, key: &ClaimKey) -> Option<String> {
    let claims = &world.snapshot.claims;
    let whole = ClaimKey { port: None, ..key.clone() };
    // An address is also in the way of those who want it whole by any port of it, and a port by the whole address.
    let found = match key.port {
        Some(_) => claims.get_key_value(key).or_else(|| claims.get_key_value(&whole)),
        None => claims.range(whole.clone()..=port_key(&key.domain, &key.ip, u16::MAX)).next(),
    };
    if let Some((at, stored)) = found {
        return Some(in_words(at, stored));
    }
    let (node, _) = world.index.missing().iter().find(|(_, keys)| keys.contains(key))?;
    Some(format!("{node} has {key}, although its claim is missing"))
}

fn in_words(key: &ClaimKey, stored: &Stored<Claim>) -> String {
    let what = key.port.map_or_else(|| key.ip.to_string(), |port| format!("port {port} on {}", key.ip));
    match stored.ok() {
        None => format!("{what} has a claim that cannot be read"),
        Some(Claim { node, state: ClaimState::Bound, .. }) => format!("{node} has {what}"),
        Some(Claim { node, .. }) => format!("{what} cools, {node} had it"),
    }
}
