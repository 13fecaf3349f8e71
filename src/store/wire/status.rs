//! `nodes/<node>/status`

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, field, parse, print};
use crate::model::names::Revision;
use crate::model::status::{Refused, Status};
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u64,
    instance: String,
    boot: String,
    run: String,
    phase: String,
    #[serde(default)]
    generation: Revision,
    #[serde(default)]
    message: String,
    #[serde(default)]
    refused: Vec<WireRefused>,
}

#[derive(Serialize, Deserialize)]
struct WireRefused {
    ip: IpAddr,
    port: u16,
}

impl Stored for Status {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire = parse(bytes)?;
        Ok(Status {
            instance: field("instance", wire.instance.parse())?,
            boot: field("boot", wire.boot.parse())?,
            run: field("run", wire.run.parse())?,
            phase: field("phase", wire.phase.parse())?,
            generation: wire.generation,
            message: wire.message,
            refused: wire.refused.into_iter().map(|r| Refused { ip: r.ip, port: r.port }).collect(),
        })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            instance: self.instance.to_string(),
            boot: self.boot.to_string(),
            run: self.run.to_string(),
            phase: self.phase.to_string(),
            generation: self.generation,
            message: self.message.clone(),
            refused: self.refused.iter().map(|r| WireRefused { ip: r.ip, port: r.port }).collect(),
        })
    }
}
