//! What the agent applied: the assignment it uses, and what files, hooks and children are given of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::assignment::{Assignment, Bound};
use crate::model::label::{Holding, Label};
use crate::model::names::{NodeId, PoolName, PortName, Revision};
use crate::model::pool::OnIsolation;
use crate::model::ports::Ports;

/// An assignment that was applied. Kept in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// It, bound.
    pub assignment: Assignment,
    /// Its mod_revision: reading it as of this revision proves whether the store still knows it.
    pub mod_revision: Revision,
    /// The cluster it was read from.
    pub cluster_id: u64,
    /// The `holding` of the label that it answered: after a restore a restarted agent finds its answer valid by this.
    pub answered: Option<Box<Holding>>,
}

impl Applied {
    /// What is in use.
    pub fn bound(&self) -> Option<&Bound> {
        self.assignment.bound()
    }

    /// As a label says it to a store that forgot.
    pub fn holding(&self) -> Option<Box<Holding>> {
        let bound = self.bound()?;
        let (addresses, ports) = (bound.addresses.clone(), bound.ports.clone());
        Some(Box::new(Holding { generation: self.assignment.generation, addresses, ports, mark: self.assignment.mark }))
    }

    /// Whether the node must stop using it when it cannot reach etcd.
    pub fn withdraws(&self) -> bool {
        self.bound().is_some_and(|bound| bound.terms.on_isolation == OnIsolation::Withdraw)
    }
}

/// Whether both give the same addresses and ports in the same domain on the same terms of sharing: what serves at one
/// serves at the other.
pub fn same_place(a: &Bound, b: &Bound) -> bool {
    a.terms.domain == b.terms.domain && a.terms.sharing == b.terms.sharing && a.addresses == b.addresses && a.ports == b.ports
}

/// What files, hooks and children are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The node.
    pub id: NodeId,
    /// IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// By name.
    pub ports: Ports,
    /// The first port that the label names.
    pub first_port: Option<PortName>,
    /// Where it came from.
    pub pool: PoolName,
    /// When it was planned.
    pub generation: Revision,
}

impl Given {
    /// What a bound assignment gives to this label's node.
    pub fn new(label: &Label, assignment: &Assignment) -> Option<Given> {
        assignment.bound().map(|bound| Given {
            id: label.id.clone(),
            addresses: bound.addresses.clone(),
            ports: bound.ports.clone(),
            first_port: label.ports.iter().find(|name| bound.ports.contains_key(name)).cloned(),
            pool: bound.terms.pool.clone(),
            generation: assignment.generation,
        })
    }

    /// The number of the first port that the label names.
    pub fn port(&self) -> Option<u16> {
        self.first_port.as_ref().and_then(|name| self.ports.get(name)).or_else(|| self.ports.values().next()).copied()
    }

    /// Every port on every address, in order.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let mut sockets: Vec<_> =
            self.addresses.iter().flat_map(|ip| self.ports.values().map(move |port| SocketAddr::new(*ip, *port))).collect();
        sockets.sort();
        sockets
    }

    /// Addresses and ports in one word for people, e.g. `10.20.4.17 http=30412 metrics=30413`.
    pub fn summary(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let ports = self.ports.iter().map(|(name, port)| format!("{name}={port}"));
        addresses.chain(ports).collect::<Vec<_>>().join(" ")
    }

    /// The variables `ENLIST_…` that it becomes.
    pub fn env(&self) -> BTreeMap<String, String> {
        let mut env = address_env("ENLIST_", &self.addresses);
        env.insert("ENLIST_ID".into(), self.id.to_string());
        env.insert("ENLIST_POOL".into(), self.pool.to_string());
        env.insert("ENLIST_GENERATION".into(), self.generation.to_string());
        if let Some(port) = self.port() {
            env.insert("ENLIST_PORT".into(), port.to_string());
        }
        for (name, port) in &self.ports {
            let name = name.as_str().to_ascii_uppercase().replace('-', "_");
            env.insert(format!("ENLIST_PORT_{name}"), port.to_string());
        }
        env
    }

    /// The addresses that a hook must put out of use after a change: `ENLIST_PREVIOUS_IP…`.
    pub fn previous_env(&self) -> BTreeMap<String, String> {
        address_env("ENLIST_PREVIOUS_", &self.addresses)
    }
}

fn address_env(before: &str, addresses: &[IpAddr]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if let Some(first) = addresses.first() {
        env.insert(format!("{before}IP"), first.to_string());
    }
    for ip in addresses {
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        env.insert(format!("{before}{family}"), ip.to_string());
    }
    env
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::fixtures;
    use super::*;

    #[test]
    fn a_child_is_given_names_that_a_shell_can_use() {
        let mut label = fixtures::label();
        label.ports = vec!["http-alt".parse().unwrap(), "admin".parse().unwrap()];
        let mut assignment = fixtures::bound(812, "10.0.0.7", &[("admin", 30001), ("http-alt", 30002)]);
        if let crate::model::assignment::Answer::Bound(bound) = &mut assignment.answer {
            bound.addresses.push("fd00::7".parse().unwrap());
        }
        let given = Given::new(&label, &assignment).unwrap();
        let env: Vec<String> = given.env().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            env,
            [
                "ENLIST_GENERATION=812",
                "ENLIST_ID=edge-7",
                "ENLIST_IP=10.0.0.7",
                "ENLIST_IP4=10.0.0.7",
                "ENLIST_IP6=fd00::7",
                "ENLIST_POOL=eu",
                "ENLIST_PORT=30002",
                "ENLIST_PORT_ADMIN=30001",
                "ENLIST_PORT_HTTP_ALT=30002",
            ]
        );
        assert_eq!(given.sockets().len(), 4);
        assert_eq!(given.summary(), "10.0.0.7 fd00::7 admin=30001 http-alt=30002");
    }
}
