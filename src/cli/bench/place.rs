//! Where a round is run: a fresh private etcd, or a fresh prefix in yours, which is emptied afterwards.

use std::path::PathBuf;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::{Duration, Instant, sleep};

use super::numbers::cpu_seconds;
use crate::cli::private::PrivateEtcd;
use crate::reconcile::Site;
use crate::store::api::{Op, Store, Txn};
use crate::store::etcd::StoreSettings;
use crate::store::keys::Prefix;

/// What all rounds are run on.
#[derive(Debug, Clone)]
pub enum Ground {
    /// A new etcd for each round.
    Private {
        /// The binary; `None` = the one in `$PATH`.
        binary: Option<PathBuf>,
        /// Below which folder it keeps its data; `None` = the system's for temporary files.
        data_dir: Option<PathBuf>,
        /// How many members it has.
        members: usize,
    },
    /// An etcd that runs.
    Yours(Box<StoreSettings>, Prefix),
}

/// Where a round is run.
pub struct Place {
    settings: StoreSettings,
    prefix: Prefix,
    /// The members of the private etcd, and the folder of their data.
    etcd: Option<(Vec<PrivateEtcd>, TempDir)>,
    version: String,
    /// Tasks of this process before the round.
    tasks: usize,
}

/// What a round started ends within a moment after it: 20,000 agents in a tenth of a second.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Waits until no more tasks than these are alive. etcd is stopped after the views, agents and connections of a round: each that
/// was left would report that etcd went away, and a reader would take that for a failure.
async fn until_ended(tasks: usize) {
    let deadline = Instant::now() + END_LIMIT;
    while Handle::current().metrics().num_alive_tasks() > tasks && Instant::now() < deadline {
        sleep(Duration::from_millis(2)).await;
    }
}

impl Ground {
    /// A place for the next round.
    ///
    /// # Errors
    /// When there is no etcd, or the prefix is in use.
    pub async fn place(&self) -> anyhow::Result<Place> {
        let tasks = Handle::current().metrics().num_alive_tasks();
        match self {
            Ground::Private { binary, data_dir, members } => {
                let mut builder = tempfile::Builder::new();
                let builder = builder.prefix("enlist-bench-");
                let folder = match data_dir {
                    Some(dir) => {
                        std::fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
                        builder.tempdir_in(dir)
                    }
                    None => builder.tempdir(),
                }
                .context("failed to make a folder for etcd's data")?;
                let etcd = PrivateEtcd::start_members(binary.as_deref(), folder.path(), *members).await?;
                let settings = StoreSettings::endpoints(etcd.iter().map(PrivateEtcd::endpoint));
                let version = etcd.first().map(|etcd| etcd.version().to_owned()).unwrap_or_default();
                Ok(Place { settings, prefix: Prefix::default(), etcd: Some((etcd, folder)), version, tasks })
            }
            Ground::Yours(settings, prefix) => Place::yours(settings, prefix).await,
        }
    }

    /// Two places: two private etcds, or two prefixes in yours.
    ///
    /// # Errors
    /// As [`Ground::place`].
    pub async fn pair(&self) -> anyhow::Result<(Place, Place)> {
        match self {
            Ground::Private { .. } => Ok((self.place().await?, self.place().await?)),
            Ground::Yours(settings, prefix) => {
                let below = |name: &str| format!("{}/{name}", prefix.as_str()).parse::<Prefix>();
                let (source, destination) = (below("source")?, below("destination")?);
                Ok((Place::yours(settings, &source).await?, Place::yours(settings, &destination).await?))
            }
        }
    }
}

impl Place {
    async fn yours(settings: &StoreSettings, prefix: &Prefix) -> anyhow::Result<Place> {
        let store = Store::connect(settings.clone()).await?;
        let there = store
            .range(crate::store::api::RangeRequest { count_only: true, ..crate::store::api::RangeRequest::all(prefix.range()) });
        let count = there.await.with_context(|| format!("failed to look below {prefix}/"))?.count;
        anyhow::ensure!(count == 0, "there are {count} keys below {prefix}/: a bench needs a prefix of its own (--prefix)");
        let version = store.member().await?.version;
        Ok(Place { settings: settings.clone(), prefix: prefix.clone(), etcd: None, version, tasks: 0 })
    }

    /// A site with a connection of its own.
    ///
    /// # Errors
    /// When an endpoint cannot be understood.
    pub fn site(&self) -> anyhow::Result<Site> {
        Ok(Site { store: Store::open(self.settings.clone())?, prefix: self.prefix.clone() })
    }

    /// Whether it is in an etcd that was there before.
    pub fn is_yours(&self) -> bool {
        self.etcd.is_none()
    }

    /// etcd's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the private etcd, or its first member, listens.
    pub fn private_endpoint(&self) -> Option<&str> {
        Some(self.etcd.as_ref()?.0.first()?.endpoint())
    }

    /// Kills the private etcd, as a power cut would.
    ///
    /// # Errors
    /// When it is not a private one.
    pub async fn kill_etcd(&mut self) -> anyhow::Result<()> {
        for member in &mut self.etcd.as_mut().context("an etcd that is not private is not killed")?.0 {
            member.kill().await;
        }
        Ok(())
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_etcd_again(&mut self) -> anyhow::Result<()> {
        if let Some((etcd, folder)) = self.etcd.take() {
            let again = futures::future::try_join_all(etcd.into_iter().map(PrivateEtcd::start_again)).await?;
            self.etcd = Some((again, folder));
        }
        Ok(())
    }

    /// Processor seconds that the private etcd has used, all members together.
    pub fn etcd_cpu(&self) -> Option<f64> {
        self.etcd.as_ref()?.0.iter().map(|member| cpu_seconds(member.pid())).sum()
    }

    /// Leaves nothing behind.
    ///
    /// # Errors
    /// When what was written into your etcd cannot be removed.
    pub async fn clear(self) -> anyhow::Result<()> {
        match self.etcd {
            Some((etcd, _folder)) => {
                until_ended(self.tasks).await;
                futures::future::join_all(etcd.into_iter().map(PrivateEtcd::stop)).await;
            }
            None => {
                let store = Store::connect(self.settings).await?;
                let txn = Txn { then: vec![Op::Delete(self.prefix.range())], ..Txn::default() };
                store.txn(txn).await.with_context(|| format!("failed to remove what is below {}/", self.prefix))?;
            }
        }
        Ok(())
    }
}
