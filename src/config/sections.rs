//! Which settings there are, section by section, with their defaults. `config/enlist.toml` says the same for people; a test
//! holds the two equal.
//!
//! An empty text or list means *not set*; what that leads to is said in `config/enlist.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span::{List, Span};
use crate::agent::settings;
use crate::allocator::AllocatorSettings;
use crate::relay::RelaySettings;
use crate::store::etcd::StoreSettings;
use crate::store::keys::Prefix;
use crate::telemetry::{LogFormat, LogLevel};

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The store where nodes register.
    pub source: SourceSection,
    /// The store of relay and manager, where it differs.
    pub manager: ManagerSection,
    /// The agent of this node.
    pub agent: AgentSection,
    /// The roles' common ground.
    pub roles: RolesSection,
    /// The allocator.
    pub allocator: AllocatorSection,
    /// The relay.
    pub relay: RelaySection,
    /// Logs.
    pub log: LogSection,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct SourceSection {
    pub endpoints: List,
    pub prefix: String,
    pub cacert: String,
    pub cert: String,
    pub key: String,
    pub insecure_skip_tls_verify: bool,
    pub user: String,
    pub password: String,
    pub password_file: String,
    pub dial_timeout: Span,
    pub command_timeout: Span,
    pub keepalive_interval: Span,
    pub keepalive_timeout: Span,
}

impl Default for SourceSection {
    fn default() -> Self {
        let store = StoreSettings::default();
        SourceSection {
            endpoints: List(store.endpoints),
            prefix: Prefix::default().to_string(),
            cacert: String::new(),
            cert: String::new(),
            key: String::new(),
            insecure_skip_tls_verify: store.insecure_skip_tls_verify,
            user: String::new(),
            password: String::new(),
            password_file: String::new(),
            dial_timeout: Span(store.dial_timeout),
            command_timeout: Span(store.command_timeout),
            keepalive_interval: Span(store.keepalive_interval),
            keepalive_timeout: Span(store.keepalive_timeout),
        }
    }
}

/// `[manager]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct ManagerSection {
    pub endpoints: List,
    pub prefix: String,
    pub cacert: String,
    pub cert: String,
    pub key: String,
    pub insecure_skip_tls_verify: bool,
    pub user: String,
    pub password: String,
    pub password_file: String,
}

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct AgentSection {
    pub id: String,
    pub state_dir: String,
    pub instance: String,
    pub description: String,
    pub variables: BTreeMap<String, String>,
    pub vars_file: String,
    pub host_facts: bool,
    pub ports: List,
    pub no_ports: bool,
    pub addresses: List,
    pub lease_ttl: Span,
    pub join_timeout: Span,
    pub ready_check: bool,
    pub ready_timeout: Span,
    pub drain_time: Span,
    pub stop_timeout: Span,
    pub hook_timeout: Span,
    pub temporary_listen: String,
    pub ephemeral: bool,
    pub offline_start: bool,
}

impl Default for AgentSection {
    fn default() -> Self {
        AgentSection {
            id: String::new(),
            state_dir: String::new(),
            instance: String::new(),
            description: String::new(),
            variables: BTreeMap::new(),
            vars_file: String::new(),
            host_facts: true,
            ports: List::default(),
            no_ports: false,
            addresses: List::default(),
            lease_ttl: Span(settings::LEASE_TTL_DEFAULT),
            join_timeout: Span(Duration::ZERO),
            ready_check: true,
            ready_timeout: Span(settings::READY_TIMEOUT_DEFAULT),
            drain_time: Span(Duration::ZERO),
            stop_timeout: Span(settings::STOP_TIMEOUT_DEFAULT),
            hook_timeout: Span(settings::HOOK_LIMIT_DEFAULT),
            temporary_listen: String::new(),
            ephemeral: false,
            offline_start: false,
        }
    }
}

/// `[roles]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct RolesSection {
    pub leader_ttl: Span,
    pub stop_timeout: Span,
}

impl Default for RolesSection {
    fn default() -> Self {
        RolesSection { leader_ttl: Span(AllocatorSettings::default().leader_ttl), stop_timeout: Span(Duration::from_secs(8)) }
    }
}

/// `[allocator]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct AllocatorSection {
    pub after_restore: bool,
    pub restore_quiet: Span,
    pub forget: Span,
}

impl Default for AllocatorSection {
    fn default() -> Self {
        let settings = AllocatorSettings::default();
        AllocatorSection {
            after_restore: settings.after_restore,
            restore_quiet: Span(settings.restore_quiet),
            forget: Span(settings.forget),
        }
    }
}

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct RelaySection {
    pub source_name: String,
    pub adopt: bool,
    pub allow_empty: bool,
}

impl Default for RelaySection {
    fn default() -> Self {
        let settings = RelaySettings::default();
        RelaySection { source_name: settings.source_name, adopt: settings.adopt, allow_empty: settings.allow_empty }
    }
}

/// `[log]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each setting is explained in config/enlist.toml, and in one place only")]
pub struct LogSection {
    pub format: LogFormat,
    pub level: LogLevel,
}
