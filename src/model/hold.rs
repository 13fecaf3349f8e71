//! Holds: a node is away, and what it has is kept for it. Written by the allocator, deleted by the node's join.
//!
//! etcd counts the time: the sibling key `hold/clock` is on a lease of the hold's length; when it is gone, time is up.

use std::fmt;
use std::str::FromStr;

/// A node is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// How far it is.
    pub state: HoldState,
    /// Its clock was started again once, because the brake was on when it ended.
    pub extended: bool,
    /// The length of the present clock in seconds, for people.
    pub seconds: u64,
    /// When the state began, RFC 3339, for people.
    pub since: String,
}

/// How far a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldState {
    /// The allocator saw that the node is away; no clock runs yet. (Two steps, so that a late write cannot start a spent
    /// clock in a second absence.)
    Seen,
    /// Its clock runs; when it is gone the claims are released.
    Held,
    /// Released; when the clock of `forget` is gone, label and status go too.
    Released,
}

impl HoldState {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldState::Seen => "seen",
            HoldState::Held => "held",
            HoldState::Released => "released",
        }
    }
}

impl fmt::Display for HoldState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for HoldState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [HoldState::Seen, HoldState::Held, HoldState::Released]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("state {text:?} is not one of seen, held, released"))
    }
}
