//! `nodes/<node>/label`

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lineage;
use super::{Stored, VERSION, parse, print, version};
use crate::model::label::{Holding, LABEL_BYTES_MAX, Label, Want};
use crate::model::lineage::Mark;
use crate::model::names::{BootId, InstanceId, NodeId, PortName, Revision, RunId};
use crate::model::ports::Ports;
use crate::model::variables::Variables;
use crate::plan::snapshot::Unreadable;

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(deserialize_with = "version")]
    v: u64,
    id: NodeId,
    instance: InstanceId,
    boot: BootId,
    run: RunId,
    temporary: Temporary,
    #[serde(default)]
    variables: Variables,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default)]
    since: String,
    /// Absent = one port called `main`; empty = an address only.
    #[serde(default = "one_port")]
    ports: Vec<PortName>,
    #[serde(default, skip_serializing_if = "WireWant::is_empty")]
    want: WireWant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holding: Option<WireHolding>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

fn one_port() -> Vec<PortName> {
    "main".parse().into_iter().collect()
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
    #[serde(default, skip_serializing_if = "Ports::is_empty")]
    ports: Ports,
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
    ports: Ports,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "lineage::mark")]
    mark: Option<Mark>,
}

/// Ports that may be had: 0 is none.
pub(super) fn real_ports(ports: Ports) -> Result<Ports, Unreadable> {
    match ports.iter().find(|(_, port)| **port == 0) {
        Some((name, _)) => Err(Unreadable::Invalid(format!("ports: {name}: 0 is not a port"))),
        None => Ok(ports),
    }
}

impl Stored for Label {
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > LABEL_BYTES_MAX {
            return Err(Unreadable::Invalid(format!("{} bytes, a label has at most {LABEL_BYTES_MAX}", bytes.len())));
        }
        let wire: Wire = parse(bytes)?;
        let holding = match wire.holding {
            None => None,
            Some(WireHolding { generation, addresses, ports, mark }) => {
                Some(Box::new(Holding { generation, addresses, ports: real_ports(ports)?, mark }))
            }
        };
        // What breaks a rule beyond the types of the fields is a label all the same: its node is told why it waits.
        Ok(Label {
            id: wire.id,
            instance: wire.instance,
            boot: wire.boot,
            run: wire.run,
            temporary: SocketAddr::new(wire.temporary.ip, wire.temporary.port),
            variables: wire.variables,
            description: wire.description,
            since: wire.since,
            ports: wire.ports,
            want: Want { addresses: wire.want.addresses, ports: real_ports(wire.want.ports)? },
            holding,
            ephemeral: wire.ephemeral,
            annotations: wire.annotations,
        })
    }

    fn encode(&self) -> Bytes {
        print(&Wire {
            v: VERSION,
            id: self.id.clone(),
            instance: self.instance.clone(),
            boot: self.boot.clone(),
            run: self.run.clone(),
            temporary: Temporary { ip: self.temporary.ip(), port: self.temporary.port() },
            variables: self.variables.clone(),
            description: self.description.clone(),
            since: self.since.clone(),
            ports: self.ports.clone(),
            want: WireWant { addresses: self.want.addresses.clone(), ports: self.want.ports.clone() },
            holding: self.holding.as_ref().map(|h| WireHolding {
                generation: h.generation,
                addresses: h.addresses.clone(),
                ports: h.ports.clone(),
                mark: h.mark,
            }),
            ephemeral: self.ephemeral,
            annotations: self.annotations.clone(),
        })
    }
}
