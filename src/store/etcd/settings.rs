//! What the store needs to be told to reach etcd. Filled by `config`; nothing here reads the environment, and no file but that of
//! the password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Address;
use super::tls;

/// How to reach an etcd cluster. Names and meanings are those of etcdctl's flags.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// `host:port`, `http://host:port` or `https://host:port`. Without a scheme TLS is used exactly when a TLS setting is given.
    pub endpoints: Vec<String>,
    /// PEM file of the certificate authorities that are trusted. `None` = the system's.
    pub cacert: Option<PathBuf>,
    /// PEM file of the client's certificate (chain).
    pub cert: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub key: Option<PathBuf>,
    /// Do not verify the server's certificate. For trials only.
    pub insecure_skip_tls_verify: bool,
    /// User name, or `name:password`.
    pub user: Option<String>,
    /// The user's password. `None` = what follows the colon in `user`.
    pub password: Option<String>,
    /// A file with the user's password, instead of `password`: read again at each login, and looked at for changes meanwhile.
    pub password_file: Option<PathBuf>,
    /// The longest time to make a connection; for [`connect`](crate::Store::connect) the longest time to the first contact.
    pub dial_timeout: Duration,
    /// The longest time for one call, fail-over included.
    pub command_timeout: Duration,
    /// How often an HTTP/2 ping is sent on a connection in use. Below 10 s servers take it for an attack and hang up.
    pub keepalive_interval: Duration,
    /// How long its answer may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            cacert: None,
            cert: None,
            key: None,
            insecure_skip_tls_verify: false,
            user: None,
            password: None,
            password_file: None,
            dial_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(3),
        }
    }
}

impl StoreSettings {
    /// Only the endpoints, the rest as by default.
    pub fn endpoints<I: IntoIterator<Item = S>, S: Into<String>>(endpoints: I) -> Self {
        StoreSettings { endpoints: endpoints.into_iter().map(Into::into).collect(), ..Default::default() }
    }

    /// Whether an endpoint can be understood, without a look at whether anybody is there.
    ///
    /// # Errors
    /// What is wrong with it and what is expected, in words.
    pub fn check_endpoint(text: &str) -> Result<(), String> {
        Address::parse(text, false).map(|_| ())
    }

    /// Whether the files of certificates and keys can be used as they are now. The error names the file.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check_certificates(&self) -> Result<(), String> {
        if self.cacert.is_none() && self.cert.is_none() && self.key.is_none() {
            return Ok(());
        }
        tls::client_config(self).map(|_| ())
    }

    /// Whether a setting asks for TLS.
    pub(super) fn wants_tls(&self) -> bool {
        self.cacert.is_some() || self.cert.is_some() || self.key.is_some() || self.insecure_skip_tls_verify
    }

    /// User name and password, as they are now. The error is a line for people.
    pub(super) fn credentials(&self) -> Result<Option<(String, String)>, String> {
        let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) else { return Ok(None) };
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("cannot read the password of {user:?} from {}: {error}", path.display()))?;
            return Ok(Some((user.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned())));
        }
        Ok(Some(match (&self.password, user.split_once(':')) {
            (Some(password), _) => (user.to_owned(), password.clone()),
            (None, Some((name, password))) => (name.to_owned(), password.to_owned()),
            (None, None) => (user.to_owned(), String::new()),
        }))
    }

    /// The user's name without the password.
    pub(super) fn user_name(&self) -> Option<&str> {
        let user = self.user.as_deref().filter(|user| !user.is_empty())?;
        let carries_password = self.password.is_none() && self.password_file.is_none();
        Some(user.split_once(':').filter(|_| carries_password).map_or(user, |(name, _)| name))
    }

    /// The files that are read again for each connection or login.
    pub(super) fn files(&self) -> Vec<&Path> {
        [&self.cacert, &self.cert, &self.key, &self.password_file].into_iter().filter_map(|path| path.as_deref()).collect()
    }
}

impl fmt::Debug for StoreSettings {
    /// Without the password: settings are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("endpoints", &self.endpoints)
            .field("cacert", &self.cacert)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("user", &self.user_name())
            .field("password_file", &self.password_file)
            .field("dial_timeout", &self.dial_timeout)
            .field("command_timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_user_may_carry_the_password_and_debug_never_shows_it() {
        let settings = StoreSettings { user: Some("root:se:cret".into()), ..Default::default() };
        assert_eq!(settings.credentials(), Ok(Some(("root".into(), "se:cret".into()))));
        assert!(!format!("{settings:?}").contains("se:cret"));
        let settings = StoreSettings { user: Some("root".into()), password: Some("x".into()), ..Default::default() };
        assert_eq!(settings.credentials(), Ok(Some(("root".into(), "x".into()))));
        assert_eq!(StoreSettings::default().credentials(), Ok(None));
    }

    #[test]
    fn a_password_is_read_from_its_file_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let settings = StoreSettings { user: Some("root".into()), password_file: Some(file.clone()), ..Default::default() };
        assert!(settings.credentials().unwrap_err().contains(file.to_str().unwrap()));
        for password in ["old", "new: with a space "] {
            std::fs::write(&file, format!("{password}\n")).unwrap();
            assert_eq!(settings.credentials(), Ok(Some(("root".into(), password.into()))));
        }
        assert_eq!((settings.files(), settings.user_name()), (vec![file.as_path()], Some("root")));
    }
}
