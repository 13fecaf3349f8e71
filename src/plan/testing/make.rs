//! For tests: names, labels and pools in few words.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::claim::ClaimKey;
use crate::model::label::{Label, Want};
use crate::model::names::NodeId;
use crate::model::pool::{AtOnce, OnIsolation, OnMismatch, Pool, PortRange, Sharing};
use crate::model::ports::Ports;
use crate::model::selector::Selector;
use crate::model::variables::Variables;

/// A node id.
pub fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// A pool with short terms and ports 30000-30009.
pub fn pool(name: &str, cidrs: &[&str]) -> Pool {
    Pool {
        name: name.parse().unwrap(),
        domain: "default".parse().unwrap(),
        cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        exclude: Vec::new(),
        ports: PortRange { first: 30000, last: 30009 },
        sharing: Sharing::Exclusive,
        selector: Selector::default(),
        priority: 0,
        reserve: BTreeMap::new(),
        hold: Duration::from_secs(600),
        cooldown: Duration::from_secs(60),
        on_mismatch: OnMismatch::Keep,
        move_at_once: AtOnce::Percent(100),
        on_isolation: OnIsolation::Keep,
    }
}

/// A pool whose nodes share addresses.
pub fn shared(name: &str, cidrs: &[&str], ports: &str) -> Pool {
    Pool { sharing: Sharing::Shared, ports: ports.parse().unwrap(), ..pool(name, cidrs) }
}

/// A pool of hosts' own addresses.
pub fn host(name: &str, cidrs: &[&str], ports: &str) -> Pool {
    Pool { sharing: Sharing::Host, ports: ports.parse().unwrap(), ..pool(name, cidrs) }
}

/// A label that asks for an address and one port `main`.
pub fn label(node: &str) -> Label {
    Label {
        id: id(node),
        instance: format!("instance-{node}").parse().unwrap(),
        boot: "boot".parse().unwrap(),
        run: "run".parse().unwrap(),
        temporary: "192.0.2.1:40000".parse().unwrap(),
        variables: Variables::default(),
        description: String::new(),
        since: String::new(),
        ports: vec!["main".parse().unwrap()],
        want: Want::default(),
        holding: None,
        ephemeral: false,
        annotations: BTreeMap::new(),
    }
}

/// A label that asks for these ports.
pub fn label_with_ports(node: &str, ports: &[&str]) -> Label {
    Label { ports: ports.iter().map(|port| port.parse().unwrap()).collect(), ..label(node) }
}

/// A label that wants this address.
pub fn label_wanting(node: &str, address: &str) -> Label {
    Label { want: Want { addresses: vec![address.parse().unwrap()], ports: Ports::default() }, ..label(node) }
}

/// `10.0.0.1` or `10.0.0.1/30000` in domain `default`.
pub fn key(text: &str) -> ClaimKey {
    let (ip, port) = text.split_once('/').map_or((text, None), |(ip, port)| (ip, Some(port.parse().unwrap())));
    ClaimKey { domain: "default".parse().unwrap(), ip: ip.parse().unwrap(), port }
}
