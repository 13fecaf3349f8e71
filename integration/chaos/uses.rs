//! Who used what when, by what the agents' hosts wrote down: in a pool that withdraws no address is in use by two nodes at any
//! moment, however long a node is cut off. All times are of one clock, that of the machine.

use std::collections::BTreeMap;

/// The clock: milliseconds since the machine's boot, the same for all processes.
pub(crate) fn now_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    u64::try_from(now.tv_sec()).unwrap() * 1_000 + u64::try_from(now.tv_nsec()).unwrap() / 1_000_000
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    from: u64,
    to: u64,
    node: String,
}

/// What was in use.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    open: BTreeMap<String, (u64, Vec<String>)>,
    closed: BTreeMap<String, Vec<Use>>,
    count: u64,
}

impl Uses {
    /// A node uses these addresses from now on, and no others.
    pub(crate) fn changed(&mut self, node: &str, addresses: Vec<String>, ms: u64) {
        if self.open.get(node).is_some_and(|(_, before)| *before == addresses) {
            return;
        }
        if let Some((from, before)) = self.open.remove(node) {
            for address in before {
                self.closed.entry(address).or_default().push(Use { from, to: ms, node: node.to_owned() });
            }
        }
        if !addresses.is_empty() {
            self.count += 1;
            self.open.insert(node.to_owned(), (ms, addresses));
        }
    }

    /// Everything that is in use is in use no more: the process is dead.
    pub(crate) fn over(&mut self, ms: u64) {
        let open: Vec<String> = self.open.keys().cloned().collect();
        open.iter().for_each(|node| self.changed(node, Vec::new(), ms));
    }

    /// Adds what was closed here to all of it.
    pub(crate) fn add(&mut self, other: Uses) {
        self.count += other.count;
        for (address, mut uses) in other.closed {
            self.closed.entry(address).or_default().append(&mut uses);
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// What two nodes used at one moment.
    pub(crate) fn findings(mut self) -> Vec<String> {
        let mut findings = Vec::new();
        for (address, uses) in &mut self.closed {
            uses.sort_by_key(|used| used.from);
            for pair in uses.windows(2) {
                let (first, second) = (&pair[0], &pair[1]);
                if first.node != second.node && second.from < first.to {
                    let overlap = first.to.min(second.to) - second.from;
                    let (one, two) = (&first.node, &second.node);
                    findings
                        .push(format!("{address} was in use by {one} and by {two} for {overlap} ms, in a pool that withdraws"));
                }
            }
        }
        findings
    }
}
