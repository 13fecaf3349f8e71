//! `asked`: a digest of the inputs of an answer. An agent that restarts compares it and then needs no allocator.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::label::Label;
use super::pool::Sharing;
use super::ports::Ports;

/// The first 8 bytes of a SHA-256, as 16 hexadecimal digits.
///
/// The digest covers id, instance, variables, ports, want and holding. For [`Sharing::Host`] it also covers the address
/// of the temporary endpoint, because the answer depends on it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked([u8; 8]);

impl Asked {
    /// The digest of the request in `label`, for an answer out of a pool of this sharing.
    pub fn of(label: &Label, sharing: Sharing) -> Self {
        Self::digest(label, (sharing == Sharing::Host).then(|| label.temporary.ip()))
    }

    /// Whether this digest answers `label`, for any sharing of the pool that answered.
    pub fn answers(&self, label: &Label) -> bool {
        *self == Self::digest(label, None) || *self == Self::digest(label, Some(label.temporary.ip()))
    }

    fn digest(label: &Label, own_address: Option<IpAddr>) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add("enlist/asked/1");
        parts.add(label.id.as_str());
        parts.add(label.instance.as_str());
        parts.count(label.variables.iter().count());
        for (key, value) in label.variables.iter() {
            parts.add(key);
            parts.add(value);
        }
        parts.count(label.ports.len());
        label.ports.iter().for_each(|port| parts.add(port.as_str()));
        parts.addresses(&label.want.addresses);
        parts.ports(&label.want.ports);
        match &label.holding {
            None => parts.count(0),
            Some(holding) => {
                parts.count(1);
                parts.add(&holding.generation.to_string());
                parts.addresses(&holding.addresses);
                parts.ports(&holding.ports);
            }
        }
        if let Some(ip) = own_address {
            parts.add(&ip.to_string());
        }
        let hash = parts.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Asked(first)
    }
}

/// Feeds a hash so that two different lists of parts never look the same: the length of each part precedes it.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    fn count(&mut self, n: usize) {
        self.0.update((n as u64).to_be_bytes());
    }

    fn addresses(&mut self, addresses: &[IpAddr]) {
        self.count(addresses.len());
        addresses.iter().for_each(|ip| self.add(&ip.to_string()));
    }

    fn ports(&mut self, ports: &Ports) {
        self.count(ports.len());
        for (name, port) in ports {
            self.add(name.as_str());
            self.count(usize::from(*port));
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Asked {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("asked {text:?} is not 16 hexadecimal digits");
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(fault());
        }
        let value = u64::from_str_radix(text, 16).map_err(|_| fault())?;
        Ok(Asked(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::label::{Holding, Want};
    use crate::model::names::Revision;

    fn label() -> Label {
        Label {
            id: "edge-7".parse().unwrap(),
            instance: "i1".parse().unwrap(),
            boot: "b1".parse().unwrap(),
            run: "r1".parse().unwrap(),
            temporary: "192.0.2.17:49311".parse().unwrap(),
            variables: Default::default(),
            description: String::new(),
            since: String::new(),
            ports: vec!["http".parse().unwrap()],
            want: Want::default(),
            holding: None,
            ephemeral: false,
            annotations: BTreeMap::new(),
        }
    }

    fn changed(change: impl FnOnce(&mut Label)) -> Label {
        let mut label = label();
        change(&mut label);
        label
    }

    fn holding(generation: i64, addresses: &[&str], ports: &[(&str, u16)]) -> Option<Box<Holding>> {
        Some(Box::new(Holding {
            generation: Revision(generation),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: ports.iter().map(|(name, port)| (name.parse().unwrap(), *port)).collect(),
            mark: None,
        }))
    }

    #[test]
    fn each_input_of_the_answer_changes_the_digest() {
        let labels = [
            label(),
            changed(|l| l.id = "edge-8".parse().unwrap()),
            changed(|l| l.instance = "i2".parse().unwrap()),
            changed(|l| l.variables.insert("a", "bc").unwrap()),
            changed(|l| l.variables.insert("ab", "c").unwrap()),
            changed(|l| l.ports.clear()),
            changed(|l| l.ports.push("https".parse().unwrap())),
            changed(|l| l.ports = vec!["https".parse().unwrap(), "http".parse().unwrap()]),
            changed(|l| l.want.addresses.push("10.0.0.1".parse().unwrap())),
            changed(|l| l.want.ports = [("http".parse().unwrap(), 80)].into()),
            changed(|l| l.holding = holding(7, &[], &[])),
            changed(|l| l.holding = holding(8, &[], &[])),
            changed(|l| l.holding = holding(7, &["10.0.0.1"], &[])),
            changed(|l| l.holding = holding(7, &[], &[("http", 80)])),
        ];
        for sharing in [Sharing::Exclusive, Sharing::Shared, Sharing::Host] {
            let mut digests: Vec<_> = labels.iter().map(|label| Asked::of(label, sharing)).collect();
            digests.sort();
            digests.dedup();
            assert_eq!(digests.len(), labels.len());
        }
    }

    #[test]
    fn other_fields_do_not_change_the_digest() {
        let same = [
            changed(|l| l.boot = "b2".parse().unwrap()),
            changed(|l| l.run = "r2".parse().unwrap()),
            changed(|l| l.description = "x".into()),
            changed(|l| l.since = "2026-01-01T00:00:00Z".into()),
            changed(|l| l.ephemeral = true),
            changed(|l| l.annotations = [("serial".to_string(), "7".to_string())].into()),
            changed(|l| l.temporary.set_port(1)),
        ];
        for other in &same {
            for sharing in [Sharing::Exclusive, Sharing::Shared, Sharing::Host] {
                assert_eq!(Asked::of(other, sharing), Asked::of(&label(), sharing));
            }
        }
    }

    #[test]
    fn temporary_address_counts_only_in_host_pools() {
        let moved = changed(|l| l.temporary.set_ip("192.0.2.18".parse().unwrap()));
        assert_eq!(Asked::of(&moved, Sharing::Exclusive), Asked::of(&label(), Sharing::Exclusive));
        assert_ne!(Asked::of(&moved, Sharing::Host), Asked::of(&label(), Sharing::Host));
        assert!(Asked::of(&label(), Sharing::Host).answers(&label()));
        assert!(Asked::of(&label(), Sharing::Shared).answers(&moved));
        assert!(!Asked::of(&label(), Sharing::Host).answers(&moved));
    }

    #[test]
    fn digest_is_the_same_in_every_release() {
        // Assignments store the digest: a change would make every answer in every store look outdated.
        assert_eq!(Asked::of(&label(), Sharing::Exclusive).to_string(), "bb99e98cb8684a38");
    }

    #[test]
    fn only_sixteen_hex_digits_parse() {
        for bad in ["", "0", "+00000000000000a", "9f86d081884c7d6g", "9f86d081884c7d655"] {
            assert!(bad.parse::<Asked>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printed_digest_parses_back(bytes in any::<[u8; 8]>()) {
            prop_assert_eq!(Asked(bytes).to_string().parse::<Asked>().unwrap(), Asked(bytes));
        }
    }
}
