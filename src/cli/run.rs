//! `enlist run`: the roles, in one process. Any number of copies may run; one of each role leads, the others stand by.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::args::{Common, FlagSettings};
use super::exit::Exit;
use super::reload::{self, Reloaded};
use super::site::{self, Door};
use crate::config::Loaded;
use crate::reconcile::standby::{self, Admissions, Standing};
use crate::reconcile::{Context, Site};
use crate::relay::guard::Refusal;
use crate::shutdown::Shutdown;
use crate::store::api::StoreError;
use crate::store::keys::Role;
use crate::{allocator, manager, relay, telemetry};

/// Run the roles: allocator, relay, manager (default: all three)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which: allocator, relay, manager
    #[arg(value_name = "ROLE")]
    roles: Vec<Role>,
    #[command(flatten)]
    relay: RelayFlags,
    /// After a restore of etcd while the roles were stopped: grant only what nodes reclaim for a while
    #[arg(long)]
    after_restore: bool,
}

/// Flags of the relay.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RelayFlags {
    /// The source's name in the destination's checkpoint [default: default]
    #[arg(long, value_name = "NAME")]
    source_name: Option<String>,
    /// Take over a destination that holds the copies of another source
    #[arg(long)]
    adopt: bool,
    /// Let a source that is empty altogether empty the destination
    #[arg(long)]
    allow_empty: bool,
}

impl Args {
    fn flags(&self) -> FlagSettings {
        let mut flags = FlagSettings::default();
        flags.value("--source-name", "relay.source_name", self.relay.source_name.as_deref());
        flags.switch("--adopt", "relay.adopt", self.relay.adopt, true);
        flags.switch("--allow-empty", "relay.allow_empty", self.relay.allow_empty, true);
        flags.switch("--after-restore", "allocator.after_restore", self.after_restore, true);
        flags
    }
}

/// Runs until a signal, or until a role ends by itself.
pub async fn run(common: Common, args: Args) -> anyhow::Result<Exit> {
    let flags = args.flags();
    let loaded = common.settings(flags.clone())?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, true), None);
    let shutdown = Shutdown::but_hangup().context("failed to listen for signals")?;
    let mut roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles };
    roles.sort();
    roles.dedup();
    let stores = Stores::open(&loaded)?;
    let reloaded: Vec<Reloaded> =
        vec![(stores.source.store.clone(), Loaded::source), (stores.manager.store.clone(), Loaded::manager)];
    let _reloads = reload::on_hangup(common, flags, reloaded)?;
    stores.source.store.look_out();
    stores.manager.store.look_out();
    let context = site::context(shutdown.orderly.clone());
    tracing::info!(roles = ?roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(), identity = %context.identity, "started");
    let mut tasks = start(&roles, &stores, &loaded, &context)?;
    supervise(&mut tasks, &shutdown, loaded.settings.roles.stop_timeout.0).await?;
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// The stores of the roles.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Where nodes register.
    pub source: Site,
    /// Where relay and manager write.
    pub manager: Site,
}

impl Stores {
    /// Both, without any contact.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn open(loaded: &Loaded) -> anyhow::Result<Stores> {
        Ok(Stores { source: site::open(loaded.source()?)?, manager: site::open(loaded.manager()?)? })
    }

    /// What this role must be let in at before it begins.
    fn doors(&self, role: Role) -> Vec<(Site, Door)> {
        let source = (self.source.clone(), Door::Nodes);
        let manager = (self.manager.clone(), Door::Manager);
        match role {
            Role::Allocator => vec![source],
            Role::Relay => vec![source, manager],
            Role::Manager => vec![manager],
        }
    }
}

/// A role's task: its name, and how it ended.
type Ended = (Role, anyhow::Result<()>);

/// Starts the tasks of these roles, each with its own first contact: a store that is away keeps only those back that need it.
///
/// # Errors
/// When a setting is wrong.
pub fn start(roles: &[Role], stores: &Stores, loaded: &Loaded, context: &Context) -> anyhow::Result<JoinSet<Ended>> {
    let mut tasks = JoinSet::new();
    let admissions = Admissions::new(roles.len());
    let is_final = if roles.len() == 1 { ends_alone } else { |_: &anyhow::Error| false };
    for role in roles.iter().copied() {
        let work = work(role, stores.clone(), loaded, context.clone())?;
        let (doors, asking) = (stores.doors(role), context.clone());
        let contact = Box::new(move || contact(role, doors.clone(), asking.clone()).boxed());
        let standing = Standing { role, contact, work, is_final };
        add(&mut tasks, role, standing.run(admissions.clone(), context.clone()).boxed());
    }
    Ok(tasks)
}

/// What stops the only role of a process ends it, but for a newer format: a process that ends is started again, for nothing.
fn ends_alone(error: &anyhow::Error) -> bool {
    !matches!(error.downcast_ref(), Some(Refusal::Newer(_)))
}

type Work = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send>;

fn work(role: Role, stores: Stores, loaded: &Loaded, context: Context) -> anyhow::Result<Work> {
    let Stores { source, manager } = stores;
    Ok(match role {
        Role::Allocator => {
            let settings = loaded.allocator()?;
            Box::new(move || allocator::run(source.clone(), settings.clone(), context.clone()).boxed())
        }
        Role::Relay => {
            let settings = loaded.relay()?;
            Box::new(move || relay::run(source.clone(), manager.clone(), settings.clone(), context.clone()).boxed())
        }
        Role::Manager => {
            let settings = loaded.manager_role()?;
            Box::new(move || manager::run(manager.clone(), settings.clone(), context.clone()).boxed())
        }
    })
}

async fn contact(role: Role, doors: Vec<(Site, Door)>, context: Context) -> Result<Option<()>, StoreError> {
    for (site, door) in doors {
        if standby::first_contact(role, &context, || site::knock(&site, door)).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// A role that panics ends as one that failed: the process must not go on without it, and says which it was.
fn add(tasks: &mut JoinSet<Ended>, role: Role, task: BoxFuture<'static, anyhow::Result<()>>) {
    tasks.spawn(async move {
        let ended = AssertUnwindSafe(task).catch_unwind().await;
        (role, ended.unwrap_or_else(|panic| Err(anyhow::anyhow!("it panicked: {}", words(&*panic)))))
    });
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("without a word")
}

/// Waits for the tasks: for ever while they run, and for `patience` once they were asked to stop.
///
/// # Errors
/// When a role ended without being asked to, with its name.
pub async fn supervise(tasks: &mut JoinSet<Ended>, shutdown: &Shutdown, patience: Duration) -> anyhow::Result<()> {
    let deadline = async {
        shutdown.orderly.cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(patience) => {}
            () = shutdown.immediate.cancelled() => {}
        }
    };
    tokio::pin!(deadline);
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            () = &mut deadline => {
                tracing::warn!(tasks = tasks.len(), "still running after the stop time-out; dropped");
                tasks.shutdown().await;
                return Ok(());
            }
        };
        match ended {
            None => return Ok(()),
            Some(Err(error)) => return Err(error).context("a role's task failed"),
            Some(Ok((role, Err(error)))) => return Err(error.context(format!("the {role} ended"))),
            Some(Ok((_, Ok(())))) if shutdown.orderly.is_cancelled() => {}
            Some(Ok((role, Ok(())))) => anyhow::bail!("the {role} ended without being asked to"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[tokio::test]
    async fn a_role_that_ends_by_itself_ends_all_with_its_name() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { (Role::Relay, Ok(())) });
        tasks.spawn(async { std::future::pending().await });
        let error = supervise(&mut tasks, &Shutdown::default(), Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "the relay ended without being asked to");
    }

    #[tokio::test]
    async fn a_role_that_panics_ends_all_with_its_name() {
        let mut tasks = JoinSet::new();
        add(&mut tasks, Role::Manager, Box::pin(async { panic!("no {}", "way") }));
        let error = supervise(&mut tasks, &Shutdown::default(), Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the manager ended: it panicked: no way");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_in_time_is_dropped() {
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        tasks.spawn(async { std::future::pending().await });
        let shutdown = Shutdown::default();
        shutdown.orderly.cancel();
        supervise(&mut tasks, &shutdown, Duration::from_secs(8)).await.unwrap();
        assert!(tasks.is_empty());
    }
}
