//! `claims/<domain>/<ip>[/<port>]`

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, field, parse, print};
use crate::model::claim::{Claim, ClaimState};
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u64,
    node: String,
    #[serde(flatten)]
    state: WireState,
    pool: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum WireState {
    Bound,
    Cooling {
        instance: String,
        #[serde(default)]
        since: String,
    },
}

impl Stored for Claim {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        let state = match wire.state {
            WireState::Bound => ClaimState::Bound,
            WireState::Cooling { instance, since } => {
                ClaimState::Cooling { instance: field("instance", instance.parse())?, since }
            }
        };
        Ok(Claim { node: field("node", wire.node.parse())?, pool: field("pool", wire.pool.parse())?, state })
    }

    fn encode(&self) -> Bytes {
        let state = match &self.state {
            ClaimState::Bound => WireState::Bound,
            ClaimState::Cooling { instance, since } => {
                WireState::Cooling { instance: instance.to_string(), since: since.clone() }
            }
        };
        print(&Wire { v: VERSION, node: self.node.to_string(), state, pool: self.pool.to_string() })
    }
}
