//! What the store needs to be told to reach etcd. Filled by `config`; nothing here reads a file or the environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;

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

    /// Whether a setting asks for TLS.
    pub(super) fn wants_tls(&self) -> bool {
        self.cacert.is_some() || self.cert.is_some() || self.key.is_some() || self.insecure_skip_tls_verify
    }

    /// User name and password.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let user = self.user.as_deref().filter(|user| !user.is_empty())?;
        match (&self.password, user.split_once(':')) {
            (Some(password), _) => Some((user.to_owned(), password.clone())),
            (None, Some((name, password))) => Some((name.to_owned(), password.to_owned())),
            (None, None) => Some((user.to_owned(), String::new())),
        }
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
            .field("user", &self.credentials().map(|(name, _)| name))
            .field("dial_timeout", &self.dial_timeout)
            .field("command_timeout", &self.command_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_carry_the_password_and_debug_never_shows_it() {
        let settings = StoreSettings { user: Some("root:se:cret".into()), ..Default::default() };
        assert_eq!(settings.credentials(), Some(("root".into(), "se:cret".into())));
        assert!(!format!("{settings:?}").contains("se:cret"));
        let settings = StoreSettings { user: Some("root".into()), password: Some("x".into()), ..Default::default() };
        assert_eq!(settings.credentials(), Some(("root".into(), "x".into())));
        assert_eq!(StoreSettings::default().credentials(), None);
    }
}
