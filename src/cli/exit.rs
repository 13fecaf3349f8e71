//! Exit codes, and which failure gets which.

use crate::config::ConfigError;
use crate::relay::guard::Refusal;
use crate::store::api::StoreError;

/// How a command ended, as other programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 1: something nobody thought of.
    Unexpected,
    /// 1 of `diff`: there is a difference, as `diff` and `kubectl diff` say it.
    Differs,
    /// 2: the command line, a document or a setting is wrong. Nothing was written.
    Usage,
    /// 3: `check` found something.
    Findings,
    /// 4: there is no such thing.
    NotFound,
    /// 5: somebody else has it, or it is in use.
    Conflict,
    /// 6: the store is unreachable, or refused.
    Store,
    /// The code of an agent's child, once it was started; 128 + n for a signal.
    Child(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Unexpected | Exit::Differs => 1,
            Exit::Usage => 2,
            Exit::Findings => 3,
            Exit::NotFound => 4,
            Exit::Conflict => 5,
            Exit::Store => 6,
            Exit::Child(code) => code,
        }
    }

    /// The code for an error: that of the first cause that has one.
    pub fn of(error: &anyhow::Error) -> Exit {
        error.chain().find_map(exit_of_cause).unwrap_or(Exit::Unexpected)
    }
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(fault) = cause.downcast_ref::<Fault>() {
        return Some(match fault {
            Fault::Usage(_) => Exit::Usage,
            Fault::NotFound(_) => Exit::NotFound,
            Fault::Conflict(_) => Exit::Conflict,
        });
    }
    if cause.downcast_ref::<ConfigError>().is_some() {
        return Some(Exit::Usage);
    }
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return Some(match refusal {
            Refusal::Loop { .. } => Exit::Usage,
            Refusal::OtherSource { .. } | Refusal::Newer(_) => Exit::Conflict,
        });
    }
    // Whatever etcd answers that no command expects, it refused.
    cause.downcast_ref::<StoreError>().map(|_| Exit::Store)
}

/// Whether it is the reader of our output that went away: no fault of ours, and nobody is there to be told.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe))
}

/// What a command says when it cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The command line or a document is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Somebody else has it, or it is in use.
    #[error("{0}")]
    Conflict(String),
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let refused = || Err::<(), _>(StoreError::Refused("invalid auth token".into()));
        let error = refused().context("failed to read pools").map_or_else(Some, |()| None);
        assert_eq!(error.as_ref().map(Exit::of), Some(Exit::Store));
        assert_eq!(Exit::of(&anyhow::anyhow!("x").context("y")), Exit::Unexpected);
        assert_eq!(Exit::of(&Fault::Conflict("x".into()).into()), Exit::Conflict);
        assert_eq!(Exit::of(&anyhow::Error::from(Refusal::Newer(2)).context("the relay ended")), Exit::Conflict);
        assert_eq!(Exit::of(&StoreError::NoSpace.into()), Exit::Store);
    }
}
