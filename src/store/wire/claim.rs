//! `claims/<domain>/<ip>[/<port>]`

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, parse, print, version};
use crate::model::claim::{Claim, ClaimState};
use crate::model::names::{InstanceId, NodeId, PoolName};
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    node: NodeId,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    pool: PoolName,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Bound,
    Cooling,
}

impl Stored for Claim {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        let state = match (wire.state, wire.instance) {
            (State::Bound, _) => ClaimState::Bound,
            (State::Cooling, Some(instance)) => ClaimState::cooling(instance, wire.since.unwrap_or_default()),
            (State::Cooling, None) => return Err(Unreadable::Invalid("a claim that cools must name its instance".into())),
        };
        Ok(Claim { node: wire.node, pool: wire.pool, state })
    }

    fn encode(&self) -> Bytes {
        let (state, instance, since) = match &self.state {
            ClaimState::Bound => (State::Bound, None, None),
            ClaimState::Cooling(cooling) => (State::Cooling, Some(cooling.instance.clone()), Some(cooling.since.clone())),
        };
        print(&Wire { v: VERSION, node: self.node.clone(), state, instance, since, pool: self.pool.clone() })
    }
}
