//! `nodes/<node>/hold` and `nodes/<node>/hold/clock`

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, parse, print, version};
use crate::model::hold::{Hold, HoldState};
use crate::model::text;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    #[serde(with = "text")]
    state: HoldState,
    #[serde(default)]
    extended: bool,
    hold_s: u64,
    #[serde(default)]
    since: String,
}

impl Stored for Hold {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        Ok(Hold { state: wire.state, extended: wire.extended, seconds: wire.hold_s, since: wire.since })
    }

    fn encode(&self) -> Bytes {
        print(&Wire { v: VERSION, state: self.state, extended: self.extended, hold_s: self.seconds, since: self.since.clone() })
    }
}

/// The clock says nothing: that it is there is what counts. Whatever stands there is a clock.
impl Stored for () {
    fn decode(_bytes: &[u8]) -> Result<Self, Unreadable> {
        Ok(())
    }

    fn encode(&self) -> Bytes {
        Bytes::from_static(br#"{"v":1}"#)
    }
}
