//! What an agent does to its host, behind a trait: the simulation has one of its own, [`super::os::OsHost`] is the real one.
//!
//! One value per agent. Every call may be dropped at any await: what it started (a hook, a connection) ends with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::decide::applied::{Applied, Given};
use super::decide::identity::{Place, RecordedRun};
use super::decide::word::Word;
use super::settings::AgentSettings;
use crate::model::names::{BootId, InstanceId, RunId};

/// Why something on the host failed. `Display` is one line for people; it fits a status' message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Another agent runs with this state directory.
    #[error("{0}")]
    Locked(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl HostError {
    /// A failure: what was done, and the cause.
    pub fn failed(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        HostError::Failed(format!("{what}: {cause}"))
    }
}

/// The opened state directory.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Which installation this is.
    pub instance: InstanceId,
    /// This process, already recorded.
    pub run: RunId,
    /// This boot of the host.
    pub boot: BootId,
    /// Where the directory is.
    pub place: Place,
    /// Every recorded run, this one included.
    pub runs: Vec<RecordedRun>,
    /// What an earlier process applied.
    pub applied: Option<Applied>,
    /// A process of this directory joined, and no last word of it was acknowledged since.
    pub registered: bool,
}

/// What the temporary endpoint tells: who answers there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Face {
    /// The format's version.
    pub v: u64,
    /// The node.
    pub id: String,
    /// The installation.
    pub instance: String,
    /// The process.
    pub run: String,
    /// The host's name.
    pub host: String,
    /// How far it is: the status' phase; empty = it has not joined (it may never).
    #[serde(default)]
    pub phase: String,
    /// The generation in use; 0 = none.
    #[serde(default)]
    pub generation: i64,
    /// Addresses in use.
    #[serde(default)]
    pub addresses: Vec<std::net::IpAddr>,
    /// Ports in use.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// Why it waits or fails.
    #[serde(default)]
    pub message: String,
    /// What it was given is in use and serves, also while etcd is away.
    #[serde(default)]
    pub ready: bool,
}

/// Why a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookEvent {
    /// A first assignment.
    Assigned,
    /// Another one.
    Changed,
    /// It is no longer used.
    Withdrawn,
}

impl HookEvent {
    /// The word in `ENLIST_EVENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            HookEvent::Assigned => "assigned",
            HookEvent::Changed => "changed",
            HookEvent::Withdrawn => "withdrawn",
        }
    }
}

/// A running child. It is ended by [`Child::signal`] and dies with the agent.
pub trait Child: Send + Sync {
    /// Its process id, for logs.
    fn pid(&self) -> u32;
    /// Sends a signal to the child alone. Errors mean that it has ended.
    fn signal(&self, signal: i32);
    /// Sends a signal to its whole process group.
    fn signal_group(&self, signal: i32);
    /// Its exit code once it has ended; 128 + n for a signal. May be awaited any number of times.
    fn ended(&self) -> BoxFuture<'static, i32>;
}

/// Somebody asked this agent to leave.
#[derive(Debug)]
pub struct LeaveRequest {
    /// The answer; `Ok` = it left.
    pub reply: oneshot::Sender<Result<(), String>>,
    /// Ends when the answer was passed on, or cannot be: the process may end then.
    pub delivered: oneshot::Receiver<()>,
}

/// Variables that are set while an agent runs, on top of its settings; `None` = the node goes without that one.
pub type SetVariables = BTreeMap<String, Option<String>>;

/// Somebody asked this agent to change what it says of its node. The answer is one line: what has changed.
#[derive(Debug)]
pub enum ChangeRequest {
    /// To set variables.
    Set(SetVariables, oneshot::Sender<Result<String, String>>),
    /// To read its settings again.
    Reload(oneshot::Sender<Result<String, String>>),
}

/// Everything an agent does to its host.
pub trait Host: Send + Sync + 'static {
    /// Locks the state directory, loads or makes the instance (`wanted` goes before), makes and records this process' run.
    fn open(&self, wanted: Option<InstanceId>) -> BoxFuture<'_, Result<Opened, HostError>>;
    /// Records what is applied, durably; `None` = nothing.
    fn remember(&self, applied: Option<Applied>) -> BoxFuture<'_, Result<(), HostError>>;
    /// Records the last status that this process wrote, durably. A host without a memory does nothing.
    fn remember_word(&self, _word: Word) -> BoxFuture<'_, Result<(), HostError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// The last status that an earlier process of this very directory wrote when it ended in order.
    fn last_word(&self) -> BoxFuture<'_, Option<Word>> {
        Box::pin(std::future::ready(None))
    }
    /// Records, durably, that a process of this directory joined, or that its last word was acknowledged.
    fn remember_registered(&self, _registered: bool) -> BoxFuture<'_, Result<(), HostError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Opens the temporary endpoint, which tells `face` for as long as this host lives.
    fn listen(&self, face: watch::Receiver<Face>) -> BoxFuture<'_, Result<SocketAddr, HostError>>;
    /// Asks a temporary endpoint who is there; `None` = nobody that answers sensibly within two seconds.
    fn ask(&self, at: SocketAddr) -> BoxFuture<'_, Option<Face>>;
    /// Which of these something else on this host listens on. An address that is not local is not looked at.
    fn in_use(&self, sockets: Vec<SocketAddr>) -> BoxFuture<'_, Vec<SocketAddr>>;
    /// Writes the files whose content changes.
    fn write_files(&self, given: Given) -> BoxFuture<'_, Result<(), HostError>>;
    /// Whether there is a hook.
    fn has_hook(&self) -> bool;
    /// Runs the hook, if there is one; dropped = killed. `previous` = what was in use before a change.
    fn run_hook(&self, event: HookEvent, given: Given, previous: Option<Given>) -> BoxFuture<'_, Result<(), HostError>>;
    /// Whether there is a child to start.
    fn has_child(&self) -> bool;
    /// Starts the child.
    fn start_child(&self, given: Given) -> BoxFuture<'_, Result<Arc<dyn Child>, HostError>>;
    /// Whether something accepts connections there.
    fn accepts(&self, at: SocketAddr) -> BoxFuture<'_, bool>;
    /// Facts of the host: `host/…` → value, valid as variables.
    fn facts(&self) -> BTreeMap<String, String>;
    /// The host's name, for people.
    fn name(&self) -> String;
    /// A clock that runs while the host is suspended.
    fn since_boot(&self) -> Duration;
    /// The next request to leave. Cancel-safe.
    fn leave_requested(&self) -> BoxFuture<'_, LeaveRequest>;
    /// The next request to change what the agent says. Cancel-safe.
    fn change_requested(&self) -> BoxFuture<'_, ChangeRequest> {
        Box::pin(std::future::pending())
    }
    /// The agent's settings, read again from where they came from.
    fn reload(&self) -> BoxFuture<'static, Result<AgentSettings, HostError>> {
        Box::pin(std::future::ready(Err(HostError::Failed("this agent has no settings that can be read again".into()))))
    }
    /// The variables that files are written with from now on.
    fn set_variables(&self, _variables: BTreeMap<String, String>) {}
    /// Ends when somebody does not want to wait for an orderly end: what may still be given up quickly is.
    fn hurried(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    /// The next signal for the child. Cancel-safe.
    fn signal_for_child(&self) -> BoxFuture<'_, i32>;
}
