//! How an agent ended.

use crate::store::api::StoreError;

/// The exit code of a child that SIGTERM ended.
const ENDED_BY_TERM: i32 = 128 + 15;

/// How an agent ended, and with which exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentExit {
    /// Why.
    pub ending: Ending,
    /// The child's exit code, if one was started; 128 + n for a signal.
    pub child: Option<i32>,
}

/// Why an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop; what it has is held for it.
    Stopped,
    /// It left for good.
    Left,
    /// Its child ended by itself.
    ChildEnded,
    /// Its id is somebody else's. One line that names both sides and what to do.
    Conflict(String),
    /// Another run of this instance took over.
    Superseded(String),
    /// The store never let it in.
    Refused(StoreError),
    /// Its settings do not work.
    Settings(String),
    /// Its host does not let it work (state directory, temporary endpoint).
    Host(String),
}

impl AgentExit {
    /// The process' exit code: 0 if the agent was told to stop and its child ended by the agent's own TERM, else the child's once one was
    /// started and it ended in order; 5 for a conflict, 6 for a store that
    /// refused, 2 for settings, 1 for the host.
    pub fn code(&self) -> i32 {
        match &self.ending {
            // A service manager takes any other code of an orderly stop for a failure.
            Ending::Stopped | Ending::Left if self.child == Some(ENDED_BY_TERM) => 0,
            Ending::Stopped | Ending::Left | Ending::ChildEnded => self.child.unwrap_or(0),
            Ending::Conflict(_) | Ending::Superseded(_) => 5,
            Ending::Refused(_) => 6,
            Ending::Settings(_) => 2,
            Ending::Host(_) => 1,
        }
    }

    /// What went wrong, in one line; `None` = nothing.
    pub fn error(&self) -> Option<String> {
        match &self.ending {
            Ending::Stopped | Ending::Left | Ending::ChildEnded => None,
            Ending::Conflict(text) | Ending::Superseded(text) | Ending::Settings(text) | Ending::Host(text) => Some(text.clone()),
            Ending::Refused(error) => Some(error.to_string()),
        }
    }
}

impl Ending {
    pub(crate) fn alone(self) -> AgentExit {
        AgentExit { ending: self, child: None }
    }
}
