//! The brake: when many nodes fall silent at once, nothing is taken away. Stateless: every leader sees the same.

use serde::{Deserialize, Serialize};

use crate::model::names::Revision;
use crate::plan::snapshot::{NodeRecord, Snapshot};

/// At least so many silent nodes …
pub const SILENT_MIN: usize = 3;
/// … and at least this share of the bound ones, in per cent. (Eureka's self-preservation uses 15 %.)
pub const SILENT_PERCENT_MIN: usize = 15;
/// A hold that ends while the brake is on is put again once, for this long.
pub const EXTENSION_S: u64 = 3600;
/// After that at most this share of the bound nodes a minute is released, in per cent.
pub const RELEASE_PERCENT_PER_MINUTE: usize = 15;

/// What the brake sees in one snapshot; counted in [`Index`](crate::plan::index::Index).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brake {
    /// Nodes that have addresses (or addresses in `leaving`).
    pub bound: usize,
    /// Those of them that are silent. Stopped ones do not count.
    pub silent: usize,
}

impl Brake {
    /// Whether nothing may be taken away.
    ///
    /// ```
    /// use enlist::plan::brake::Brake;
    /// assert!(Brake { bound: 20, silent: 3 }.is_on());
    /// assert!(!Brake { bound: 21, silent: 3 }.is_on()); // 14.3 %
    /// assert!(!Brake { bound: 3, silent: 1 }.is_on()); // one of three is no mass loss
    /// ```
    pub fn is_on(self) -> bool {
        self.silent >= SILENT_MIN && self.silent * 100 >= self.bound * SILENT_PERCENT_MIN
    }
}

/// What a role's brake does. The words are part of the interface: `roles/<role>`, `get roles`, `enlist brake` and logs use them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrakeState {
    /// Nothing is held back.
    #[default]
    Off,
    /// Too much went away at once: what it would lose is held.
    On,
    /// Too much is still away, but an operator let go all that was away by then.
    Released,
    /// Nobody leads who could say, or a newer enlist has a word that this one does not know.
    #[serde(other)]
    Unknown,
}

impl BrakeState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            BrakeState::Off => "off",
            BrakeState::On => "on",
            BrakeState::Released => "released",
            BrakeState::Unknown => "unknown",
        }
    }

    /// Whether what it sees is too much, and whether it still holds anything.
    pub fn of(is_on: bool, holds_any: bool) -> BrakeState {
        match (is_on, holds_any) {
            (false, _) => BrakeState::Off,
            (true, true) => BrakeState::On,
            (true, false) => BrakeState::Released,
        }
    }
}

/// What the allocator's brake does. A release counts for the holds that were there; a node without one fell silent just now.
pub fn state(snapshot: &Snapshot, brake: Brake) -> BrakeState {
    let released = snapshot.brake_released;
    let is_held = |hold: Option<Revision>| hold.is_none_or(|hold| hold > released);
    let hold = |record: &NodeRecord| record.hold.as_deref().map(|hold| hold.mod_revision);
    // Only while it is on and was released at all is there more to look at than two numbers.
    let holds_any = brake.is_on()
        && (released == Revision::NONE || snapshot.nodes.values().any(|record| record.is_silent() && is_held(hold(record))));
    BrakeState::of(brake.is_on(), holds_any)
}
