//! Looks at all machines all the time: what the promise of `withdraw` is about is in no store.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enlist::agent::sim::SimMachine;

/// How often.
const LOOK: Duration = Duration::from_millis(50);

/// They see every machine that ever was, whatever the script waits for meanwhile.
#[derive(Clone, Default)]
pub(crate) struct Eyes(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    machines: Vec<(String, SimMachine)>,
    twice: Option<Twice>,
}

/// Two machines with one address.
#[derive(Clone)]
pub(crate) struct Twice {
    ip: IpAddr,
    pub(crate) users: [String; 2],
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in use on {}", self.ip, self.users.join(" and "))
    }
}

impl Eyes {
    /// Opened, until the simulation ends.
    pub(crate) fn open() -> Eyes {
        let eyes = Eyes::default();
        let seen = eyes.0.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                seen.lock().unwrap().look();
            }
        });
        eyes
    }

    /// One more machine.
    pub(crate) fn watch(&self, name: &str, machine: &SimMachine) {
        self.0.lock().unwrap().machines.push((name.to_owned(), machine.clone()));
    }

    /// The first time that two machines used one address of a pool that withdraws.
    pub(crate) fn used_twice(&self) -> Option<Twice> {
        self.0.lock().unwrap().twice.clone()
    }
}

impl Seen {
    fn look(&mut self) {
        if self.twice.is_some() {
            return;
        }
        let withdrawing = |ip: &IpAddr| ip.to_string().starts_with("10.2.");
        let mut users: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, machine) in &self.machines {
            for ip in machine.uses().map(|given| given.addresses).unwrap_or_default() {
                if let Some(other) = users.insert(ip, name).filter(|_| withdrawing(&ip)) {
                    self.twice = Some(Twice { ip, users: [other.to_owned(), name.clone()] });
                }
            }
        }
    }
}
