//! What goes wrong on the network, and how it ends again.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::Cluster;
use super::network::LinkFault;
use super::script::{Fault, Who};
use super::world::{Order, World, node_host, role_host};

/// How long a kernel takes to close the connections of a process that is gone.
const CLOSED: Duration = Duration::from_millis(50);

impl World {
    /// Lets it go wrong for a while. What is out of order already is left alone.
    pub(super) fn fault(&mut self, fault: &Fault, lasts: Duration) {
        let source = self.clusters[0].clone();
        match fault {
            Fault::Crash { member, silently } if !source.is_out(*member) => self.crash(source, *member, *silently, lasts),
            Fault::Wipe { member } if !source.is_out(*member) => {
                source.wipe(*member);
                self.crash(source, *member, false, lasts);
            }
            Fault::Pause { member } if !source.is_out(*member) => self.pause(source, *member, lasts),
            Fault::PauseDestination => {
                if let Some(second) = self.second().cloned().filter(|second| !second.is_out(0)) {
                    self.pause(second, 0, lasts);
                }
            }
            Fault::Isolate { member } if !source.is_out(*member) => {
                source.set_isolated(*member, true);
                let member = *member;
                self.until(lasts, move || source.set_isolated(member, false));
            }
            Fault::Link { who, member, fault } => {
                let client = match who {
                    Who::Node(node) => node_host(*node),
                    Who::Roles(instance) => role_host(*instance),
                };
                let members = member.map_or_else(|| source.hosts(), |member| vec![source.host(member)]);
                for member in members {
                    if self.network.break_link(&client, &member, *fault) {
                        let (network, client) = (self.network.clone(), client.clone());
                        self.until(lasts, move || network.repair(&client, &member));
                    }
                }
            }
            Fault::ForgetTokens => source.forget_tokens(),
            Fault::ChangeUsers => source.change_users(),
            Fault::Crash { .. } | Fault::Wipe { .. } | Fault::Pause { .. } | Fault::Isolate { .. } => {}
        }
    }

    fn until(&mut self, lasts: Duration, end: impl FnOnce() + Send + 'static) {
        self.faults.push(tokio::spawn(async move {
            sleep(lasts).await;
            end();
        }));
    }

    fn pause(&mut self, cluster: Cluster, member: usize, lasts: Duration) {
        cluster.set_paused(member, true);
        self.network.pause(&cluster.host(member));
        let network = self.network.clone();
        self.until(lasts, move || {
            cluster.set_paused(member, false);
            network.resume(&cluster.host(member));
        });
    }

    /// A crash that is silent is one of the power: the connections' other ends hear nothing. They are cut before, and repaired
    /// when the host is up again, which then knows nothing of them.
    fn crash(&mut self, cluster: Cluster, member: usize, silently: bool, lasts: Duration) {
        let host = cluster.host(member);
        let open = self.network.connections(&host);
        self.network.count(|effects| {
            effects.torn += open;
            effects.torn_silently += if silently { open } else { 0 };
        });
        let clients: Vec<String> = if silently { self.client_hosts() } else { Vec::new() };
        let cut: Vec<String> =
            clients.into_iter().filter(|client| self.network.break_link(client, &host, LinkFault::Cut)).collect();
        cluster.crashed(member);
        if !silently {
            self.network.die(&host);
        }
        let (ends, network, orders) = (lasts.saturating_sub(CLOSED), self.network.clone(), self.orders.clone());
        self.faults.push(tokio::spawn(async move {
            sleep(CLOSED).await;
            orders.lock().unwrap().push(Order::Crash(host.clone()));
            sleep(ends).await;
            cut.iter().for_each(|client| network.repair(client, &host));
            network.live(&host);
            orders.lock().unwrap().push(Order::Start(host));
        }));
    }
}
