//! The label: what a node says of itself (patent: 节点信息, packed by *Label 封装*). Written by its agent, read by all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::lineage::Mark;
use super::names::{BootId, InstanceId, NodeId, PortName, Revision, RunId};
use super::ports::Ports;
use super::variables::Variables;

/// A label may ask for this many ports. More would make one node's transaction crowd out the others of its batch.
pub const PORTS_MAX: usize = 16;
/// A stored label is at most this long, so that twenty of them fit one etcd request (1.5 MiB).
pub const LABEL_BYTES_MAX: usize = 64 * 1024;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The node.
    pub id: NodeId,
    /// Which installation.
    pub instance: InstanceId,
    /// Which boot of its host.
    pub boot: BootId,
    /// Which process of its agent.
    pub run: RunId,
    /// Where the agent answers before (and after) it has an assignment.
    pub temporary: SocketAddr,
    /// What selectors see.
    pub variables: Variables,
    /// For people.
    pub description: String,
    /// When the agent first joined with this label, RFC 3339. For people: no program compares it.
    pub since: String,
    /// The ports it asks for, in the order in which they were named; empty = an address only.
    pub ports: Vec<PortName>,
    /// Certain addresses and ports or nothing.
    pub want: Want,
    /// What it uses although the store forgot it (design: *the store forgot*). Hardly ever there, so it takes no room in the others.
    pub holding: Option<Box<Holding>>,
    /// Its stop is a leave; nothing of it is kept.
    pub ephemeral: bool,
    /// Free text that nothing selects on.
    pub annotations: BTreeMap<String, String>,
}

impl Label {
    /// What is wrong with it beyond the types of its fields, in words; `None` = valid.
    pub fn fault(&self) -> Option<String> {
        if self.ports.len() > PORTS_MAX {
            return Some(format!("ports: {} are asked for, at most {PORTS_MAX} are allowed", self.ports.len()));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.ports.iter().find(|p| !seen.insert(*p)) {
            return Some(format!("ports: {twice} is named twice"));
        }
        if let Some(unknown) = self.want.ports.keys().find(|p| !seen.contains(p)) {
            return Some(format!("want.ports: {unknown} is not among the ports asked for"));
        }
        let wanted: BTreeSet<_> = self.want.ports.values().collect();
        if wanted.len() != self.want.ports.len() {
            return Some("want.ports: one port is wanted under two names".into());
        }
        let families: BTreeSet<_> = self.want.addresses.iter().map(IpAddr::is_ipv4).collect();
        if families.len() != self.want.addresses.len() {
            return Some("want.addresses: at most one of each family".into());
        }
        // One address has one spelling, or a host's port could be claimed under both.
        let mapped = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if mapped(&self.temporary.ip()) {
            return Some(format!("temporary.ip: {} is IPv4 written as IPv6", self.temporary.ip()));
        }
        if let Some(ip) = self.want.addresses.iter().find(|ip| mapped(ip)) {
            return Some(format!("want.addresses: {ip} is IPv4 written as IPv6"));
        }
        None
    }
}

/// Certain addresses and ports: these or nothing. Not to be had = `waiting` with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// By port name.
    pub ports: Ports,
}

/// What an agent uses although the store forgot it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Of the assignment it applied.
    pub generation: Revision,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Ports,
    /// Its mark: where the store's lineage lacks this pass, the store was restored, whatever the generations say.
    pub mark: Option<Mark>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn label() -> Label {
        Label {
            id: "edge-7".parse().unwrap(),
            instance: "i1".parse().unwrap(),
            boot: "b1".parse().unwrap(),
            run: "r1".parse().unwrap(),
            temporary: "192.0.2.17:49311".parse().unwrap(),
            variables: Variables::default(),
            description: String::new(),
            since: String::new(),
            ports: vec!["http".parse().unwrap(), "metrics".parse().unwrap()],
            want: Want::default(),
            holding: None,
            ephemeral: false,
            annotations: BTreeMap::new(),
        }
    }

    fn check(change: impl FnOnce(&mut Label), expected: Option<&str>) {
        let mut label = label();
        change(&mut label);
        assert_eq!(label.fault().as_deref(), expected);
    }

    #[test]
    fn good_labels_have_no_fault() {
        check(|_| {}, None);
        check(|l| l.ports.clear(), None);
        check(|l| l.ports = (0..PORTS_MAX).map(|n| format!("p{n}").parse().unwrap()).collect(), None);
        check(|l| l.want.ports = [("http".parse().unwrap(), 80), ("metrics".parse().unwrap(), 81)].into(), None);
        check(|l| l.want.addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], None);
    }

    #[test]
    fn every_rule_names_its_field() {
        check(
            |l| l.ports = (0..=PORTS_MAX).map(|n| format!("p{n}").parse().unwrap()).collect(),
            Some("ports: 17 are asked for, at most 16 are allowed"),
        );
        check(|l| l.ports.push("http".parse().unwrap()), Some("ports: http is named twice"));
        check(|l| l.want.ports = [("ssh".parse().unwrap(), 22)].into(), Some("want.ports: ssh is not among the ports asked for"));
        check(
            |l| l.want.ports = [("http".parse().unwrap(), 80), ("metrics".parse().unwrap(), 80)].into(),
            Some("want.ports: one port is wanted under two names"),
        );
        check(
            |l| l.want.addresses = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            Some("want.addresses: at most one of each family"),
        );
        check(
            |l| l.temporary = "[::ffff:192.0.2.17]:49311".parse().unwrap(),
            Some("temporary.ip: ::ffff:192.0.2.17 is IPv4 written as IPv6"),
        );
        check(
            |l| l.want.addresses = vec!["::ffff:10.0.0.1".parse().unwrap()],
            Some("want.addresses: ::ffff:10.0.0.1 is IPv4 written as IPv6"),
        );
    }
}
