//! `nodes/<node>/hold` and `nodes/<node>/hold/clock`

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, field, parse, print};
use crate::model::hold::Hold;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u64,
    state: String,
    #[serde(default)]
    extended: bool,
    hold_s: u64,
    #[serde(default)]
    since: String,
}

impl Stored for Hold {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        Ok(Hold { state: field("state", wire.state.parse())?, extended: wire.extended, seconds: wire.hold_s, since: wire.since })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            state: self.state.to_string(),
            extended: self.extended,
            hold_s: self.seconds,
            since: self.since.clone(),
        })
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
