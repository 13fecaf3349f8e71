//! The flags that every command has: etcdctl's, where it has one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigError, Inputs, Loaded, load};
use crate::telemetry::{LogFormat, LogLevel};

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// etcd's members, comma separated
    #[arg(long, global = true, value_name = "HOST:PORT,…", help_heading = "Store")]
    pub endpoints: Option<String>,
    /// Where enlist's keys are [default: /enlist]
    #[arg(long, global = true, help_heading = "Store")]
    pub prefix: Option<String>,
    /// Authorities whose servers are trusted (PEM)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Store")]
    pub cacert: Option<String>,
    /// Client certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Store")]
    pub cert: Option<String>,
    /// Its private key (PEM)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Store")]
    pub key: Option<String>,
    /// Trust any server: for trials only
    #[arg(long, global = true, help_heading = "Store")]
    pub insecure_skip_tls_verify: bool,
    /// etcd user
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]", help_heading = "Store")]
    pub user: Option<String>,
    /// Its password
    #[arg(long, global = true, help_heading = "Store")]
    pub password: Option<String>,
    /// File with its password, read again at each login
    #[arg(long, global = true, value_name = "FILE", help_heading = "Store")]
    pub password_file: Option<String>,
    /// Give up without a first contact after [default: 2s]
    #[arg(long, global = true, value_name = "TIME", help_heading = "Store")]
    pub dial_timeout: Option<String>,
    /// Longest time for one request [default: 5s]
    #[arg(long, global = true, value_name = "TIME", help_heading = "Store")]
    pub command_timeout: Option<String>,

    /// Members of the manager's etcd, if it is another one
    #[arg(long, global = true, value_name = "HOST:PORT,…", help_heading = "Manager's store (default: the same)")]
    pub manager_endpoints: Option<String>,
    /// Where enlist's keys are there
    #[arg(long, global = true, value_name = "PREFIX", help_heading = "Manager's store (default: the same)")]
    pub manager_prefix: Option<String>,
    /// As --cacert
    #[arg(long, global = true, value_name = "FILE", help_heading = "Manager's store (default: the same)")]
    pub manager_cacert: Option<String>,
    /// As --cert
    #[arg(long, global = true, value_name = "FILE", help_heading = "Manager's store (default: the same)")]
    pub manager_cert: Option<String>,
    /// As --key
    #[arg(long, global = true, value_name = "FILE", help_heading = "Manager's store (default: the same)")]
    pub manager_key: Option<String>,
    /// As --insecure-skip-tls-verify
    #[arg(long, global = true, help_heading = "Manager's store (default: the same)")]
    pub manager_insecure_skip_tls_verify: bool,
    /// As --user
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]", help_heading = "Manager's store (default: the same)")]
    pub manager_user: Option<String>,
    /// As --password
    #[arg(long, global = true, value_name = "PASSWORD", help_heading = "Manager's store (default: the same)")]
    pub manager_password: Option<String>,
    /// As --password-file
    #[arg(long, global = true, value_name = "FILE", help_heading = "Manager's store (default: the same)")]
    pub manager_password_file: Option<String>,

    /// Settings file [default: /etc/enlist/enlist.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "General")]
    pub config: Option<PathBuf>,
    /// Say more; -vv still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "General")]
    pub verbose: u8,
    /// How log lines on stderr look [default: text]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "General")]
    pub log_format: Option<LogFormat>,
}

/// A flag's name, the key of its setting, its value: what [`Inputs::flags`] takes.
pub type FlagSetting = (&'static str, &'static str, String);

/// Collects the flags that were given.
#[derive(Debug, Clone, Default)]
pub struct FlagSettings(pub Vec<FlagSetting>);

impl FlagSettings {
    /// A flag with a value.
    pub fn value(&mut self, flag: &'static str, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push((flag, key, value.to_owned()));
        }
    }

    /// A flag without a value; not given = the setting stays as it is.
    pub fn switch(&mut self, flag: &'static str, key: &'static str, given: bool, means: bool) {
        if given {
            self.0.push((flag, key, means.to_string()));
        }
    }
}

impl Common {
    fn flags(&self) -> FlagSettings {
        let mut flags = FlagSettings::default();
        flags.value("--endpoints", "source.endpoints", self.endpoints.as_deref());
        flags.value("--prefix", "source.prefix", self.prefix.as_deref());
        flags.value("--cacert", "source.cacert", self.cacert.as_deref());
        flags.value("--cert", "source.cert", self.cert.as_deref());
        flags.value("--key", "source.key", self.key.as_deref());
        flags.switch("--insecure-skip-tls-verify", "source.insecure_skip_tls_verify", self.insecure_skip_tls_verify, true);
        flags.value("--user", "source.user", self.user.as_deref());
        flags.value("--password", "source.password", self.password.as_deref());
        flags.value("--password-file", "source.password_file", self.password_file.as_deref());
        flags.value("--dial-timeout", "source.dial_timeout", self.dial_timeout.as_deref());
        flags.value("--command-timeout", "source.command_timeout", self.command_timeout.as_deref());
        flags.value("--manager-endpoints", "manager.endpoints", self.manager_endpoints.as_deref());
        flags.value("--manager-prefix", "manager.prefix", self.manager_prefix.as_deref());
        flags.value("--manager-cacert", "manager.cacert", self.manager_cacert.as_deref());
        flags.value("--manager-cert", "manager.cert", self.manager_cert.as_deref());
        flags.value("--manager-key", "manager.key", self.manager_key.as_deref());
        let skip = self.manager_insecure_skip_tls_verify;
        flags.switch("--manager-insecure-skip-tls-verify", "manager.insecure_skip_tls_verify", skip, true);
        flags.value("--manager-user", "manager.user", self.manager_user.as_deref());
        flags.value("--manager-password", "manager.password", self.manager_password.as_deref());
        let file = self.manager_password_file.as_deref();
        flags.value("--manager-password-file", "manager.password_file", file);
        flags
    }

    /// Settings out of all layers, these flags and a command's own on top.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn settings(&self, own: FlagSettings) -> Result<Loaded, ConfigError> {
        let mut flags = self.flags();
        flags.0.extend(own.0);
        let text = |text: std::ffi::OsString| text.into_string().ok();
        let environment: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        let mut loaded = load(&Inputs { file: self.config.clone(), environment, flags: flags.0 })?;
        if let Some(format) = self.log_format {
            loaded.settings.log.format = format;
        }
        Ok(loaded)
    }

    /// The log level: `talkative` commands (those that run on) say what changes, the others only what is wrong.
    pub fn level(&self, loaded: &Loaded, talkative: bool) -> LogLevel {
        let base = loaded.settings.log.level;
        let quiet = if talkative { base } else { base.min(LogLevel::Warn) };
        quiet.raised(self.verbose)
    }
}
