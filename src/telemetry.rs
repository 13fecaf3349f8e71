//! Logs: `tracing` to stderr (or a file), as text or JSON. stdout is never written: it is for data.

pub mod escape;
mod json;
#[cfg(test)]
pub(crate) mod testing;
mod text;

use std::fs::File;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogLevel {
    /// A human must act.
    Error,
    /// Degraded and healing.
    Warn,
    /// A state changed.
    #[default]
    Info,
    /// Each pass.
    Debug,
    /// Each request.
    Trace,
}

impl TryFrom<String> for LogFormat {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is not one of text, json")),
        }
    }
}

impl TryFrom<String> for LogLevel {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|level| level.as_str() == text.to_ascii_lowercase());
        known.ok_or_else(|| format!("{text:?} is not one of {}", Self::ALL.map(LogLevel::as_str).join(", ")))
    }
}

impl LogLevel {
    const ALL: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// This level, `by` steps more talkative.
    #[must_use]
    pub fn raised(self, by: u8) -> Self {
        let at = Self::ALL.iter().position(|level| *level == self).unwrap_or_default();
        let to = (at + usize::from(by)).min(Self::ALL.len() - 1);
        Self::ALL.get(to).copied().unwrap_or(self)
    }

    fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Starts logging for this process. A second call does nothing.
///
/// `file` takes the lines instead of stderr. The libraries below (HTTP/2, gRPC) are kept one step quieter, and quiet
/// altogether below `debug`: what they complain of reaches people as an error of ours.
pub fn start(format: LogFormat, level: LogLevel, file: Option<File>) {
    let ours = level.as_str();
    let theirs = if level >= LogLevel::Debug { "warn" } else { "off" };
    // What is worth knowing of a server once, at a role's start, is a nuisance above every table.
    let once = if level <= LogLevel::Warn { ",enlist::store::etcd::version=error" } else { "" };
    let directives = format!("{theirs},enlist={ours}{once}");
    let filter = EnvFilter::from_str(&directives).unwrap_or_default();
    let colour = file.is_none() && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let writer = match file {
        Some(file) => BoxMakeWriter::new(Mutex::new(file)),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour).with_target(false);
    // A terminal that was closed takes no line, and no complaint of that either: the complaint would be a panic.
    let builder = builder.log_internal_errors(false);
    // The error of `try_init` says that logging has been started already.
    let _ = match format {
        LogFormat::Text => builder.fmt_fields(text::fields()).try_init(),
        LogFormat::Json => builder.json().event_format(json::Flat).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_raises_the_level_until_the_end() {
        assert_eq!(LogLevel::Warn.raised(0), LogLevel::Warn);
        assert_eq!(LogLevel::Warn.raised(1), LogLevel::Info);
        assert_eq!(LogLevel::Info.raised(9), LogLevel::Trace);
    }
}
