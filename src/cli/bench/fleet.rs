//! Many agents in this process: the real agent code, a lease each, and one watch for all of them or one for each.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::host::BareHost;
use super::meter::{Counters, Log, metered};
use super::nodes;
use crate::agent::actor::run_untied;
use crate::reconcile::{Context, Site, Wall};
use crate::store::api::Store;
use crate::store::keys::Prefix;
use crate::store::lease::Leases;

/// Nodes between their start and their label: as many as the floor has requests under way.
const JOINING_MAX: usize = 256;

/// How nodes come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// As fast as they can.
    Rush,
    /// So many a second, whether those before are done or not (an open loop).
    PerSecond(f64),
}

/// What agents share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sharing {
    /// Nothing: as agents on hosts of their own.
    Nothing,
    /// One watch. Each has a lease and requests of its own.
    Watch,
    /// All that agents of one process may share ([`crate::agent::SharedAgents`]).
    All,
}

/// The agents. Dropping it ends them.
pub struct Fleet {
    site: Site,
    log: Arc<Log>,
    lease_ttl: Duration,
    children: Option<Arc<AtomicU64>>,
    leases: Option<Arc<Leases>>,
    tasks: JoinSet<()>,
    /// No agent does anything more.
    ended: CancellationToken,
}

impl Fleet {
    /// None yet. The site's store notes in `log` what they do.
    pub fn new(site: Site, log: Arc<Log>) -> Fleet {
        Fleet {
            site,
            log,
            lease_ttl: Duration::from_secs(nodes::LEASE_TTL_S),
            children: None,
            leases: None,
            tasks: JoinSet::new(),
            ended: CancellationToken::new(),
        }
    }

    /// With leases of this length, and children that are counted when they are started.
    pub fn with(self, lease_ttl: Duration, children: Option<Arc<AtomicU64>>) -> Fleet {
        Fleet { lease_ttl, children, ..self }
    }

    /// None yet, which will share this much and note in `log` what they do; with a count of what goes to etcd for them.
    pub fn sharing(site: Site, sharing: Sharing, log: Arc<Log>) -> (Fleet, Arc<Counters>) {
        // What is noted is each one's own request; what is counted is what is sent.
        let (own, counters) = metered(site.store, (sharing != Sharing::All).then(|| log.clone()));
        let (store, leases) = match sharing {
            Sharing::Nothing => (own, None),
            Sharing::Watch => (share(&own, &site.prefix, None), None),
            Sharing::All => {
                let (noted, _) = metered(own.with_batched_writes(), Some(log.clone()));
                let leases = Arc::<Leases>::default();
                (share(&noted, &site.prefix, Some(leases.clone())), Some(leases))
            }
        };
        let fleet = Fleet::new(Site { store, prefix: site.prefix }, log);
        (Fleet { leases, ..fleet }, counters)
    }

    /// Starts so many. Answers when each should have started, in microseconds since the log began.
    ///
    /// # Errors
    /// When a name is not valid.
    pub async fn arrive(&mut self, nodes: usize, arrival: Arrival) -> anyhow::Result<Vec<u64>> {
        let offset = self.log.now();
        let began = Instant::now();
        let mut due = Vec::with_capacity(nodes);
        for n in 0..nodes {
            match arrival {
                Arrival::Rush => {
                    if n >= JOINING_MAX {
                        // A permit for each label that was written.
                        self.log.joined.acquire().await?.forget();
                    }
                    due.push(self.log.now());
                }
                Arrival::PerSecond(rate) => {
                    let at = Duration::from_secs_f64(n as f64 / rate);
                    sleep_until(began + at).await;
                    due.push(offset + u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
                }
            }
            self.start(n)?;
        }
        Ok(due)
    }

    /// Starts the n-th.
    ///
    /// # Errors
    /// When a name is not valid.
    pub fn start(&mut self, n: usize) -> anyhow::Result<()> {
        self.log.start(n);
        let context =
            Context { identity: format!("host-{n}"), seed: n as u64, wall: Wall::system(), shutdown: CancellationToken::new() };
        let (site, mut settings) = (self.site.clone(), nodes::settings(n)?);
        settings.lease_ttl = self.lease_ttl;
        let host = self.children.clone().map_or_else(|| BareHost::new(n), |started| BareHost::with_child(n, started));
        let leases = self.leases.clone();
        let life = run_untied(site, settings, context, Arc::new(host), leases);
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                life = life => drop(life),
            }
        });
        Ok(())
    }

    /// Ends all of them as they are, and their watch; nothing is written. None of them sees another one's end: an agent that
    /// goes without a word takes a shared lease along, and the others would report that they lost it.
    pub async fn end(mut self) {
        self.ended.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Whether one of them ended, which none should.
    pub fn lost_one(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }
}

fn share(store: &Store, prefix: &Prefix, leases: Option<Arc<Leases>>) -> Store {
    store.with_shared_watch_for(prefix.folder("nodes"), fastrand::Rng::with_seed(7), leases)
}
