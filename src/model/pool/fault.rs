//! What a pool may not hold together, beyond the types of its fields. A pool with a fault gives nothing new; what it gave
//! stays.
//!
//! Every rule is here once; `apply` refuses by it and a stored pool is frozen by it. It must stay fast for the longest
//! lists (sorted ranges, no list against list).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::{HOLD_MIN, LIST_MAX, OnIsolation, Pool, Sharing, TERM_MAX, WITHDRAW_HOLD_MIN};
use crate::model::duration;
use crate::model::fault::Fault;

impl Pool {
    /// The first fault in words, with its field; `None` = valid.
    pub fn fault(&self) -> Option<String> {
        self.faults().first().map(Fault::to_string)
    }

    /// Everything that is wrong beyond the types of its fields, in the order of fields.
    pub fn faults(&self) -> Vec<Fault> {
        let mut found = Vec::new();
        self.check_cidrs(&mut found);
        check_nets("exclude", &self.exclude, &mut found);
        if self.ports.first == 0 || self.ports.last < self.ports.first {
            found.push(Fault::new("ports", format!("{} is not FIRST-LAST, each 1 to 65535", self.ports)));
        }
        self.check_reserve(&mut found);
        self.check_terms(&mut found);
        found
    }

    /// What a document must not say although a stored pool may: `apply` refuses it, but a pool that was stored before such a
    /// rule existed goes on, and comes back unchanged. What cannot be assigned is not assigned in either case.
    pub fn slips(&self) -> Vec<Fault> {
        let mut found = Vec::new();
        // The prefixes of a host pool only say which hosts' own addresses count.
        if self.sharing != Sharing::Host {
            for net in &self.cidrs {
                if let Some(what) = reserved_range(net) {
                    found.push(Fault::new("cidrs", format!("{net} holds {what}, which no node can have")));
                }
            }
        }
        let mut inside: Vec<&IpNet> = self.cidrs.iter().collect();
        inside.sort_by_key(|net| (net.addr(), net.prefix_len()));
        for net in self.exclude.iter().filter(|_| !self.cidrs.is_empty()) {
            // The prefixes are apart from each other, so only these two can have something in common with it.
            let at = inside.partition_point(|cidr| cidr.addr() <= net.addr());
            let near = [at.checked_sub(1), Some(at)].into_iter().flatten().filter_map(|at| inside.get(at));
            if !near.into_iter().any(|cidr| cidr.contains(net) || net.contains(*cidr)) {
                found.push(Fault::new("exclude", format!("{net} is outside of cidrs: there is nothing to exclude")));
            }
        }
        let ranges = Ranges::of(&self.cidrs);
        let is_anycast =
            |net: &&IpNet, ip: &IpAddr| matches!(net, IpNet::V6(v6) if v6.prefix_len() < 127 && IpAddr::V6(v6.network()) == *ip);
        for (node, ip) in self.reserve.iter().flat_map(|(node, ips)| ips.iter().map(move |ip| (node, ip))) {
            if let Some(net) = ranges.find(*ip).filter(|net| is_anycast(net, ip)) {
                let message = format!("{node}: {ip} is the subnet-router anycast address of {net}, which is never given");
                found.push(Fault::new("reserve", message));
            }
        }
        found
    }

    fn check_cidrs(&self, found: &mut Vec<Fault>) {
        if self.cidrs.is_empty() && self.sharing != Sharing::Host {
            let message = format!("with sharing {} at least one is needed, e.g. [10.20.0.0/16]", self.sharing);
            found.push(Fault::new("cidrs", message));
        }
        check_nets("cidrs", &self.cidrs, found);
        let mut sorted: Vec<&IpNet> = self.cidrs.iter().collect();
        sorted.sort_by_key(|net| (net.addr(), net.prefix_len()));
        // Sorted by first address, the wider first: one that contains another stands right before what it contains, or
        // before another one that it contains as well.
        let overlap = sorted.windows(2).find_map(|pair| match pair {
            [wide, narrow] if wide.contains(*narrow) => Some((wide, narrow)),
            _ => None,
        });
        if let Some((wide, narrow)) = overlap {
            let message = format!("{narrow} is part of {wide} already: name each address once");
            found.push(Fault::new("cidrs", message));
        }
    }

    fn check_reserve(&self, found: &mut Vec<Fault>) {
        let mut fault = |message: String| found.push(Fault::new("reserve", message));
        if self.reserve.is_empty() {
            return;
        }
        if self.sharing == Sharing::Host {
            return fault("with sharing host every node has its own address: nothing can be reserved".into());
        }
        let count: usize = self.reserve.values().map(Vec::len).sum();
        if count > LIST_MAX || self.reserve.len() > LIST_MAX {
            return fault(format!("{count} addresses, at most {LIST_MAX} are allowed"));
        }
        let (inside, excluded) = (Ranges::of(&self.cidrs), Ranges::of(&self.exclude));
        let mut owners = BTreeMap::new();
        for (node, addresses) in &self.reserve {
            let families: BTreeSet<bool> = addresses.iter().map(IpAddr::is_ipv4).collect();
            if addresses.is_empty() || families.len() != addresses.len() {
                fault(format!("{node}: one address, or one of each family, is needed"));
            }
            for ip in addresses {
                match inside.find(*ip) {
                    None => fault(format!("{node}: {ip} is not in cidrs")),
                    Some(net) if is_edge(net, *ip) => {
                        fault(format!("{node}: {ip} is the network or broadcast address of {net}, which is never given"));
                    }
                    Some(_) => {}
                }
                if let Some(net) = excluded.find(*ip) {
                    fault(format!("{node}: {ip} is in exclude ({net}), which is never given"));
                }
                if let Some(other) = owners.insert(*ip, node) {
                    fault(format!("{node}: {ip} is reserved for {other} already"));
                }
            }
        }
    }

    fn check_terms(&self, found: &mut Vec<Fault>) {
        let mut term = |field: &'static str, value: Duration, least: Duration, why: &str| {
            if value.subsec_nanos() > 0 {
                found.push(Fault::new(field, format!("{} is not whole seconds", duration::print(value))));
            } else if value < least {
                let (value, least) = (duration::print(value), duration::print(least));
                found.push(Fault::new(field, format!("{value} is too short, at least {least} is needed{why}")));
            } else if value > TERM_MAX {
                let (value, most) = (duration::print(value), duration::print(TERM_MAX));
                found.push(Fault::new(field, format!("{value} is too long, at most {most} is allowed")));
            }
        };
        match self.on_isolation {
            OnIsolation::Withdraw => term("hold", self.hold, WITHDRAW_HOLD_MIN, " with on_isolation withdraw"),
            OnIsolation::Keep => term("hold", self.hold, HOLD_MIN, ""),
        }
        term("cooldown", self.cooldown, Duration::ZERO, "");
    }
}

/// What is wrong with single networks of a list.
fn check_nets(field: &'static str, nets: &[IpNet], found: &mut Vec<Fault>) {
    if nets.len() > LIST_MAX {
        return found.push(Fault::new(field, format!("{} are listed, at most {LIST_MAX} are allowed", nets.len())));
    }
    for net in nets {
        if net.addr() != net.network() {
            let message = format!("{net} has bits set after its prefix: {} is meant, or {}?", net.trunc(), net.addr());
            found.push(Fault::new(field, message));
        }
        if matches!(net, IpNet::V6(v6) if is_mapped(v6.addr()) && v6.prefix_len() >= 96) {
            found.push(Fault::new(field, format!("{net} is IPv4 written as IPv6: one address has one spelling")));
        }
    }
}

/// What a network holds that no node can have.
fn reserved_range(net: &IpNet) -> Option<&'static str> {
    let (first, last) = (net.network(), net.broadcast());
    if first.is_unspecified() {
        return Some("the unspecified address");
    }
    if first.is_multicast() || last.is_multicast() {
        return Some("multicast addresses");
    }
    matches!(last, IpAddr::V4(v4) if v4.is_broadcast()).then_some("the broadcast address 255.255.255.255")
}

fn is_mapped(ip: Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some()
}

/// Network and broadcast addresses of IPv4 prefixes shorter than /31 are never given.
fn is_edge(net: &IpNet, ip: IpAddr) -> bool {
    matches!(net, IpNet::V4(v4) if v4.prefix_len() < 31 && (IpAddr::V4(v4.network()) == ip || IpAddr::V4(v4.broadcast()) == ip))
}

/// Finds the network that an address is in, by binary search.
struct Ranges<'a>(BTreeMap<IpAddr, &'a IpNet>);

impl<'a> Ranges<'a> {
    /// Of two networks that overlap one contains the other; the inner one is dropped.
    fn of(nets: &'a [IpNet]) -> Self {
        let mut sorted: Vec<&IpNet> = nets.iter().collect();
        sorted.sort_by_key(|net| (net.network(), net.prefix_len()));
        sorted.dedup_by(|inner, outer| outer.contains(*inner));
        Ranges(sorted.into_iter().map(|net| (net.network(), net)).collect())
    }

    fn find(&self, ip: IpAddr) -> Option<&'a IpNet> {
        self.0.range(..=ip).next_back().map(|(_, net)| *net).filter(|net| net.contains(&ip))
    }
}
