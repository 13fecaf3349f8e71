//! How a Rust service registers itself.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::actor::{AgentState, Order, Ties, run_tied};
use super::exit::{AgentExit, Ending};
use super::host::{Host, HostError, LeaveRequest};
use super::os::{OsHost, facts};
use super::settings::AgentSettings;
use crate::model::assignment::Assignment;
use crate::model::names::{NameError, NodeId, PortName};
use crate::model::status::Phase;
use crate::model::variables::{VariableError, Variables};
use crate::reconcile::{Context, Site, Wall};
use crate::store::api::{Store, StoreError};
use crate::store::keys::Prefix;
use crate::store::lease::Leases;

/// Why an agent did not register, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A name given to the builder is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A variable given to the builder is not valid.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// The settings do not work.
    #[error("{0}")]
    Settings(String),
    /// The id is somebody else's; the text names both sides.
    #[error("{0}")]
    Conflict(String),
    /// The store never let it in.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host does not let it work.
    #[error("{0}")]
    Host(String),
    /// It was stopped before it had an assignment.
    #[error("the agent was stopped before it had an assignment")]
    Stopped,
}

impl From<HostError> for AgentError {
    fn from(error: HostError) -> Self {
        AgentError::Host(error.to_string())
    }
}

impl From<AgentExit> for AgentError {
    fn from(exit: AgentExit) -> Self {
        match exit.ending {
            Ending::Stopped | Ending::Left | Ending::ChildEnded => AgentError::Stopped,
            Ending::Conflict(text) | Ending::Superseded(text) => AgentError::Conflict(text),
            Ending::Refused(error) => AgentError::Store(error),
            Ending::Settings(text) => AgentError::Settings(text),
            Ending::Host(text) => AgentError::Host(text),
        }
    }
}

impl From<Store> for Site {
    /// A store, with the default prefix.
    fn from(store: Store) -> Self {
        Site { store, prefix: Prefix::default() }
    }
}

/// Builds an agent that registers this process.
///
/// ```no_run
/// # async fn example(store: enlist::Store) -> Result<(), enlist::agent::AgentError> {
/// use enlist::Agent;
/// let registered = Agent::builder(store).id("edge-7").variable("zone", "eu-1").port("http").join().await?;
/// for socket in registered.sockets() {
///     println!("listening on {socket}");
/// }
/// registered.stop().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Agent {
    site: Site,
    settings: Result<AgentSettings, Arc<Fault>>,
    named_ports: bool,
    host: Option<Arc<dyn Host>>,
    context: Option<Context>,
    leases: Option<Arc<Leases>>,
}

/// The first thing that was wrong; it is told by [`Agent::join`].
#[derive(Debug)]
enum Fault {
    Name(NameError),
    Variable(VariableError),
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("site", &self.site).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent at this site (or store, then with the default prefix). Its id is the host's name unless [`Agent::id`] says
    /// another; it asks for an address and one port called `main` unless [`Agent::port`] or [`Agent::no_ports`] says otherwise.
    pub fn builder(site: impl Into<Site>) -> Agent {
        let id = facts::hostname().to_ascii_lowercase().parse::<NodeId>();
        let settings = id.map(AgentSettings::new).map_err(|error| Arc::new(Fault::Name(error)));
        Agent { site: site.into(), settings, named_ports: false, host: None, context: None, leases: None }
    }

    /// All settings at once, in place of what was said before.
    #[must_use]
    pub fn settings(mut self, settings: AgentSettings) -> Agent {
        self.settings = Ok(settings);
        self.named_ports = true;
        self
    }

    /// The node's id.
    #[must_use]
    pub fn id(mut self, id: &str) -> Agent {
        match (id.parse::<NodeId>(), &mut self.settings) {
            (Ok(id), Ok(settings)) => settings.id = id,
            // The host's name was no id; now there is one.
            (Ok(id), Err(_)) => self.settings = Ok(AgentSettings::new(id)),
            (Err(error), _) => self.settings = Err(Arc::new(Fault::Name(error))),
        }
        self
    }

    /// A variable that selectors see.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Agent {
        if let Ok(settings) = &mut self.settings
            && let Err(error) = settings.variables.insert(name, value)
        {
            self.settings = Err(Arc::new(Fault::Variable(error)));
        }
        self
    }

    /// Asks for a port of this name, beside those asked for before.
    #[must_use]
    pub fn port(mut self, name: &str) -> Agent {
        match (name.parse::<PortName>(), &mut self.settings) {
            (Ok(port), Ok(settings)) => {
                if !self.named_ports {
                    settings.ports.clear();
                }
                settings.ports.push(port);
                self.named_ports = true;
            }
            (Err(error), Ok(_)) => self.settings = Err(Arc::new(Fault::Name(error))),
            _ => {}
        }
        self
    }

    /// Asks for an address only.
    #[must_use]
    pub fn no_ports(self) -> Agent {
        let mut agent = self.change(|settings| settings.ports.clear());
        agent.named_ports = true;
        agent
    }

    /// For people.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Agent {
        let text = text.into();
        self.change(|settings| settings.description = text)
    }

    /// This address or nothing. At most one of each family.
    #[must_use]
    pub fn want_address(self, ip: IpAddr) -> Agent {
        self.change(|settings| settings.want.addresses.push(ip))
    }

    /// Where instance, runs and the applied assignment are kept.
    #[must_use]
    pub fn state_dir(self, dir: impl Into<PathBuf>) -> Agent {
        let dir = dir.into();
        self.change(|settings| settings.state_dir = Some(dir))
    }

    /// `host:port` of one of etcd's endpoints; may be given several times. The address of this host towards it is that of the
    /// temporary endpoint: other hosts with the same id ask there who holds it, and a `sharing: host` pool assigns it. Without
    /// it the temporary endpoint is on loopback.
    #[must_use]
    pub fn towards(self, endpoint: impl Into<String>) -> Agent {
        let endpoint = endpoint.into();
        self.change(|settings| settings.towards.push(endpoint))
    }

    /// Where the temporary endpoint listens, in place of a free port on the address [`Agent::towards`] etcd. Port 0 = any.
    #[must_use]
    pub fn temporary_listen(self, at: SocketAddr) -> Agent {
        self.change(|settings| settings.temporary_listen = Some(at))
    }

    /// TTL of the node's lease; whole seconds, at least 2. Default 15 s: a node that dies is silent after at most this.
    #[must_use]
    pub fn lease_ttl(self, ttl: Duration) -> Agent {
        self.change(|settings| settings.lease_ttl = ttl)
    }

    /// A stop is a leave; nothing is kept.
    #[must_use]
    pub fn ephemeral(self) -> Agent {
        self.change(|settings| settings.ephemeral = true)
    }

    /// [`Agent::join`] returns as soon as there is an assignment; the node is `registered` once its ports accept
    /// connections, which this service is to see to.
    #[must_use]
    pub fn registered_when_listening(self) -> Agent {
        self.change(|settings| settings.expect_listening = true)
    }

    /// Another host than this one: for simulations.
    #[must_use]
    pub fn host(mut self, host: Arc<dyn Host>) -> Agent {
        self.host = Some(host);
        self
    }

    /// Randomness, times and the order to stop, in place of one's own.
    #[must_use]
    pub fn context(mut self, context: Context) -> Agent {
        self.context = Some(context);
        self
    }

    /// Shares leases with others.
    pub(super) fn on_leases(mut self, leases: Arc<Leases>) -> Agent {
        self.leases = Some(leases);
        self
    }

    fn change(mut self, change: impl FnOnce(&mut AgentSettings)) -> Agent {
        if let Ok(settings) = &mut self.settings {
            change(settings);
        }
        self
    }

    /// Joins, and waits until there is an assignment that is acknowledged (with [`Agent::registered_when_listening`]: until
    /// there is one). A store that is away, and a pool that is full, are waited for: bound it with a time-out if need be.
    ///
    /// Dropping what this returns, while it waits or later, stops the agent in the background.
    ///
    /// # Errors
    /// What was wrong in the builder, and how the agent ended if it did.
    pub async fn join(self) -> Result<Registered, AgentError> {
        let settings = match self.settings {
            Ok(settings) => settings,
            Err(fault) => {
                return Err(match &*fault {
                    Fault::Name(error) => error.clone().into(),
                    Fault::Variable(error) => error.clone().into(),
                });
            }
        };
        let host: Arc<dyn Host> = match self.host {
            Some(host) => host,
            None => OsHost::new(&settings)?,
        };
        let shutdown = self.context.as_ref().map_or_else(CancellationToken::new, |context| context.shutdown.child_token());
        let context = match self.context {
            Some(context) => Context { shutdown: shutdown.clone(), ..context },
            None => Context {
                identity: format!("{}/{}", facts::hostname(), std::process::id()),
                seed: seed(),
                wall: Wall::system(),
                shutdown: shutdown.clone(),
            },
        };
        let early = settings.expect_listening;
        let (tell, state) = watch::channel(AgentState::new());
        let guard = shutdown.clone().drop_guard();
        let (orders, given) = mpsc::channel(1);
        let ties = Ties { tell, orders: given, leases: self.leases };
        let task = tokio::spawn(run_tied(self.site, settings, context, host, ties));
        wait(early, state, Running { task, guard, orders }).await
    }
}

/// A seed for jitter, out of the kernel's randomness.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

struct Running {
    task: JoinHandle<AgentExit>,
    guard: DropGuard,
    orders: mpsc::Sender<Order>,
}

async fn wait(early: bool, mut state: watch::Receiver<AgentState>, running: Running) -> Result<Registered, AgentError> {
    let registered = |told: &AgentState| told.assignment.is_some() && (early || (told.phase == Phase::Registered && told.joined));
    match state.wait_for(registered).await.map(|told| told.assignment.clone()) {
        Ok(Some(assignment)) => Ok(Registered { assignment, state, running }),
        _ => Err(ended(running.task.await).into()),
    }
}

fn ended(result: Result<AgentExit, tokio::task::JoinError>) -> AgentExit {
    result.unwrap_or_else(|error| Ending::Host(format!("the agent's task ended unexpectedly: {error}")).alone())
}

/// This process is registered, for as long as this lives.
pub struct Registered {
    /// What it was given when it registered. [`Registered::changed`] tells what comes later.
    pub assignment: Assignment,
    state: watch::Receiver<AgentState>,
    running: Running,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}

impl Registered {
    /// Every assigned port on every assigned address.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let bound = self.assignment.bound();
        bound
            .into_iter()
            .flat_map(|bound| bound.addresses.iter().flat_map(|ip| bound.ports.values().map(|port| SocketAddr::new(*ip, *port))))
            .collect()
    }

    /// How it is now.
    pub fn state(&self) -> AgentState {
        self.state.borrow().clone()
    }

    /// Waits for a change: another assignment, none (it was withdrawn: stop using it), or another phase. `None` = the agent
    /// has ended. [`Registered::assignment`] follows while there is one.
    pub async fn changed(&mut self) -> Option<AgentState> {
        self.state.changed().await.ok()?;
        let told = self.state.borrow_and_update().clone();
        if let Some(assignment) = &told.assignment {
            self.assignment = assignment.clone();
        }
        Some(told)
    }

    /// Says this of the node from now on: the whole set, facts of the host apart. Groups, and perhaps the pool, follow.
    ///
    /// # Errors
    /// [`AgentError::Settings`] when the label would be too large; nothing is changed then. [`AgentError::Stopped`] when the
    /// agent has ended.
    pub async fn set_variables(&self, variables: Variables) -> Result<(), AgentError> {
        let (reply, answer) = oneshot::channel();
        self.running.orders.send(Order::Variables(variables, reply)).await.map_err(|_| AgentError::Stopped)?;
        answer.await.map_err(|_| AgentError::Stopped)?.map_err(AgentError::Settings)
    }

    /// Stops: what it has is held for it.
    ///
    /// # Errors
    /// How the agent ended, if it had ended before for another reason.
    pub async fn stop(self) -> Result<(), AgentError> {
        let Running { task, guard, .. } = self.running;
        drop(guard);
        finished(ended(task.await))
    }

    /// Leaves for good: nothing is kept.
    ///
    /// # Errors
    /// How the agent ended, if it had ended before for another reason, or that the store could not be told.
    pub async fn leave(self) -> Result<(), AgentError> {
        let Running { task, guard: _guard, orders } = self.running;
        let (reply, answer) = oneshot::channel();
        let (_delivered, delivered) = oneshot::channel();
        // It may have ended already: then its exit says how.
        let _ = orders.send(Order::Leave(LeaveRequest { reply, delivered })).await;
        let (exit, answer) = tokio::join!(task, answer);
        finished(ended(exit))?;
        match answer {
            Ok(Err(text)) => Err(AgentError::Host(text)),
            _ => Ok(()),
        }
    }
}

fn finished(exit: AgentExit) -> Result<(), AgentError> {
    match exit.ending {
        Ending::Stopped | Ending::Left | Ending::ChildEnded => Ok(()),
        _ => Err(exit.into()),
    }
}
