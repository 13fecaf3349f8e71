//! Ports by name, as a node requests, holds and releases them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::PortName;

/// A number for each name, in the order of names. A node has few ports, so this is a list: a view of a large fleet
/// holds one per node, and a node of a `BTreeMap` has room for eleven entries.
///
/// ```
/// use enlist::Ports;
/// let mut ports = Ports::from([("metrics".parse().unwrap(), 9100)]);
/// ports.insert("http".parse().unwrap(), 30000);
/// let all: Vec<_> = ports.iter().map(|(name, port)| format!("{name} {port}")).collect();
/// assert_eq!(all, ["http 30000", "metrics 9100"]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports(Box<[(PortName, u16)]>);

/// An iterator in the order of names.
pub type Iter<'a> = std::iter::Map<std::slice::Iter<'a, (PortName, u16)>, fn(&'a (PortName, u16)) -> (&'a PortName, &'a u16)>;

impl Ports {
    /// Adds or replaces one port.
    pub fn insert(&mut self, name: PortName, port: u16) {
        match self.place(&name) {
            Ok(place) => self.0[place].1 = port,
            Err(place) => {
                let mut ports = std::mem::take(&mut self.0).into_vec();
                ports.insert(place, (name, port));
                self.0 = ports.into_boxed_slice();
            }
        }
    }

    /// Keeps the ports for which `keeps` is true.
    pub fn retain(&mut self, mut keeps: impl FnMut(&PortName, u16) -> bool) {
        let mut ports = std::mem::take(&mut self.0).into_vec();
        ports.retain(|(name, port)| keeps(name, *port));
        self.0 = ports.into_boxed_slice();
    }

    /// The number under a name.
    pub fn get(&self, name: &PortName) -> Option<&u16> {
        self.place(name).ok().and_then(|place| self.0.get(place)).map(|(_, port)| port)
    }

    /// Whether there is a number under this name.
    pub fn contains_key(&self, name: &PortName) -> bool {
        self.place(name).is_ok()
    }

    /// The number of ports.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates in the order of names.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(|(name, port)| (name, port))
    }

    /// The names, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &PortName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The numbers, in the order of names.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &u16> {
        self.0.iter().map(|(_, port)| port)
    }

    /// The index at which a name is, or would be inserted.
    fn place(&self, name: &PortName) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(name))
    }
}

/// If a name occurs twice, the last number counts.
impl FromIterator<(PortName, u16)> for Ports {
    fn from_iter<I: IntoIterator<Item = (PortName, u16)>>(ports: I) -> Self {
        Ports(ports.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl<const N: usize> From<[(PortName, u16); N]> for Ports {
    fn from(ports: [(PortName, u16); N]) -> Self {
        ports.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Ports {
    type Item = (&'a PortName, &'a u16);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Sorts the names; if a name occurs twice, the last number counts.
        Ok(Ports(BTreeMap::<PortName, u16>::deserialize(deserializer)?.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;

    fn named(pairs: &[(u8, u16)]) -> Vec<(PortName, u16)> {
        pairs.iter().map(|(name, port)| (format!("p{name}").parse().unwrap(), *port)).collect()
    }

    proptest! {
        #[test]
        fn ports_behave_like_a_map(pairs in prop::collection::vec((0..20_u8, any::<u16>()), 0..12), more in (0..20_u8, any::<u16>())) {
            let (mut map, mut ports): (BTreeMap<_, _>, Ports) = (named(&pairs).into_iter().collect(), named(&pairs).into_iter().collect());
            let [(name, port)] = &named(&[more])[..] else { unreachable!() };
            prop_assert_eq!(ports.get(name), map.get(name));
            map.retain(|_, port| *port % 3 != 0);
            ports.retain(|_, port| port % 3 != 0);
            map.insert(name.clone(), *port);
            ports.insert(name.clone(), *port);
            prop_assert_eq!(ports.iter().collect::<Vec<_>>(), map.iter().collect::<Vec<_>>());
            prop_assert_eq!(ports.keys().collect::<Vec<_>>(), map.keys().collect::<Vec<_>>());
            prop_assert_eq!(ports.values().collect::<Vec<_>>(), map.values().collect::<Vec<_>>());
            prop_assert!(ports.len() == map.len() && ports.contains_key(name) && !ports.is_empty());
            let text = serde_json::to_string(&ports).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&map).unwrap());
            prop_assert_eq!(serde_json::from_str::<Ports>(&text).unwrap(), ports);
        }
    }

    #[test]
    fn last_number_of_a_repeated_name_counts() {
        assert_eq!(
            serde_json::from_str::<Ports>(r#"{"a":1,"b":2,"a":3}"#).unwrap(),
            Ports::from([("a".parse().unwrap(), 3), ("b".parse().unwrap(), 2)])
        );
    }
}
