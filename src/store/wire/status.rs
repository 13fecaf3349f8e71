//! `nodes/<node>/status`

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, parse, print, version};
use crate::model::names::{BootId, InstanceId, Revision, RunId};
use crate::model::status::{Phase, Refused, Status};
use crate::model::text;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    instance: InstanceId,
    boot: BootId,
    run: RunId,
    #[serde(with = "text")]
    phase: Phase,
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
            instance: wire.instance,
            boot: wire.boot,
            run: wire.run,
            phase: wire.phase,
            generation: wire.generation,
            message: wire.message,
            refused: wire.refused.into_iter().map(|r| Refused { ip: r.ip, port: r.port }).collect(),
        })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            instance: self.instance.clone(),
            boot: self.boot.clone(),
            run: self.run.clone(),
            phase: self.phase,
            generation: self.generation,
            message: self.message.clone(),
            refused: self.refused.iter().map(|r| WireRefused { ip: r.ip, port: r.port }).collect(),
        })
    }
}
