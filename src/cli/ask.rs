//! What other commands ask of the agent that runs on this host, over the socket in its state directory: to leave, to set variables, to
//! read its settings again (`enlist reload`).

use std::path::PathBuf;

use super::args::{Common, FlagSettings};
use super::exit::{Exit, Fault};
use super::output;
use crate::agent::host::SetVariables;
use crate::agent::os::default_state_dir;
use crate::agent::socket::{LeaveError, request_leave, request_reload, request_set};
use crate::config::Loaded;
use crate::model::variables::{check_name, check_value};
use crate::telemetry;

/// Let the agent on this host read its settings again, as SIGHUP does
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// The agent's id, if it is not this host's name
    #[arg(long)]
    id: Option<String>,
    /// The agent's state directory [default: that of this host's id]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

/// `enlist reload`.
pub async fn reload(common: Common, args: ReloadArgs) -> anyhow::Result<Exit> {
    let mut flags = FlagSettings::default();
    flags.value("--state-dir", "agent.state_dir", args.state_dir.as_deref());
    flags.value("--id", "agent.id", args.id.as_deref());
    let loaded = common.settings(flags)?;
    telemetry::start(loaded.settings.log.format, common.level(&loaded, false), None);
    told(request_reload(&folder(&loaded)?).await, "name it by --id or --state-dir")
}

/// `K=V`, or `K-` for a variable that is to go: as `kubectl label` has it. No variable's name ends with `-`.
pub fn change(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text.strip_suffix('-').ok_or_else(|| format!("{text:?} is not K=V or K-"))?, None),
    };
    check_name(name)?;
    value.map_or(Ok(()), check_value)?;
    Ok((name.to_owned(), value.map(str::to_owned)))
}

/// Sets variables of the agent on this host.
///
/// # Errors
/// [`Fault::NotFound`] when none runs with that state directory; [`Fault::Conflict`] when it refuses.
pub async fn to_set(loaded: &Loaded, variables: SetVariables) -> anyhow::Result<Exit> {
    told(request_set(&folder(loaded)?, &variables).await, "name it by --id or --state-dir")
}

/// Asks the agent on this host to leave, and waits until it has.
///
/// # Errors
/// [`Fault::NotFound`] when none runs with that state directory; [`Fault::Conflict`] when it cannot leave.
pub async fn to_leave(loaded: &Loaded) -> anyhow::Result<Exit> {
    let left = request_leave(&folder(loaded)?).await.map(|()| "the agent has left; what it had is released".to_owned());
    told(left, "name it by --id or --state-dir; a node elsewhere that is away by enlist leave NODE")
}

fn told(answer: Result<String, LeaveError>, ways: &str) -> anyhow::Result<Exit> {
    match answer {
        Ok(text) => {
            output::line(text)?;
            Ok(Exit::Ok)
        }
        Err(error @ LeaveError::NoAgent { .. }) => Err(Fault::NotFound(format!("{error} ({ways})")).into()),
        Err(error) => Err(Fault::Conflict(error.to_string()).into()),
    }
}

fn folder(loaded: &Loaded) -> anyhow::Result<PathBuf> {
    match loaded.agent_state_dir() {
        Some(folder) => Ok(folder),
        None => Ok(default_state_dir(&loaded.agent_id()?).map_err(|error| Fault::Usage(error.to_string()))?),
    }
}

#[cfg(test)]
mod tests {
    use super::change;

    #[test]
    fn a_change_sets_or_removes_a_valid_variable() {
        let pair = |name: &str, value: Option<&str>| Ok((name.to_owned(), value.map(str::to_owned)));
        assert_eq!(change("zone=eu-1"), pair("zone", Some("eu-1")));
        assert_eq!(change("zone="), pair("zone", Some("")));
        assert_eq!(change("example.com/gpu-"), pair("example.com/gpu", None));
        for wrong in ["zone", "-", "=x", "zone=a b", "zone=-", "zo ne-"] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }
}
