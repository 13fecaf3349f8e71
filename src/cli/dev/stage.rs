//! Roles and sample nodes in this process, and the loop that prints their events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::folder::Folder;
use super::nodes::sample;
use super::story::Story;
use crate::agent::os::OsHost;
use crate::agent::{self, AgentExit, AgentSettings};
use crate::cli::content::{Content, ranges};
use crate::cli::get::print::fitted;
use crate::cli::run::{self, Stores};
use crate::cli::show::group::GroupObject;
use crate::cli::show::member::MemberObject;
use crate::cli::show::node::NodeObject;
use crate::cli::show::pool::PoolObject;
use crate::cli::show::{Shown, Stores as Contents};
use crate::cli::{content, output, site};
use crate::config::Loaded;
use crate::model::names::NodeId;
use crate::shutdown::Shutdown;
use crate::store::feed::{Feed, FeedSettings, Scope, Update};
use crate::store::keys::{ParsedKey, Role};

/// The result of a demonstration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// Every sample node is registered and in its groups.
    AllRegistered,
    /// The user stopped the demonstration before.
    Stopped,
}

/// All tasks of this process.
pub(super) struct Stage {
    agents: JoinSet<(NodeId, AgentExit)>,
    ids: BTreeSet<NodeId>,
    agents_stop: Shutdown,
    roles: JoinSet<(Role, anyhow::Result<()>)>,
    roles_stop: Shutdown,
    source: Content,
    manager: Content,
    source_feed: Feed,
    manager_feed: Feed,
    story: Story,
}

/// The limit for an orderly stop.
const PATIENCE: Duration = Duration::from_secs(15);

impl Stage {
    /// Starts the roles and nodes.
    pub(super) fn open(loaded: &Loaded, stores: &Stores, folder: &Folder, nodes: u16) -> anyhow::Result<Stage> {
        let (roles_stop, agents_stop) = (Shutdown::default(), Shutdown::default());
        let roles = run::start(&Role::ALL, stores, loaded, &site::context(roles_stop.orderly.clone()))?;
        let feed = |site: &crate::reconcile::Site, folder: &str| {
            let scope = Scope { ranges: ranges(&site.prefix, &[folder]) };
            Feed::open(site.store.clone(), scope, FeedSettings::default(), fastrand::Rng::new())
        };
        let mut stage = Stage {
            agents: JoinSet::new(),
            ids: BTreeSet::new(),
            agents_stop,
            roles,
            roles_stop,
            source: Content::empty(stores.source.prefix.clone()),
            manager: Content::empty(stores.manager.prefix.clone()),
            source_feed: feed(&stores.source, "nodes"),
            manager_feed: feed(&stores.manager, "manager/groups"),
            story: Story::default(),
        };
        let program = std::env::current_exe().context("failed to find this program")?;
        for n in 0..nodes {
            stage.start(sample(n, |id| folder.node(id), program.clone().into())?, stores)?;
        }
        Ok(stage)
    }

    fn start(&mut self, settings: AgentSettings, stores: &Stores) -> anyhow::Result<()> {
        let id = settings.id.clone();
        let host = OsHost::new(&settings)?;
        let mut context = site::context(self.agents_stop.orderly.clone());
        context.identity = format!("{}:{id}", context.identity);
        let run = agent::run(stores.source.clone(), settings, context, Arc::clone(&host) as Arc<dyn agent::host::Host>);
        self.ids.insert(id.clone());
        self.agents.spawn(async move { (id, run.await) });
        Ok(())
    }

    /// Prints events until all nodes are registered.
    ///
    /// # Errors
    /// When a role or a node ends early, or not all nodes are registered within `limit`.
    pub(super) async fn play(&mut self, limit: Option<Duration>, shutdown: &Shutdown) -> anyhow::Result<Scene> {
        let deadline = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        while !self.all_registered() {
            tokio::select! {
                step = self.step() => step?,
                () = shutdown.orderly.cancelled() => return Ok(Scene::Stopped),
                () = &mut deadline => anyhow::bail!(
                    "not all nodes are registered and in a group after {} s: {}",
                    limit.unwrap_or_default().as_secs(),
                    self.missing().join(", ")
                ),
            }
        }
        Ok(Scene::AllRegistered)
    }

    /// Prints events until the user stops the demonstration.
    pub(super) async fn wait(&mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                step = self.step() => step?,
                () = shutdown.orderly.cancelled() => return Ok(()),
            }
        }
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            update = self.source_feed.next() => self.tell(update),
            update = self.manager_feed.next() => {
                self.manager.apply(update);
                Ok(())
            }
            Some(ended) = self.agents.join_next() => {
                let (id, exit) = ended.context("a sample node's task failed")?;
                anyhow::bail!("sample node {id} ended: {}", exit.error().unwrap_or_else(|| "without a reason".into()))
            }
            Some(ended) = self.roles.join_next() => match ended.context("a role's task failed")? {
                (role, Ok(())) => anyhow::bail!("the {role} ended without being asked to"),
                (role, Err(error)) => Err(error.context(format!("the {role} ended"))),
            },
        }
    }

    /// Prints event by event, so that no step of a node is lost in a burst.
    fn tell(&mut self, update: Update) -> anyhow::Result<()> {
        match update {
            Update::Events { revision, events } => {
                for event in events {
                    let changed = match self.source.prefix.parse(event.key()) {
                        ParsedKey::Node(node, _) => Some(node),
                        _ => None,
                    };
                    self.source.apply(Update::Events { revision, events: vec![event] });
                    self.lines(changed)?;
                }
                Ok(())
            }
            reset => {
                self.source.apply(reset);
                let nodes: Vec<NodeId> = self.source.nodes().into_keys().collect();
                self.lines(nodes)
            }
        }
    }

    fn lines(&mut self, changed: impl IntoIterator<Item = NodeId>) -> anyhow::Result<()> {
        let nodes = self.source.nodes();
        for node in changed.into_iter().filter(|node| self.ids.contains(node)) {
            if let Some(record) = nodes.get(&node) {
                self.story.tell(&node, record).iter().try_for_each(output::line)?;
            }
        }
        Ok(())
    }

    fn all_registered(&self) -> bool {
        self.missing().is_empty()
    }

    /// The nodes that are not yet registered at the source and ready in a group, which is the whole way.
    fn missing(&self) -> Vec<String> {
        let stores = Contents { source: Some(&self.source), manager: Some(&self.manager) };
        let phases: BTreeMap<String, String> = NodeObject::list(stores).into_iter().map(|node| (node.id, node.phase)).collect();
        let ready: BTreeSet<String> =
            MemberObject::list(stores).into_iter().filter(|member| member.state == "ready").map(|member| member.node).collect();
        let missing = self.ids.iter().filter_map(|id| match phases.get(id.as_str()).map(String::as_str) {
            Some("registered") if ready.contains(id.as_str()) => None,
            Some("registered") => Some(format!("{id} (in no group)")),
            phase => Some(format!("{id} ({})", phase.unwrap_or("not there"))),
        });
        missing.collect()
    }

    /// Prints the tables, and commands to paste.
    pub(super) async fn show(&self, stores: &Stores, loaded: &Loaded) -> anyhow::Result<()> {
        let source = content::read(&stores.source, &["claims", "nodes", "pools"]).await?;
        let manager = content::read(&stores.manager, &["groups", "manager/groups"]).await?;
        let contents = Contents { source: Some(&source), manager: Some(&manager) };
        let now = std::time::SystemTime::now();
        for text in [
            fitted(&NodeObject::list(contents), now).render(),
            fitted(&PoolObject::list(contents), now).render(),
            fitted(&GroupObject::list(contents), now).render(),
        ] {
            output::print(&format!("\n{text}"))?;
        }
        output::print(&paste(loaded, &self.ids))
    }

    /// Stops the nodes, then the roles, so that the roles still process the last writes of the nodes.
    pub(super) async fn close(mut self) {
        output::say("stopping");
        self.agents_stop.orderly.cancel();
        let all = async { while self.agents.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::warn!("sample nodes did not stop in time");
        }
        self.roles_stop.orderly.cancel();
        if let Err(error) = run::supervise(&mut self.roles, &self.roles_stop, PATIENCE).await {
            tracing::warn!(%error, "a role did not stop cleanly");
        }
    }
}

/// Lines to paste into another terminal.
fn paste(loaded: &Loaded, ids: &BTreeSet<NodeId>) -> String {
    let source = &loaded.settings.source;
    let endpoints = source.endpoints.0.join(",");
    let node = ids.first().map_or("sample-1", |id| id.as_str());
    let program = std::env::args_os().next().map_or_else(|| "enlist".into(), |program| program.to_string_lossy().into_owned());
    let default = crate::store::keys::Prefix::default().to_string();
    let prefix = if source.prefix == default { String::new() } else { format!(" --prefix {}", source.prefix) };
    let enlist = format!("{program} --endpoints {endpoints}{prefix}");
    format!(
        "\nLook at it from another terminal:\n\
         \x20 etcdctl --endpoints {endpoints} get --prefix {0}/nodes/{node}/\n\
         \x20 etcdctl --endpoints {endpoints} watch --prefix {0}/\n\
         \x20 {enlist} get nodes -w\n\
         \x20 {enlist} explain node {node}\n\
         \x20 {enlist} get members web\n\n",
        source.prefix
    )
}
