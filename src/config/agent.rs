//! `[agent]` → [`AgentSettings`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::load::{ConfigError, Loaded};
use super::vars_file;
use crate::agent::AgentSettings;
use crate::agent::os::facts::hostname;
use crate::agent::os::files::read_text;
use crate::model::names::{NodeId, PortName};
use crate::model::variables::Variables;

impl Loaded {
    /// The id of this host's agent: the one that is set, else the host's name.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn agent_id(&self) -> Result<NodeId, ConfigError> {
        let set = &self.settings.agent.id;
        if !set.is_empty() {
            return set.parse().map_err(|error| self.invalid("agent.id", error));
        }
        let name = hostname().to_ascii_lowercase();
        name.parse().map_err(|error| self.invalid("agent.id", format!("the host's name is no id, give --id: {error}")))
    }

    /// The agent's state directory, if one is set.
    pub fn agent_state_dir(&self) -> Option<PathBuf> {
        let set = &self.settings.agent.state_dir;
        (!set.is_empty()).then(|| PathBuf::from(set))
    }

    /// The agent's settings. `variables` (flags) go on top of all others.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn agent(&self, variables: &[(String, String)]) -> Result<AgentSettings, ConfigError> {
        let section = &self.settings.agent;
        let mut settings = AgentSettings::new(self.agent_id()?);
        settings.variables = self.variables(variables)?;
        settings.description = section.description.clone();
        settings.state_dir = self.agent_state_dir();
        settings.lease_ttl = section.lease_ttl.0;
        settings.ephemeral = section.ephemeral;
        settings.offline_start = section.offline_start;
        settings.join_timeout = (!section.join_timeout.0.is_zero()).then_some(section.join_timeout.0);
        settings.no_host_facts = !section.host_facts;
        settings.no_ready_check = !section.ready_check;
        settings.ready_timeout = section.ready_timeout.0;
        settings.drain_time = section.drain_time.0;
        settings.stop_timeout = section.stop_timeout.0;
        settings.hook_limit = section.hook_timeout.0;
        if !section.instance.is_empty() {
            let instance = section.instance.parse().map_err(|error| self.invalid("agent.instance", error))?;
            settings.instance = Some(instance);
        }
        if !section.temporary_listen.is_empty() {
            let text = &section.temporary_listen;
            let fault = |_| self.invalid("agent.temporary_listen", format!("{text:?} is not ADDRESS:PORT (port 0 = any)"));
            settings.temporary_listen = Some(text.parse().map_err(fault)?);
        }
        self.ports(&mut settings)?;
        for text in &section.addresses.0 {
            let fault = |_| self.invalid("agent.addresses", format!("{text:?} is not an IP address"));
            let address = text.parse::<IpAddr>().map_err(fault)?;
            if settings.want.addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                return Err(self.invalid("agent.addresses", "at most one address of each family (IPv4, IPv6)"));
            }
            settings.want.addresses.push(address);
        }
        settings.towards = self.settings.source.endpoints.0.iter().map(|endpoint| authority(endpoint)).collect();
        match settings.fault() {
            Some(fault) => Err(self.invalid("agent.lease_ttl", fault)),
            None => Ok(settings),
        }
    }

    fn ports(&self, settings: &mut AgentSettings) -> Result<(), ConfigError> {
        let section = &self.settings.agent;
        if section.no_ports {
            if !section.ports.0.is_empty() {
                return Err(self.invalid("agent.no_ports", "there are ports as well: either, or"));
            }
            settings.ports.clear();
        }
        if section.ports.0.is_empty() {
            return Ok(());
        }
        settings.ports.clear();
        for text in &section.ports.0 {
            let (name, wanted) = text.split_once('=').map_or((text.as_str(), None), |(name, port)| (name, Some(port)));
            let name: PortName = name.parse().map_err(|error| self.invalid("agent.ports", error))?;
            if let Some(wanted) = wanted {
                let fault = || self.invalid("agent.ports", format!("{text:?} is not NAME or NAME=PORT, PORT being 1 to 65535"));
                let port = wanted.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(fault)?;
                settings.want.ports.insert(name.clone(), port);
            }
            settings.ports.push(name);
        }
        Ok(())
    }

    fn variables(&self, flags: &[(String, String)]) -> Result<Variables, ConfigError> {
        let section = &self.settings.agent;
        let mut variables = Variables::default();
        if !section.vars_file.is_empty() {
            for (name, value) in self.vars_file(Path::new(&section.vars_file))? {
                let fault = |error| self.invalid("agent.vars_file", format!("{}: {error}", section.vars_file));
                variables.insert(&name, &value).map_err(fault)?;
            }
        }
        for (name, value) in &section.variables {
            let fault = |error| self.invalid(&format!("agent.variables.{name}"), error);
            variables.insert(name, value).map_err(fault)?;
        }
        for (name, value) in flags {
            let fault = |error: crate::model::variables::VariableError| ConfigError::Invalid {
                key: "agent.variables".into(),
                origin: Some("flag --var".into()),
                reason: error.to_string(),
            };
            variables.insert(name, value).map_err(fault)?;
        }
        Ok(variables)
    }

    fn vars_file(&self, path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
        let fault = |reason: String| self.invalid("agent.vars_file", format!("{}: {reason}", path.display()));
        let text = read_text(path).map_err(|error| fault(error.to_string()))?;
        vars_file::parse(path, &text).map_err(fault)
    }
}

/// `host:port` of an endpoint, without a scheme.
fn authority(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::span::List;
    use super::*;

    fn loaded() -> Loaded {
        let mut loaded = Loaded::default();
        loaded.settings.agent.id = "edge-7".into();
        loaded
    }

    #[test]
    fn the_agents_defaults_are_the_modules() {
        let settings = loaded().agent(&[]).unwrap();
        let mut expected = AgentSettings::new("edge-7".parse().unwrap());
        expected.towards = vec!["127.0.0.1:2379".into()];
        assert_eq!(settings, expected);
    }

    #[test]
    fn variables_come_from_file_settings_and_flags_in_that_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vars");
        std::fs::write(&path, "# of this host\nzone = eu-1\nrack=r1\nrole=db\n").unwrap();
        let mut loaded = loaded();
        loaded.settings.agent.vars_file = path.display().to_string();
        loaded.settings.agent.variables.insert("rack".into(), "r2".into());
        loaded.settings.agent.variables.insert("role".into(), "web".into());
        let variables = loaded.agent(&[("role".into(), "cache".into())]).unwrap().variables;
        let seen: Vec<_> = variables.iter().collect();
        assert_eq!(seen, [("rack", "r2"), ("role", "cache"), ("zone", "eu-1")]);
        std::fs::write(&path, "zone\n").unwrap();
        let error = loaded.agent(&[]).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn ports_may_be_wanted() {
        let mut loaded = loaded();
        loaded.settings.agent.ports = List(vec!["http=8080".into(), "metrics".into()]);
        let settings = loaded.agent(&[]).unwrap();
        assert_eq!(settings.ports.len(), 2);
        assert_eq!(settings.want.ports.values().collect::<Vec<_>>(), [&8080]);
        loaded.settings.agent.ports = List(vec!["http=0".into()]);
        assert!(loaded.agent(&[]).is_err());
        loaded.settings.agent.ports = List::default();
        loaded.settings.agent.no_ports = true;
        assert!(loaded.agent(&[]).unwrap().ports.is_empty());
    }
}
