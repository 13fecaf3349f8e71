//! The real host of an agent: Linux.
//!
//! [`state`] keeps the state directory, [`endpoint`] the temporary endpoint, [`files`] writes templates, [`process`]
//! starts hooks and children, [`facts`] reads the facts of the host. Nothing here decides anything about the
//! registration.

pub mod state;
pub mod endpoint;
pub mod files;
pub mod process;
pub mod spawner;
mod death;
pub mod reaper;
pub mod signals;
pub mod facts;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::state::StateDir;
use super::decide::applied::{Applied, Given};
use super::decide::word::Word;
use super::host::{ChangeRequest, Child, Face, HookEvent, Host, HostError, LeaveRequest, Opened};
use super::settings::AgentSettings;
use super::socket;
use crate::model::names::{InstanceId, NodeId};

/// A port accepts if a connection is accepted within this time.
const ACCEPT_LIMIT: Duration = Duration::from_secs(1);

/// Reads the agent's settings again.
pub type Reload = Arc<dyn Fn() -> Result<AgentSettings, String> + Send + Sync>;

/// What an agent has of the process around it.
#[derive(Clone, Default)]
pub struct Outside {
    /// Reads the settings again; `None` = they come from code. It may read files: it runs off the async threads.
    pub reload: Option<Reload>,
    /// Cancelled when nobody wants to wait for an orderly end any more.
    pub hurry: CancellationToken,
}

/// Linux.
pub struct OsHost {
    settings: AgentSettings,
    state_dir: PathBuf,
    state: Arc<Mutex<Option<StateDir>>>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
    outside: Outside,
    /// What files are written with.
    variables: Mutex<BTreeMap<String, String>>,
    requests: socket::Requests,
    leave: tokio::sync::Mutex<mpsc::Receiver<LeaveRequest>>,
    change: tokio::sync::Mutex<mpsc::Receiver<ChangeRequest>>,
    signals: tokio::sync::Mutex<Option<mpsc::Receiver<i32>>>,
}

impl std::fmt::Debug for OsHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OsHost").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

impl OsHost {
    /// The host for an agent with these settings. It opens nothing yet.
    ///
    /// # Errors
    /// When no state directory is given and none can be derived from the environment.
    pub fn new(settings: &AgentSettings) -> Result<Arc<OsHost>, HostError> {
        OsHost::within(settings, Outside::default())
    }

    /// The same, with what the process around it gives.
    ///
    /// # Errors
    /// As [`OsHost::new`].
    pub fn within(settings: &AgentSettings, outside: Outside) -> Result<Arc<OsHost>, HostError> {
        let state_dir = match &settings.state_dir {
            Some(dir) => dir.clone(),
            None => default_state_dir(&settings.id)?,
        };
        let (leave_send, leave) = mpsc::channel(1);
        let (change_send, change) = mpsc::channel(1);
        Ok(Arc::new(OsHost {
            settings: settings.clone(),
            state_dir,
            state: Arc::new(Mutex::new(None)),
            tasks: Mutex::new(Vec::new()),
            outside,
            variables: Mutex::new(settings.said_variables()),
            requests: socket::Requests { leave: leave_send, change: change_send },
            leave: tokio::sync::Mutex::new(leave),
            change: tokio::sync::Mutex::new(change),
            signals: tokio::sync::Mutex::new(None),
        }))
    }

    fn keep(&self, task: tokio::task::JoinHandle<()>) {
        if let Ok(mut tasks) = self.tasks.lock() {
            tasks.push(AbortOnDropHandle::new(task));
        }
    }
}

/// `/var/lib/enlist/<id>` for root, else `$XDG_STATE_HOME/enlist/<id>` (`~/.local/state` if that is not set).
///
/// # Errors
/// When neither `XDG_STATE_HOME` nor `HOME` is set.
pub fn default_state_dir(id: &NodeId) -> Result<PathBuf, HostError> {
    let base = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/lib")
    } else if let Some(dir) = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        PathBuf::from(dir)
    } else if let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        PathBuf::from(home).join(".local/state")
    } else {
        return Err(HostError::Failed("no state directory: give --state-dir, or set XDG_STATE_HOME or HOME".into()));
    };
    Ok(base.join("enlist").join(id.as_str()))
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, HostError> + Send + 'static) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| HostError::failed("a file operation was interrupted", error))?
}

impl Host for OsHost {
    fn open(&self, wanted: Option<InstanceId>) -> BoxFuture<'_, Result<Opened, HostError>> {
        async move {
            let (dir, slot) = (self.state_dir.clone(), self.state.clone());
            let opened = blocking(move || {
                let (state, opened) = StateDir::open(&dir, wanted)?;
                if let Ok(mut slot) = slot.lock() {
                    *slot = Some(state);
                }
                Ok(opened)
            })
            .await?;
            match socket::serve(&self.state_dir, self.requests.clone()) {
                Ok(task) => self.keep(task),
                // Leaving from the node is a convenience; registering is not.
                Err(error) => warn!(%error, "failed to open the socket for requests; leave, set and reload do not work"),
            }
            if self.settings.forward_signals {
                self.keep(tokio::spawn(signals::reload_on_hangup(self.requests.change.clone())));
                if let Some(reaper) = reaper::start_if_init() {
                    self.keep(reaper);
                }
                if self.has_child() {
                    *self.signals.lock().await = Some(signals::listen());
                }
            }
            Ok(opened)
        }
        .boxed()
    }

    fn remember(&self, applied: Option<Applied>) -> BoxFuture<'_, Result<(), HostError>> {
        let slot = self.state.clone();
        blocking(move || match slot.lock() {
            Ok(guard) => guard.as_ref().map_or(Ok(()), |state| state.remember(applied.as_ref())),
            Err(_) => Err(HostError::Failed("the state directory's lock is poisoned".into())),
        })
        .boxed()
    }

    fn remember_word(&self, word: Word) -> BoxFuture<'_, Result<(), HostError>> {
        let slot = self.state.clone();
        blocking(move || match slot.lock() {
            Ok(guard) => guard.as_ref().map_or(Ok(()), |state| state.remember_word(&word)),
            Err(_) => Err(HostError::Failed("the state directory's lock is poisoned".into())),
        })
        .boxed()
    }

    fn remember_registered(&self, registered: bool) -> BoxFuture<'_, Result<(), HostError>> {
        let slot = self.state.clone();
        blocking(move || match slot.lock() {
            Ok(guard) => guard.as_ref().map_or(Ok(()), |state| state.remember_registered(registered)),
            Err(_) => Err(HostError::Failed("the state directory's lock is poisoned".into())),
        })
        .boxed()
    }

    fn last_word(&self) -> BoxFuture<'_, Option<Word>> {
        let slot = self.state.clone();
        blocking(move || Ok(slot.lock().ok().and_then(|guard| guard.as_ref()?.last_word())))
            .map(|word| word.ok().flatten())
            .boxed()
    }

    fn listen(&self, face: watch::Receiver<Face>) -> BoxFuture<'_, Result<SocketAddr, HostError>> {
        async move {
            let (address, task) = endpoint::listen(self.settings.temporary_listen, &self.settings.towards, face).await?;
            self.keep(task);
            Ok(address)
        }
        .boxed()
    }

    fn ask(&self, at: SocketAddr) -> BoxFuture<'_, Option<Face>> {
        endpoint::ask(at).boxed()
    }

    /// Checks by binding and listening. The standard library sets `SO_REUSEADDR`, as intended: without it the remaining
    /// connections (TIME_WAIT) of an ended service would count as use. A listener, on this address or on the wildcard,
    /// still fails the bind. TCP only.
    fn in_use(&self, sockets: Vec<SocketAddr>) -> BoxFuture<'_, Vec<SocketAddr>> {
        let taken = |socket: &SocketAddr| matches!(TcpListener::bind(socket), Err(error) if error.kind() == std::io::ErrorKind::AddrInUse);
        std::future::ready(sockets.into_iter().filter(taken).collect()).boxed()
    }

    fn write_files(&self, given: Given) -> BoxFuture<'_, Result<(), HostError>> {
        let files = self.settings.write.clone();
        let variables = self.variables.lock().map(|variables| variables.clone()).unwrap_or_default();
        if files.is_empty() {
            return std::future::ready(Ok(())).boxed();
        }
        blocking(move || files::write_all(&files, &given, &variables)).boxed()
    }

    fn has_hook(&self) -> bool {
        self.settings.exec.is_some()
    }

    fn run_hook(&self, event: HookEvent, given: Given, previous: Option<Given>) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let Some(hook) = &self.settings.exec else { return Ok(()) };
            let mut env = given.env();
            env.insert("ENLIST_EVENT".into(), event.as_str().into());
            if let Some(previous) = previous {
                env.extend(previous.previous_env());
            }
            process::run_hook(hook, &env, self.settings.hook_limit).await
        }
        .boxed()
    }

    fn has_child(&self) -> bool {
        !self.settings.command.is_empty()
    }

    fn start_child(&self, given: Given) -> BoxFuture<'_, Result<Arc<dyn Child>, HostError>> {
        async move { process::start_child(&self.settings.command, &given.env()).await }.boxed()
    }

    fn accepts(&self, at: SocketAddr) -> BoxFuture<'_, bool> {
        async move { matches!(timeout(ACCEPT_LIMIT, tokio::net::TcpStream::connect(at)).await, Ok(Ok(_))) }.boxed()
    }

    fn facts(&self) -> BTreeMap<String, String> {
        facts::gather()
    }

    fn name(&self) -> String {
        facts::hostname()
    }

    fn since_boot(&self) -> Duration {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        now.map(Duration::from).unwrap_or_default()
    }

    fn change_requested(&self) -> BoxFuture<'_, ChangeRequest> {
        async move {
            match self.change.lock().await.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'static, Result<AgentSettings, HostError>> {
        let Some(reload) = self.outside.reload.clone() else {
            return std::future::ready(Err(HostError::Failed("this agent's settings come from code".into()))).boxed();
        };
        blocking(move || reload().map_err(HostError::Failed)).boxed()
    }

    fn set_variables(&self, variables: BTreeMap<String, String>) {
        if let Ok(mut known) = self.variables.lock() {
            *known = variables;
        }
    }

    fn hurried(&self) -> BoxFuture<'_, ()> {
        self.outside.hurry.cancelled().boxed()
    }

    fn leave_requested(&self) -> BoxFuture<'_, LeaveRequest> {
        async move {
            match self.leave.lock().await.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn signal_for_child(&self) -> BoxFuture<'_, i32> {
        async move {
            let mut signals = self.signals.lock().await;
            match signals.as_mut() {
                Some(signals) => match signals.recv().await {
                    Some(signal) => signal,
                    None => std::future::pending().await,
                },
                None => {
                    // No signal can come, so this releases the lock, which `open` needs.
                    drop(signals);
                    std::future::pending().await
                }
            }
        }
        .boxed()
    }
}
