//! What keeps a relay from doing harm: loops, a second source, mass loss by a faulty read. Pure.

use crate::model::names::Revision;
use crate::plan::snapshot::Unreadable;
use crate::relay::diff::{Mirror, Proof};
use crate::store::api::KeyRange;
use crate::store::keys::Prefix;
use crate::store::wire::Checkpoint;

/// Fewer copies than this may always go.
pub const DELETES_MIN: usize = 10;
/// More than this share of the copies does not go by one read alone, in per cent.
pub const DELETES_PERCENT_MAX: usize = 30;

/// What a human must mend before a relay may run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The copies would be read as labels again, for ever.
    #[error(
        "the destination's {destination}/manager/ and the source's {source_prefix}/nodes/ lie inside each other in one cluster: a loop"
    )]
    Loop {
        /// The source's prefix.
        source_prefix: Prefix,
        /// The destination's prefix.
        destination: Prefix,
    },
    /// Two sources would delete each other's nodes for ever.
    #[error(
        "the destination holds copies of source {stored:?}, this relay's is {mine:?}: give it a destination of its own, or --adopt to take this one over"
    )]
    OtherSource {
        /// The name in the checkpoint.
        stored: String,
        /// The setting.
        mine: String,
    },
    /// What a newer relay wrote is not understood, so it must not be overwritten either.
    #[error("the destination's checkpoint has format v{0}, which is newer than this relay writes: upgrade it")]
    Newer(u64),
}

/// Refuses a destination that lies inside what is mirrored, or the reverse. `same_cluster` = both sites are one cluster.
///
/// # Errors
/// [`Refusal::Loop`].
pub fn no_loop(source: &Prefix, destination: &Prefix, same_cluster: bool) -> Result<(), Refusal> {
    let mirrored = source.folder("nodes");
    let written = destination.folder("manager");
    if same_cluster && overlap(&mirrored, &written) {
        return Err(Refusal::Loop { source_prefix: source.clone(), destination: destination.clone() });
    }
    Ok(())
}

/// Of two ranges that are prefixes, one is inside the other if they have a key in common at all.
fn overlap(a: &KeyRange, b: &KeyRange) -> bool {
    a.contains(&b.start) || b.contains(&a.start)
}

/// Refuses a destination that holds another source's copies, or those of a newer relay. A checkpoint that does not parse names
/// no source.
///
/// # Errors
/// [`Refusal::OtherSource`], [`Refusal::Newer`].
pub fn same_source(stored: Option<&Result<Checkpoint, Unreadable>>, mine: &str, adopt: bool) -> Result<(), Refusal> {
    match stored {
        Some(Err(Unreadable::Newer(version))) => Err(Refusal::Newer(*version)),
        Some(Ok(stored)) if stored.source != mine && !adopt => {
            Err(Refusal::OtherSource { stored: stored.source.clone(), mine: mine.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Whether the source is not the one it was: its name for the log; `None` = it is.
pub fn restored(mirror: &Mirror) -> Option<&'static str> {
    let stored = mirror.stored_checkpoint()?;
    if stored.cluster != mirror.source_cluster() {
        Some("other cluster")
    } else if stored.revision > mirror.source_revision() {
        Some("its revision went back")
    } else {
        None
    }
}

/// The checkpoint's revision where it is ahead of the view of the same cluster: either the source went back, or the view is old.
pub fn ahead(mirror: &Mirror) -> Option<Revision> {
    let stored = mirror.stored_checkpoint().filter(|stored| stored.cluster == mirror.source_cluster())?;
    Some(stored.revision).filter(|stored| *stored > mirror.source_revision())
}

/// What the brake says of the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write them.
    Go,
    /// So much would go by one read: a second one must agree first.
    SecondRead,
    /// The source is empty altogether: nothing goes before somebody says so.
    Empty,
}

/// Judges. `released` is the mod_revision of `brakes/relay`: it lets one emptying through, the checkpoint of which is then
/// the newer one.
pub fn judge(mirror: &Mirror, allow_empty: bool, released: Revision) -> Verdict {
    if mirror.proof() == Proof::Proven || mirror.copies() == 0 {
        return Verdict::Go;
    }
    let checkpoint = mirror.checkpoint().map_or(Revision::NONE, |seen| seen.mod_revision);
    if mirror.source_is_empty() && !allow_empty && released <= checkpoint {
        return Verdict::Empty;
    }
    let deletes = mirror.missing().count();
    if deletes >= DELETES_MIN && deletes * 100 > mirror.copies() * DELETES_PERCENT_MAX {
        return Verdict::SecondRead;
    }
    Verdict::Go
}
