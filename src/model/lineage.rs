//! The lineage: which passes of the allocator a store has in its past.
//!
//! Revisions alone do not prove that a store is the one that it was: a restore may raise them above everything that was seen, and
//! mark all of the past as compacted. So the allocator counts its passes in one key, and every assignment carries the *mark* of the
//! pass that wrote it. A store whose chain lacks a mark was restored from a backup that is older than that assignment.

use std::fmt;
use std::str::FromStr;

/// Epochs that are kept. A new one begins with each term of a leader, so they reach back over the last 64 changes of leaders; a chain
/// of 64 is less than 3 KiB, which each pass writes.
pub const EPOCHS_MAX: usize = 64;

/// A random number that tells two epochs of one sequence number apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

/// A moment in the life of a store: an epoch and a count of passes in it. Written as `41.9f3c00a1b2c3d4e5.17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The number of the epoch.
    pub seq: u64,
    /// Which epoch of that number.
    pub nonce: Nonce,
    /// How far it had been counted.
    pub count: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}.{}", self.seq, self.nonce.0, self.count)
    }
}

impl FromStr for Mark {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('.');
            let (seq, nonce, count) = (parts.next()?, parts.next()?, parts.next()?);
            let nonce = Nonce(u64::from_str_radix(nonce, 16).ok()?);
            let mark = Mark { seq: seq.parse().ok()?, nonce, count: count.parse().ok()? };
            // One spelling only: equal marks have equal forms.
            (parts.next().is_none() && mark.to_string() == text).then_some(mark)
        };
        parse().ok_or_else(|| format!("mark {text:?} is not of the form NUMBER.16-HEX-DIGITS.NUMBER"))
    }
}

/// What a chain says of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The pass is in the past of this store, as a whole.
    Known,
    /// The pass is not in the past of this store: the store was restored from an older backup, or emptied.
    Lost,
    /// The pass began and did not end in this store: its leader ended within it, or the backup was made within it.
    Unfinished,
    /// The chain does not reach back that far.
    Unknown,
}

/// The epochs of a store, newest first: the last mark of each. Sequence numbers fall by one from each to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    epochs: Vec<Mark>,
    /// While there are none: the number that the first one follows.
    after: u64,
}

impl Chain {
    /// A chain of epochs, newest first.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn new(epochs: Vec<Mark>) -> Result<Chain, String> {
        let falls = |pair: &[Mark]| pair[1].seq.checked_add(1) == Some(pair[0].seq);
        if epochs.is_empty() {
            return Err("a lineage has at least one epoch".into());
        }
        if !epochs.windows(2).all(falls) {
            return Err("the numbers of a lineage's epochs fall by one".into());
        }
        Ok(Chain { epochs, after: 0 })
    }

    /// The epochs, newest first.
    pub fn epochs(&self) -> &[Mark] {
        &self.epochs
    }

    /// The newest epoch with its count.
    pub fn head(&self) -> Option<Mark> {
        self.epochs.first().copied()
    }

    /// What it says of a mark.
    pub fn knows(&self, mark: Mark) -> Verdict {
        let Some(head) = self.head().filter(|head| head.seq >= mark.seq) else { return Verdict::Lost };
        // Invariant: numbers fall by one, so the distance from the head is the place.
        let place = usize::try_from(head.seq - mark.seq).ok();
        let Some(epoch) = place.and_then(|place| self.epochs.get(place)) else { return Verdict::Unknown };
        match (epoch.nonce == mark.nonce, epoch.count.cmp(&mark.count)) {
            (false, _) | (true, std::cmp::Ordering::Less) => Verdict::Lost,
            (true, std::cmp::Ordering::Equal) => Verdict::Unfinished,
            (true, std::cmp::Ordering::Greater) => Verdict::Known,
        }
    }

    /// A chain whose first epoch comes after this number, for a store that has marks but no chain: of those it knows nothing.
    pub fn after(seq: u64) -> Chain {
        Chain { epochs: Vec::new(), after: seq }
    }

    /// This chain with one more epoch, counted from 0; the oldest beyond [`EPOCHS_MAX`] are dropped.
    #[must_use]
    pub fn begin(&self, nonce: Nonce) -> Chain {
        let seq = self.head().map_or(self.after, |head| head.seq).saturating_add(1);
        let first = Mark { seq, nonce, count: 0 };
        Chain { epochs: std::iter::once(first).chain(self.epochs.iter().copied()).take(EPOCHS_MAX).collect(), after: 0 }
    }

    /// This chain, counted on in its newest epoch.
    #[must_use]
    pub fn count(&self, by: u64) -> Chain {
        let mut chain = self.clone();
        if let Some(head) = chain.epochs.first_mut() {
            head.count = head.count.saturating_add(by);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn mark(text: &str) -> Mark {
        let (seq, rest) = text.split_once('.').unwrap();
        let (nonce, count) = rest.split_once('.').unwrap();
        Mark { seq: seq.parse().unwrap(), nonce: Nonce(nonce.parse().unwrap()), count: count.parse().unwrap() }
    }

    fn chain(epochs: &[&str]) -> Chain {
        Chain::new(epochs.iter().map(|text| mark(text)).collect()).unwrap()
    }

    #[test]
    fn a_mark_has_one_spelling() {
        let text = "41.00000000000000ff.17";
        assert_eq!(text.parse::<Mark>().unwrap().to_string(), text);
        for bad in
            ["", "41", "41.ff.17", "41.00000000000000FF.17", "041.00000000000000ff.17", "41.00000000000000ff.17.1", "a.b.c"]
        {
            assert!(bad.parse::<Mark>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chain_tells_which_passes_it_has() {
        let chain = chain(&["7.70.4", "6.60.9", "5.50.2"]);
        for (of, expected) in [
            ("7.70.3", Verdict::Known),
            ("7.70.4", Verdict::Unfinished),
            ("7.70.5", Verdict::Lost),
            ("7.71.1", Verdict::Lost),
            ("8.80.1", Verdict::Lost),
            ("6.60.1", Verdict::Known),
            ("6.60.9", Verdict::Unfinished),
            ("6.60.10", Verdict::Lost),
            ("6.61.1", Verdict::Lost),
            ("5.50.1", Verdict::Known),
            ("4.40.1", Verdict::Unknown),
            ("4.41.1", Verdict::Unknown),
        ] {
            assert_eq!(chain.knows(mark(of)), expected, "{of}");
        }
        assert_eq!(Chain::default().knows(mark("1.1.1")), Verdict::Lost, "a store without a chain has no pass in its past");
    }

    #[test]
    fn what_is_counted_on_after_a_backup_is_lost_by_its_restore() {
        let backup = chain(&["3.30.4"]);
        let of_the_lost_pass = backup.count(1).head().unwrap();
        // The leader that goes on in the restored store begins an epoch, and counts past the lost pass.
        let restored = backup.begin(Nonce(99)).count(20);
        assert_eq!(restored.knows(of_the_lost_pass), Verdict::Lost);
        let in_a_lost_epoch = backup.begin(Nonce(31)).count(1).head().unwrap();
        assert_eq!(restored.knows(in_a_lost_epoch), Verdict::Lost);
        assert_eq!(restored.knows(mark("3.30.3")), Verdict::Known);
    }

    #[test]
    fn a_chain_is_bounded_and_knows_its_newest_epochs() {
        let mut chain = Chain::default();
        let mut heads = Vec::new();
        for nonce in 0..200 {
            chain = chain.begin(Nonce(nonce)).count(1);
            heads.push(chain.head().unwrap());
            chain = chain.count(1);
        }
        assert_eq!(chain.epochs().len(), EPOCHS_MAX);
        assert!(Chain::new(chain.epochs().to_vec()).is_ok());
        for (age, head) in heads.iter().rev().enumerate() {
            let expected = if age < EPOCHS_MAX { Verdict::Known } else { Verdict::Unknown };
            assert_eq!(chain.knows(*head), expected, "{age}");
        }
    }

    #[test]
    fn a_chain_with_gaps_is_none() {
        assert!(Chain::new(vec![]).is_err());
        assert!(Chain::new(vec![mark("7.70.4"), mark("5.50.2")]).is_err());
        assert!(Chain::new(vec![mark("6.70.4"), mark("7.50.2")]).is_err());
    }
}
