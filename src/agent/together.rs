//! Many agents in one process.

use std::sync::Arc;

use super::actor::run_untied;
use super::builder::Agent;
use super::exit::AgentExit;
use super::host::Host;
use super::settings::AgentSettings;
use crate::reconcile::{Context, Site};
use crate::store::lease::Leases;

/// Agents of one process that share one watch, the requests that write, and leases, up to 100 agents on each. A process
/// that registers thousands of nodes (the devices of a gateway, a simulation) then takes a fraction of etcd's time.
///
/// Each agent still reads, decides, and writes with compares, as alone. The difference: the agents on one lease are
/// silent together when the process dies. If one of them stops without its final status (its task panics, or its last
/// write does not arrive), the others lose the lease at once, and move with their assignments to another lease before
/// that one ends (if the store answers by then).
///
/// ```no_run
/// # async fn example(store: enlist::Store) -> Result<(), enlist::agent::AgentError> {
/// use enlist::agent::SharedAgents;
/// let together = SharedAgents::new(store);
/// let mut registered = Vec::new();
/// for n in 0..1_000 {
///     registered.push(together.builder().id(&format!("sensor-{n}")).no_ports().join().await?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SharedAgents {
    site: Site,
    leases: Arc<Leases>,
}

impl SharedAgents {
    /// Creates the shared parts for agents of this site (or store, then with the default prefix). Must be called within
    /// a runtime, which runs the shared tasks.
    pub fn new(site: impl Into<Site>) -> SharedAgents {
        SharedAgents::with_rng(site, fastrand::Rng::new())
    }

    /// Like [`new`](Self::new), with the given randomness (of waits between retries): for simulations.
    pub fn with_rng(site: impl Into<Site>, rng: fastrand::Rng) -> SharedAgents {
        let Site { store, prefix } = site.into();
        let leases = Arc::<Leases>::default();
        let store = store.with_batched_writes().with_shared_watch_for(prefix.folder("nodes"), rng, Some(leases.clone()));
        SharedAgents { site: Site { store, prefix }, leases }
    }

    /// Like [`Agent::builder`], for one more agent.
    pub fn builder(&self) -> Agent {
        Agent::builder(self.site.clone()).on_leases(self.leases.clone())
    }

    /// Like [`super::run`], for one more agent.
    pub fn run(
        &self,
        settings: AgentSettings,
        context: Context,
        host: Arc<dyn Host>,
    ) -> impl Future<Output = AgentExit> + Send + 'static {
        run_untied(self.site.clone(), settings, context, host, Some(self.leases.clone()))
    }
}
