//! Puts the layers of settings on top of each other, and refuses what it does not know. Where a setting stands in a file is
//! `place`'s to find, what was probably meant `known`'s.

mod known;
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat, Source, Value, ValueKind};

use super::DEFAULT_FILE;
use super::sections::Settings;

pub use known::known_keys;

/// What settings are made of, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// A file that must exist; `None` = [`DEFAULT_FILE`] if it exists.
    pub file: Option<PathBuf>,
    /// The environment. Only names that begin with `ENLIST__` are looked at.
    pub environment: BTreeMap<String, String>,
    /// Flags: the flag's name for messages, the setting's key, the value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Settings, and where each that is no default was set.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Key → the layer that said it last, e.g. `source.prefix` → `flag --prefix` or `/etc/enlist/enlist.toml:3`. Below a
    /// setting that is a map its entries too, e.g. `agent.variables.zone`.
    pub origins: BTreeMap<String, String>,
}

/// Why settings were refused. One line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("failed to read the settings file {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// A layer cannot be understood.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Which layer.
        origin: String,
        /// Where and what.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown setting {key}; {hint}")]
    Unknown {
        /// Which layer.
        origin: String,
        /// The key.
        key: String,
        /// The known one that looks most like it, or what there is.
        hint: String,
    },
    /// A variable of the environment that is set, and empty.
    #[error("{0} is empty: unset it, or give it a value")]
    Empty(String),
    /// A value that is not allowed.
    #[error("setting {key}{}: {reason}", from(.origin.as_deref()))]
    Invalid {
        /// The key.
        key: String,
        /// The layer that said it.
        origin: Option<String>,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

fn from(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

impl Loaded {
    /// A complaint about the value of a setting, with the layer it came from.
    pub fn invalid(&self, key: &str, reason: impl std::fmt::Display) -> ConfigError {
        ConfigError::Invalid { key: key.into(), origin: self.origins.get(key).cloned(), reason: reason.to_string() }
    }
}

/// One layer, collected: what it says, and what to call the place where it says so.
struct Layer {
    values: config::Map<String, Value>,
    origin: Box<dyn Fn(&str) -> String>,
}

/// Makes the settings.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong, with the layer it is in.
pub fn load(inputs: &Inputs) -> Result<Loaded, ConfigError> {
    let mut builder = Config::builder().add_source(defaults()?);
    let mut origins = BTreeMap::new();
    for layer in [file_layer(inputs)?, environment_layer(inputs)?].into_iter().flatten() {
        for key in leaves(&layer.values) {
            let origin = (layer.origin)(&key);
            known::check(&origin, &key)?;
            origins.insert(key, origin);
        }
        builder = builder.add_source(Collected(layer.values));
    }
    for (flag, key, value) in &inputs.flags {
        known::check(flag, key)?;
        builder = builder.set_override(*key, value.clone()).map_err(|error| syntax(flag, &error))?;
        origins.insert((*key).to_owned(), format!("flag {flag}"));
    }
    let config = builder.build().map_err(|error| syntax("settings", &error))?;
    let settings = config.try_deserialize().map_err(|error| type_error(&error, &origins))?;
    Ok(Loaded { settings, origins })
}

fn syntax(origin: &str, error: &config::ConfigError) -> ConfigError {
    ConfigError::Syntax { origin: origin.into(), reason: error.to_string().trim_end().to_owned() }
}

/// The crate puts the key into an error's text, between back-ticks; its origin says less than ours.
fn type_error(error: &config::ConfigError, origins: &BTreeMap<String, String>) -> ConfigError {
    let (key, reason) = match error {
        config::ConfigError::At { error, key, .. } => (key.clone().unwrap_or_default(), error.to_string()),
        config::ConfigError::Type { key, unexpected, expected, .. } => {
            (key.clone().unwrap_or_default(), format!("{unexpected} where {expected} is expected"))
        }
        other => (String::new(), other.to_string()),
    };
    match origins.get(&key) {
        Some(origin) => ConfigError::Invalid { key, origin: Some(origin.clone()), reason },
        None => ConfigError::Syntax { origin: "settings".into(), reason: error.to_string() },
    }
}

fn defaults() -> Result<Config, ConfigError> {
    Config::try_from(&Settings::default()).map_err(|error| syntax("built-in defaults", &error))
}

fn file_layer(inputs: &Inputs) -> Result<Option<Layer>, ConfigError> {
    let path = inputs.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if inputs.file.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConfigError::File { path: path.display().to_string(), reason: error.to_string() }),
    };
    parse_file(&path, &text).map(Some)
}

fn parse_file(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let file = path.display().to_string();
    let lines = place::lines(text).map_err(|fault| ConfigError::Syntax { origin: fault.place(&file), reason: fault.message })?;
    let values = File::from_str(text, FileFormat::Toml).collect().map_err(|error| syntax(&file, &error))?;
    let origin = move |key: &str| lines.get(key).map_or_else(|| file.clone(), |line| format!("{file}:{line}"));
    Ok(Layer { values, origin: Box::new(origin) })
}

fn environment_layer(inputs: &Inputs) -> Result<Option<Layer>, ConfigError> {
    let ours: config::Map<String, String> =
        inputs.environment.iter().filter(|(name, _)| name.starts_with("ENLIST__")).map(|(n, v)| (n.clone(), v.clone())).collect();
    // `$E` that is not set must not lead to the default: another store, for one.
    if let Some((name, _)) = ours.iter().filter(|(_, value)| says_nothing(value)).min() {
        return Err(ConfigError::Empty(format!("variable {name}")));
    }
    let source = Environment::with_prefix("ENLIST").prefix_separator("__").separator("__").source(Some(ours));
    let values = source.collect().map_err(|error| syntax("environment", &error))?;
    let origin = |key: &str| format!("variable ENLIST__{}", key.to_uppercase().replace('.', "__"));
    Ok(Some(Layer { values, origin: Box::new(origin) }))
}

/// Nothing but spaces and commas.
fn says_nothing(value: &str) -> bool {
    value.trim_matches([' ', '\t', '\n', ',']).is_empty()
}

/// A layer that was collected before.
#[derive(Debug, Clone)]
struct Collected(config::Map<String, Value>);

impl Source for Collected {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// The keys that a layer sets, as `section.key`. What is deeper belongs to a setting that is a map, and is told beside it.
fn leaves(values: &config::Map<String, Value>) -> Vec<String> {
    let mut keys = Vec::new();
    for (section, value) in values {
        match &value.kind {
            // Environment gives `source.prefix` as one name, a file gives a table.
            ValueKind::Table(table) => {
                for (key, value) in table {
                    keys.push(format!("{section}.{key}"));
                    if let ValueKind::Table(entries) = &value.kind {
                        keys.extend(entries.keys().map(|entry| format!("{section}.{key}.{entry}")));
                    }
                }
            }
            _ => {
                keys.push(section.splitn(3, '.').take(2).collect::<Vec<_>>().join("."));
                keys.push(section.clone());
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests;
