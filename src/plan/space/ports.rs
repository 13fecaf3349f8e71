//! The taken ports of one address: nearly always a handful, on a shared address up to all.

use super::bits::Bits;

/// Up to this many ports are kept in a sorted list: a bitmap of as many ports is larger.
const FEW: usize = 32;

/// A set of ports that finds the next port outside it.
#[derive(Debug, Clone)]
pub enum PortSet {
    /// Sorted.
    Few(Vec<u16>),
    /// As bits.
    Many(Bits),
}

impl Default for PortSet {
    fn default() -> Self {
        PortSet::Few(Vec::new())
    }
}

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        match self {
            PortSet::Few(list) => {
                let Err(at) = list.binary_search(&port) else { return };
                list.insert(at, port);
                if list.len() > FEW {
                    let mut bits = Bits::default();
                    for port in list.drain(..) {
                        bits.insert(u128::from(port));
                    }
                    *self = PortSet::Many(bits);
                }
            }
            PortSet::Many(bits) => {
                bits.insert(u128::from(port));
            }
        }
    }

    /// Removes a port.
    pub fn remove(&mut self, port: u16) {
        match self {
            PortSet::Few(list) => {
                if let Ok(at) = list.binary_search(&port) {
                    list.remove(at);
                }
            }
            PortSet::Many(bits) => drop(bits.remove(u128::from(port))),
        }
    }

    /// Whether the set holds a port.
    pub fn contains(&self, port: u16) -> bool {
        match self {
            PortSet::Few(list) => list.binary_search(&port).is_ok(),
            PortSet::Many(bits) => bits.contains(u128::from(port)),
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        match self {
            PortSet::Few(list) => list.is_empty(),
            PortSet::Many(bits) => bits.is_empty(),
        }
    }

    /// The smallest port from `port` on that is not in the set; `None` when all up to 65535 are.
    pub fn next_clear(&self, port: u16) -> Option<u16> {
        match self {
            PortSet::Few(list) => {
                let mut free = port;
                let start = list.partition_point(|taken| *taken < port);
                for taken in list.iter().skip(start) {
                    if *taken != free {
                        break;
                    }
                    free = free.checked_add(1)?;
                }
                Some(free)
            }
            PortSet::Many(bits) => bits.next_clear(u128::from(port)).and_then(|free| u16::try_from(free).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_ports_behave_the_same() {
        let mut ports = PortSet::default();
        for port in (65_000..=65_535).rev() {
            assert_eq!(ports.next_clear(65_000), Some(65_000));
            assert_eq!(ports.next_clear(port), Some(port));
            ports.insert(port);
            ports.insert(port);
            assert!(ports.contains(port));
        }
        assert!(matches!(ports, PortSet::Many(_)));
        assert_eq!(ports.next_clear(65_000), None);
        assert_eq!(ports.next_clear(64_999), Some(64_999));
    }

    #[test]
    fn removed_ports_are_free_again() {
        for count in [5, 40] {
            let mut ports = PortSet::default();
            (0..count).for_each(|port| ports.insert(100 + port));
            ports.remove(103);
            ports.remove(99);
            assert_eq!((ports.next_clear(100), ports.contains(103), ports.contains(104)), (Some(103), false, true));
            (0..count).for_each(|port| ports.remove(100 + port));
            assert!(ports.is_empty());
        }
    }

    #[test]
    fn next_clear_ends_at_the_last_port() {
        let mut ports = PortSet::default();
        ports.insert(65_535);
        assert_eq!(ports.next_clear(65_535), None);
        assert_eq!(ports.next_clear(65_534), Some(65_534));
    }
}
