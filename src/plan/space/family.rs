//! Addresses as numbers of their family. IPv4 is 32 bits of a `u128`, IPv6 all of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which assignments list addresses.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: &IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The address of a number. A number above the largest of the family is cut to the bits of the family.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            // The upper bits of an IPv4 number are zero by construction.
            Family::V4 => IpAddr::V4(Ipv4Addr::from((number & u128::from(u32::MAX)) as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The index of this family in arrays of two.
    pub fn index(self) -> usize {
        match self {
            Family::V4 => 0,
            Family::V6 => 1,
        }
    }
}

/// The number of an address.
pub fn number(ip: &IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(*v4)),
        IpAddr::V6(v6) => u128::from(*v6),
    }
}

/// The first and last number of a prefix, network and broadcast address included.
pub fn bounds(net: &IpNet) -> (u128, u128) {
    (number(&net.network()), number(&net.broadcast()))
}

/// Addresses of a prefix that no node gets: network and broadcast address of an IPv4 prefix shorter than /31 (RFC 3021 frees
/// those of a /31), the subnet-router anycast address of an IPv6 prefix shorter than /127 (RFC 4291, 2.6.1; RFC 6164).
pub fn never_given(net: &IpNet) -> impl Iterator<Item = u128> {
    let (first, last) = bounds(net);
    let (is_ipv4, length) = (net.addr().is_ipv4(), net.prefix_len());
    let lowest = if is_ipv4 { length < 31 } else { length < 127 };
    lowest.then_some(first).into_iter().chain((is_ipv4 && lowest).then_some(last))
}

/// Ranges that no node gets, whatever a pool lists: the unspecified address, multicast, and IPv4's limited broadcast.
pub fn unusable(family: Family) -> Vec<(u128, u128)> {
    match family {
        Family::V4 => vec![(0, 0), (0xe000_0000, 0xefff_ffff), (0xffff_ffff, 0xffff_ffff)],
        Family::V6 => vec![(0, 0), (0xff << 120, u128::MAX)],
    }
}
