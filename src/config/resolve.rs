//! Sections → the settings structs that the modules own. Complaints name the setting and the layer that said it.

use std::path::PathBuf;

use super::load::{ConfigError, Loaded};
use super::span::Span;
use crate::allocator::AllocatorSettings;
use crate::manager::ManagerSettings;
use crate::relay::RelaySettings;
use crate::store::etcd::StoreSettings;
use crate::store::keys::Prefix;

/// How to reach a store, and where in it enlist's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSettings {
    /// How to reach it.
    pub store: StoreSettings,
    /// Where the keys are.
    pub prefix: Prefix,
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Loaded {
    /// The store where nodes register.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn source(&self) -> Result<SiteSettings, ConfigError> {
        let section = &self.settings.source;
        if section.endpoints.0.is_empty() {
            return Err(self.invalid("source.endpoints", "at least one endpoint is needed"));
        }
        if section.cert.is_empty() != section.key.is_empty() {
            let missing = if section.cert.is_empty() { "source.cert" } else { "source.key" };
            return Err(self.invalid(missing, "a client certificate and its key are given together"));
        }
        self.endpoints("source.endpoints", &section.endpoints.0)?;
        let store = StoreSettings {
            endpoints: section.endpoints.0.clone(),
            cacert: self.file("source.cacert", &section.cacert)?,
            cert: self.file("source.cert", &section.cert)?,
            key: self.file("source.key", &section.key)?,
            insecure_skip_tls_verify: section.insecure_skip_tls_verify,
            user: text(&section.user),
            password: text(&section.password),
            password_file: self.password_file("source", (&section.user, &section.password, &section.password_file))?,
            dial_timeout: self.span("source.dial_timeout", section.dial_timeout)?,
            command_timeout: self.span("source.command_timeout", section.command_timeout)?,
            keepalive_interval: self.span("source.keepalive_interval", section.keepalive_interval)?,
            keepalive_timeout: self.span("source.keepalive_timeout", section.keepalive_timeout)?,
        };
        let prefix = section.prefix.parse().map_err(|error| self.invalid("source.prefix", error))?;
        self.certificates("source", &store)?;
        Ok(SiteSettings { store, prefix })
    }

    /// The store of relay and manager: the source's, except for what `[manager]` says.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn manager(&self) -> Result<SiteSettings, ConfigError> {
        let section = &self.settings.manager;
        let SiteSettings { mut store, mut prefix } = self.source()?;
        if !section.endpoints.0.is_empty() {
            self.endpoints("manager.endpoints", &section.endpoints.0)?;
            store.endpoints = section.endpoints.0.clone();
        }
        if section.cert.is_empty() != section.key.is_empty() {
            let missing = if section.cert.is_empty() { "manager.cert" } else { "manager.key" };
            return Err(self.invalid(missing, "a client certificate and its key are given together"));
        }
        // Name and password belong together, as certificate and key do: never one of ours with one of the source's.
        let user = if section.user.is_empty() { store.user.clone().unwrap_or_default() } else { section.user.clone() };
        let password_file = self.password_file("manager", (&user, &section.password, &section.password_file))?;
        if !section.user.is_empty() || !section.password.is_empty() || password_file.is_some() {
            (store.user, store.password, store.password_file) = (text(&user), text(&section.password), password_file);
        }
        store.cacert = self.file("manager.cacert", &section.cacert)?.or(store.cacert);
        if !section.cert.is_empty() {
            (store.cert, store.key) = (self.file("manager.cert", &section.cert)?, self.file("manager.key", &section.key)?);
        }
        store.insecure_skip_tls_verify |= section.insecure_skip_tls_verify;
        self.certificates("manager", &store)?;
        if !section.prefix.is_empty() {
            prefix = section.prefix.parse().map_err(|error| self.invalid("manager.prefix", error))?;
        }
        Ok(SiteSettings { store, prefix })
    }

    /// The allocator's settings.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn allocator(&self) -> Result<AllocatorSettings, ConfigError> {
        let section = &self.settings.allocator;
        Ok(AllocatorSettings {
            leader_ttl: self.leader_ttl()?,
            after_restore: section.after_restore,
            restore_quiet: self.span("allocator.restore_quiet", section.restore_quiet)?,
            forget: self.span("allocator.forget", section.forget)?,
        })
    }

    /// The relay's settings.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn relay(&self) -> Result<RelaySettings, ConfigError> {
        let section = &self.settings.relay;
        if section.source_name.is_empty() {
            return Err(self.invalid("relay.source_name", "a source must have a name"));
        }
        Ok(RelaySettings {
            leader_ttl: self.leader_ttl()?,
            source_name: section.source_name.clone(),
            adopt: section.adopt,
            allow_empty: section.allow_empty,
        })
    }

    /// The manager's settings.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn manager_role(&self) -> Result<ManagerSettings, ConfigError> {
        Ok(ManagerSettings { leader_ttl: self.leader_ttl()? })
    }

    fn leader_ttl(&self) -> Result<std::time::Duration, ConfigError> {
        let ttl = self.span("roles.leader_ttl", self.settings.roles.leader_ttl)?;
        if ttl.as_secs() < 1 {
            return Err(self.invalid("roles.leader_ttl", "etcd counts leases in whole seconds: at least 1s"));
        }
        Ok(ttl)
    }

    fn endpoints(&self, key: &str, endpoints: &[String]) -> Result<(), ConfigError> {
        endpoints
            .iter()
            .try_for_each(|endpoint| StoreSettings::check_endpoint(endpoint))
            .map_err(|fault| self.invalid(key, fault))
    }

    /// What is in the files of certificates now. They may be others later.
    fn certificates(&self, section: &str, store: &StoreSettings) -> Result<(), ConfigError> {
        let Err(fault) = store.check_certificates() else { return Ok(()) };
        let file = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| fault.contains(&path.display().to_string()));
        let key = match (file(&store.cacert), file(&store.key)) {
            (true, _) => "cacert",
            (false, true) if !file(&store.cert) => "key",
            _ => "cert",
        };
        Err(self.invalid(&format!("{section}.{key}"), fault))
    }

    /// The file of a password, which is the only word on it.
    fn password_file(&self, section: &str, (user, password, file): (&str, &str, &str)) -> Result<Option<PathBuf>, ConfigError> {
        let key = format!("{section}.password_file");
        if file.is_empty() {
            return Ok(None);
        }
        if user.is_empty() || user.contains(':') || !password.is_empty() {
            return Err(
                self.invalid(&key, format!("a password file goes with {section}.user without a password, and no other password"))
            );
        }
        self.file(&key, file)
    }

    /// A file that can be read now.
    fn file(&self, key: &str, text: &str) -> Result<Option<PathBuf>, ConfigError> {
        if text.is_empty() {
            return Ok(None);
        }
        match std::fs::File::open(text) {
            Ok(_) => Ok(Some(PathBuf::from(text))),
            Err(error) => Err(self.invalid(key, format!("{text}: {error}"))),
        }
    }

    /// A length of time that must not be zero.
    fn span(&self, key: &str, span: Span) -> Result<std::time::Duration, ConfigError> {
        if span.0.is_zero() { Err(self.invalid(key, "must be longer than 0")) } else { Ok(span.0) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::LazyLock;

    use super::super::span::List;
    use super::*;

    /// A file with a certificate.
    static THERE: LazyLock<(tempfile::TempDir, String)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["h".to_owned()]).unwrap().self_signed(&key).unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, certificate.pem()).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    });

    fn loaded() -> Loaded {
        let mut loaded = Loaded::default();
        let source = &mut loaded.settings.source;
        source.user = "agent".into();
        source.password = "secret".into();
        source.cacert = THERE.1.clone();
        loaded
    }

    #[test]
    fn the_managers_store_is_the_sources_by_default() {
        let loaded = loaded();
        assert_eq!(loaded.manager().unwrap(), loaded.source().unwrap());
    }

    #[test]
    fn another_user_at_the_manager_never_gets_the_sources_password() {
        let mut loaded = loaded();
        loaded.settings.manager.endpoints = List(vec!["b:2379".into()]);
        loaded.settings.manager.user = "relay".into();
        let store = loaded.manager().unwrap().store;
        assert_eq!((store.user.as_deref(), store.password), (Some("relay"), None));
        assert_eq!(store.endpoints, ["b:2379"]);
        assert_eq!(store.cacert.unwrap().to_str(), Some(THERE.1.as_str()));
    }

    #[test]
    fn a_password_file_goes_with_a_user_and_no_other_password() {
        let mut loaded = loaded();
        loaded.settings.source.password_file = THERE.1.clone();
        let message = loaded.source().unwrap_err().to_string();
        assert!(message.contains("source.password_file"), "{message}");
        loaded.settings.source.password.clear();
        let store = loaded.source().unwrap().store;
        assert_eq!(store.password_file.as_ref().and_then(|path| path.to_str()), Some(THERE.1.as_str()));
        // Another user at the manager does not get it either.
        assert_eq!(loaded.manager().unwrap().store, store);
        loaded.settings.manager.user = "relay".into();
        let store = loaded.manager().unwrap().store;
        assert_eq!((store.user.as_deref(), store.password, store.password_file), (Some("relay"), None, None));
    }

    #[test]
    fn a_file_without_a_certificate_is_a_wrong_setting() {
        let mut loaded = loaded();
        loaded.settings.source.cacert = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into();
        let message = loaded.source().unwrap_err().to_string();
        assert!(message.starts_with("setting source.cacert: ") && message.contains("there is none in it"), "{message}");
    }

    #[test]
    fn complaints_name_the_setting_and_its_layer() {
        let mut loaded = loaded();
        loaded.settings.source.prefix = "enlist/".into();
        loaded.origins.insert("source.prefix".into(), "flag --prefix".into());
        let message = loaded.source().unwrap_err().to_string();
        let says = "setting source.prefix (flag --prefix): prefix \"enlist/\" is not valid (did you mean /enlist?)";
        assert!(message.starts_with(says), "{message}");
        loaded = Loaded::default();
        loaded.settings.roles.leader_ttl = Span::default();
        assert!(loaded.relay().is_err());
    }
}
