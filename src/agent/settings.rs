//! Settings of one agent. Filled by the command line or the builder; nothing here reads a configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::host::SetVariables;
use crate::model::label::Want;
use crate::model::names::{InstanceId, NodeId, PortName};
use crate::model::variables::Variables;

/// TTL of the node's lease by default: a dead node is seen after at most this long.
pub const LEASE_TTL_DEFAULT: Duration = Duration::from_secs(15);
/// A child's ports must accept connections within this by default.
pub const READY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// A child gets so long between TERM and KILL by default.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(8);
/// A hook may take so long by default. With the stop time-out it makes one lease TTL, as `on_isolation: withdraw` demands.
pub const HOOK_LIMIT_DEFAULT: Duration = Duration::from_secs(7);

/// What one agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The node's id.
    pub id: NodeId,
    /// What selectors see. Facts of the host are added below these.
    pub variables: Variables,
    /// Variables that were set while the agent runs, on top of all others; `None` = the node goes without that one.
    pub set: SetVariables,
    /// For people.
    pub description: String,
    /// Free text that nothing selects on.
    pub annotations: BTreeMap<String, String>,
    /// The ports to ask for; empty = an address only.
    pub ports: Vec<PortName>,
    /// Certain addresses and ports or nothing.
    pub want: Want,
    /// Where `instance`, runs and the applied assignment are kept; `None` = `/var/lib/enlist/<id>`, or under
    /// `$XDG_STATE_HOME` when not root.
    pub state_dir: Option<PathBuf>,
    /// TTL of the node's lease; whole seconds, at least 2.
    pub lease_ttl: Duration,
    /// A stop is a leave; nothing is kept.
    pub ephemeral: bool,
    /// Which installation this is; `None` = the one in the state directory (made at the first start).
    pub instance: Option<InstanceId>,
    /// Take the id at the first join whoever holds it.
    pub replace: bool,
    /// Start with the last assignment when no etcd answers, in pools whose nodes keep what they have when isolated.
    pub offline_start: bool,
    /// How long the first join waits for a live holder that does not answer; `None` = 2 TTL.
    pub join_timeout: Option<Duration>,
    /// Leave `host/…` variables out.
    pub no_host_facts: bool,
    /// Acknowledge without a look at the ports.
    pub no_ready_check: bool,
    /// Look at the ports although there is no child: a service that embeds the agent listens itself.
    pub expect_listening: bool,
    /// The ports must accept connections within this, else `failed`.
    pub ready_timeout: Duration,
    /// Between the acknowledged `draining` and what puts an address out of use: the child's TERM, a hook's call.
    pub drain_time: Duration,
    /// Between TERM and KILL.
    pub stop_timeout: Duration,
    /// Where the temporary endpoint listens; `None` = a free port on the address towards etcd.
    pub temporary_listen: Option<SocketAddr>,
    /// `host:port` of etcd's endpoints: the address towards the first that is not this host itself is the temporary endpoint's, else that
    /// of the default route. Empty = loopback, where no other host can ask, and which a `sharing: host` pool would assign.
    pub towards: Vec<String>,
    /// Files to write from templates.
    pub write: Vec<WriteFile>,
    /// A hook, run by `/bin/sh -c`.
    pub exec: Option<String>,
    /// A hook that runs longer is killed.
    pub hook_limit: Duration,
    /// The child: program and arguments; empty = none.
    pub command: Vec<OsString>,
    /// Pass signals other than TERM and INT on to the child. For a process that is the agent and nothing else.
    pub forward_signals: bool,
}

/// A file that is written from a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteFile {
    /// The file. Replaced atomically; keeps its mode, and its owner where possible.
    pub file: PathBuf,
    /// The template.
    pub template: PathBuf,
}

impl std::str::FromStr for WriteFile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((file, template)) if !file.is_empty() && !template.is_empty() => {
                Ok(WriteFile { file: file.into(), template: template.into() })
            }
            _ => Err(format!("{text:?} is not FILE=TEMPLATE")),
        }
    }
}

impl AgentSettings {
    /// The defaults for this id: one port called `main`.
    pub fn new(id: NodeId) -> Self {
        AgentSettings {
            id,
            variables: Variables::default(),
            set: SetVariables::new(),
            description: String::new(),
            annotations: BTreeMap::new(),
            ports: "main".parse().into_iter().collect(),
            want: Want::default(),
            state_dir: None,
            lease_ttl: LEASE_TTL_DEFAULT,
            ephemeral: false,
            instance: None,
            replace: false,
            offline_start: false,
            join_timeout: None,
            no_host_facts: false,
            no_ready_check: false,
            expect_listening: false,
            ready_timeout: READY_TIMEOUT_DEFAULT,
            drain_time: Duration::ZERO,
            stop_timeout: STOP_TIMEOUT_DEFAULT,
            temporary_listen: None,
            towards: Vec::new(),
            write: Vec::new(),
            exec: None,
            hook_limit: HOOK_LIMIT_DEFAULT,
            command: Vec::new(),
            forward_signals: false,
        }
    }

    /// The variables that it says of the node, facts of the host apart.
    pub fn said_variables(&self) -> BTreeMap<String, String> {
        let mut said = self.variables.to_map();
        for (name, value) in &self.set {
            match value {
                Some(value) => said.insert(name.clone(), value.clone()),
                None => said.remove(name),
            };
        }
        said
    }

    /// Takes over what may change while the agent runs. Returns the names of the other settings that differ: they need a restart.
    pub fn take_over(&mut self, new: AgentSettings) -> Vec<&'static str> {
        let same = [
            ("id", self.id == new.id),
            ("state_dir", self.state_dir == new.state_dir),
            ("instance", self.instance == new.instance),
            ("ports", (&self.ports, &self.want.ports) == (&new.ports, &new.want.ports)),
            ("addresses", self.want.addresses == new.want.addresses),
            ("lease_ttl", self.lease_ttl == new.lease_ttl),
            ("ready_check", self.no_ready_check == new.no_ready_check),
            ("stop_timeout", self.stop_timeout == new.stop_timeout),
            ("hook_timeout", self.hook_limit == new.hook_limit),
            ("temporary_listen", self.temporary_listen == new.temporary_listen),
            ("ephemeral", self.ephemeral == new.ephemeral),
        ];
        let AgentSettings { variables, description, no_host_facts, ready_timeout, drain_time, .. } = new;
        (self.variables, self.description, self.no_host_facts) = (variables, description, no_host_facts);
        (self.ready_timeout, self.drain_time) = (ready_timeout, drain_time);
        same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// How long the first join waits for a live holder that does not answer.
    pub fn join_timeout(&self) -> Duration {
        self.join_timeout.unwrap_or(self.lease_ttl * 2)
    }

    /// What is wrong with them, in words; `None` = nothing.
    pub fn fault(&self) -> Option<String> {
        if self.lease_ttl < Duration::from_secs(2) || self.lease_ttl.subsec_nanos() != 0 {
            return Some(format!(
                "lease TTL {} is not allowed: whole seconds, at least 2",
                humantime::format_duration(self.lease_ttl)
            ));
        }
        if self.command.first().is_some_and(|program| program.is_empty()) {
            return Some("the command's program is empty".into());
        }
        None
    }
}
