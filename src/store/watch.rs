//! The watch machine: what may be believed of a watch, and when everything must be read again. Pure.
//!
//! It owns the resume point. It never talks to a store: [`crate::store::feed`] feeds it and does what it says. Every rule
//! here is the answer to a fault in somebody's watch code or in etcd itself.

use crate::model::names::Revision;
use crate::store::api::{Event, Header, Key, KeyRange, KeyValue, RangeResponse, WatchMessage};

/// A watcher that is further behind than this drops its watch and reads again: etcd serves a lagging watcher about 8,000
/// revisions a second and suffers from it, while a read of 5,000 keys takes 10 ms.
pub const BEHIND_MAX: i64 = 20_000;

/// Why everything is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reread {
    /// The first read.
    Start,
    /// The resume point was compacted.
    Compacted,
    /// The store is another one, or went back: a backup was restored.
    SteppedBack,
    /// Too far behind to follow.
    Behind,
    /// Events came out of order.
    Disorder,
    /// The slow check of what watches may have lost.
    Verify,
}

impl Reread {
    /// A word for logs and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Reread::Start => "start",
            Reread::Compacted => "compacted",
            Reread::SteppedBack => "stepped-back",
            Reread::Behind => "behind",
            Reread::Disorder => "disorder",
            Reread::Verify => "verify",
        }
    }
}

/// What to do after a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// These whole revisions are new, up to and including the revision named.
    Apply(Revision, Vec<Event>),
    /// Drop the watch and read everything again.
    Reread(Reread),
    /// Drop the watch and resume from [`WatchMachine::resume`].
    Reconnect(String),
}

/// Something seen at a revision, by which a store can be recognised: after a restore it is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The key.
    pub key: Key,
    /// When it was written or deleted.
    pub revision: Revision,
    /// Whether it was written (else deleted).
    pub written: bool,
}

impl Witness {
    /// Whether the key, read as of the witness' revision, is what was seen.
    pub fn agrees(&self, read: Option<&KeyValue>) -> bool {
        match read {
            Some(kv) => self.written && kv.mod_revision == self.revision,
            None => !self.written,
        }
    }
}

/// What is known of a watch.
#[derive(Debug, Clone)]
pub struct WatchMachine {
    ranges: Vec<KeyRange>,
    cluster_id: u64,
    /// Everything up to and including this revision was told.
    seen: Revision,
    witness: Option<Witness>,
    fragments: Vec<Event>,
    /// The member whose progress answers are barriers.
    trusted_member: Option<u64>,
}

impl WatchMachine {
    /// A machine that has seen nothing.
    pub fn new(ranges: Vec<KeyRange>) -> Self {
        WatchMachine { ranges, cluster_id: 0, seen: Revision::NONE, witness: None, fragments: Vec::new(), trusted_member: None }
    }

    /// The revision to watch from.
    pub fn resume(&self) -> Revision {
        self.seen.next()
    }

    /// The last revision that was told.
    pub fn seen(&self) -> Revision {
        self.seen
    }

    /// What to ask the store before a watch is resumed; `None` = nothing was ever seen: read again.
    pub fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    /// The progress answers of this member are barriers (servers ≥ 3.4.25 / 3.5.8). Older ones answer with the store's
    /// revision while events are still owed: there they are a sign of life only. By member, because the one that told its
    /// version need not be the one that serves the watch: a cluster in a rolling upgrade has both kinds.
    pub fn trust_progress_of(&mut self, member: Option<u64>) {
        self.trusted_member = member;
    }

    /// Everything was read whole. Answers whether the store stepped back.
    pub fn reread(&mut self, listing: &RangeResponse) -> bool {
        let stepped_back =
            self.cluster_id != 0 && (listing.header.cluster_id != self.cluster_id || listing.header.revision < self.seen);
        self.cluster_id = listing.header.cluster_id;
        self.seen = listing.header.revision;
        self.fragments.clear();
        self.witness = listing.kvs.iter().max_by_key(|kv| kv.mod_revision).map(|kv| Witness {
            key: kv.key.clone(),
            revision: kv.mod_revision,
            written: true,
        });
        stepped_back
    }

    /// A new watch stream is opened: what a former one left unfinished is thrown away and will come again.
    pub fn reopened(&mut self) {
        self.fragments.clear();
        self.trusted_member = None;
    }

    /// Takes a message of the stream.
    pub fn message(&mut self, message: WatchMessage) -> Verdict {
        match message {
            WatchMessage::Created(header) => self.created(header),
            WatchMessage::Events { header, events, fragment } => self.events(header, events, fragment),
            WatchMessage::Progress(header) => self.progress(header),
            WatchMessage::Canceled { compacted, .. } if compacted > Revision::NONE => Verdict::Reread(Reread::Compacted),
            WatchMessage::Canceled { reason, .. } => Verdict::Reconnect(format!("canceled by etcd: {reason}")),
        }
    }

    /// A start in the future would be silence for ever.
    fn created(&mut self, header: Header) -> Verdict {
        let other_cluster = header.cluster_id != 0 && header.cluster_id != self.cluster_id;
        if other_cluster || header.revision < self.seen {
            return Verdict::Reread(Reread::SteppedBack);
        }
        Verdict::Nothing
    }

    fn events(&mut self, header: Header, events: Vec<Event>, fragment: bool) -> Verdict {
        self.fragments.extend(events);
        if fragment {
            return Verdict::Nothing;
        }
        let mut events = std::mem::take(&mut self.fragments);
        if events.windows(2).any(|pair| pair[0].revision() > pair[1].revision()) {
            return Verdict::Reread(Reread::Disorder);
        }
        let Some(last) = events.last() else { return Verdict::Nothing };
        let upto = last.revision();
        if header.revision.0.saturating_sub(upto.0) > BEHIND_MAX {
            return Verdict::Reread(Reread::Behind);
        }
        let seen = self.seen;
        if upto <= seen {
            return Verdict::Nothing; // duplicates of a resumed watch (servers before 3.4.24 / 3.5.8)
        }
        events.retain(|event| event.revision() > seen);
        self.seen = upto;
        let ranges = &self.ranges;
        events.retain(|event| ranges.iter().any(|range| range.contains(event.key())));
        if let Some(event) = events.last() {
            self.witness =
                Some(Witness { key: event.key().clone(), revision: event.revision(), written: matches!(event, Event::Put(_)) });
        }
        Verdict::Apply(upto, events)
    }

    fn progress(&mut self, header: Header) -> Verdict {
        if header.cluster_id != 0 && header.cluster_id != self.cluster_id {
            return Verdict::Reread(Reread::SteppedBack);
        }
        if self.trusted_member == Some(header.member_id) && self.fragments.is_empty() && header.revision > self.seen {
            self.seen = header.revision;
            return Verdict::Apply(self.seen, Vec::new());
        }
        Verdict::Nothing
    }
}

/// Whether a server of this version answers progress requests only when nothing is owed.
pub fn progress_is_barrier(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match version {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        version => version >= (3, 6, 0),
    }
}

#[cfg(test)]
mod tests;
