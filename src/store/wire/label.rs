//! `nodes/<node>/label`

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Stored, VERSION, field, parse, print};
use crate::model::label::{Holding, LABEL_BYTES_MAX, Label, Want};
use crate::model::names::{PortName, Revision};
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u64,
    id: String,
    instance: String,
    boot: String,
    run: String,
    temporary: Temporary,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default)]
    since: String,
    /// Absent = one port called `main`; empty = an address only.
    #[serde(default = "one_port")]
    ports: Vec<String>,
    #[serde(default, skip_serializing_if = "WireWant::is_empty")]
    want: WireWant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holding: Option<WireHolding>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

fn one_port() -> Vec<String> {
    vec!["main".into()]
}

#[derive(Serialize, Deserialize)]
struct Temporary {
    ip: IpAddr,
    port: u16,
}

#[derive(Default, Serialize, Deserialize)]
struct WireWant {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ports: BTreeMap<String, u16>,
}

impl WireWant {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
struct WireHolding {
    generation: Revision,
    addresses: Vec<IpAddr>,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

pub(super) fn ports_from(ports: BTreeMap<String, u16>) -> Result<BTreeMap<PortName, u16>, Unreadable> {
    ports
        .into_iter()
        .map(|(name, port)| match port {
            0 => Err(Unreadable::Invalid(format!("ports: {name}: 0 is not a port"))),
            _ => Ok((field("ports", name.parse())?, port)),
        })
        .collect()
}

pub(super) fn ports_to(ports: &BTreeMap<PortName, u16>) -> BTreeMap<String, u16> {
    ports.iter().map(|(name, port)| (name.to_string(), *port)).collect()
}

impl Stored for Label {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > LABEL_BYTES_MAX {
            return Err(Unreadable::Invalid(format!("{} bytes, a label has at most {LABEL_BYTES_MAX}", bytes.len())));
        }
        let wire: Wire = parse(bytes)?;
        let holding = match wire.holding {
            None => None,
            Some(h) => Some(Holding { generation: h.generation, addresses: h.addresses, ports: ports_from(h.ports)? }),
        };
        // What breaks a rule beyond the types of the fields is a label all the same: its node is told why it waits.
        Ok(Label {
            id: field("id", wire.id.parse())?,
            instance: field("instance", wire.instance.parse())?,
            boot: field("boot", wire.boot.parse())?,
            run: field("run", wire.run.parse())?,
            temporary: SocketAddr::new(wire.temporary.ip, wire.temporary.port),
            variables: field("variables", wire.variables.try_into())?,
            description: wire.description,
            since: wire.since,
            ports: wire.ports.iter().map(|name| field("ports", name.parse())).collect::<Result<_, _>>()?,
            want: Want { addresses: wire.want.addresses, ports: ports_from(wire.want.ports)? },
            holding,
            ephemeral: wire.ephemeral,
            annotations: wire.annotations,
        })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            id: self.id.to_string(),
            instance: self.instance.to_string(),
            boot: self.boot.to_string(),
            run: self.run.to_string(),
            temporary: Temporary { ip: self.temporary.ip(), port: self.temporary.port() },
            variables: self.variables.as_map().clone(),
            description: self.description.clone(),
            since: self.since.clone(),
            ports: self.ports.iter().map(ToString::to_string).collect(),
            want: WireWant { addresses: self.want.addresses.clone(), ports: ports_to(&self.want.ports) },
            holding: self.holding.as_ref().map(|h| WireHolding {
                generation: h.generation,
                addresses: h.addresses.clone(),
                ports: ports_to(&h.ports),
            }),
            ephemeral: self.ephemeral,
            annotations: self.annotations.clone(),
        })
    }
}
