//! The watch machine: what may be believed of a watch, and when everything must be read again. Pure.
//!
//! It owns the resume point. It never talks to a store: [`crate::store::feed`] feeds it and does what it says. Every rule
//! here is the answer to a fault in somebody's watch code or in etcd itself.

use std::collections::BTreeSet;

use crate::model::names::Revision;
use crate::store::api::{Event, Header, Key, KeyRange, KeyValue, RangeResponse, WatchMessage};

/// A watcher that is further behind than this drops its watch and reads again: etcd serves a lagging watcher about 8,000
/// revisions a second and suffers from it, while a read of 5,000 keys takes 10 ms.
pub const BEHIND_MAX: i64 = 20_000;
/// … or further than a revision for so many keys, where there are many of them: a million keys take ten seconds and more to read
/// on a busy etcd, in which it serves 100,000 revisions.
const KEYS_A_REVISION: i64 = 10;
/// A watcher that lags is told so many revisions in one message (`watchBatchMaxRevs`).
const FULL: usize = 1_000;
/// So many told revisions of a stream are remembered, to tell a repeated event from one that comes too late.
const TOLD_MAX: usize = 4_096;

/// Why everything is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reread {
    /// The first read.
    Start,
    /// The resume point was compacted.
    Compacted,
    /// The store is another one, or went back: a backup was restored.
    SteppedBack,
    /// Nothing was seen yet by which the store could be recognised.
    Unsure,
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
            Reread::Unsure => "unsure",
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
    /// The member that serves the watch is behind what was seen: ask the store whether it is the one that it was.
    Doubt,
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
    /// What was written; `None` = it was deleted. The value counts too: what writes into a restored store is what wrote
    /// before, so the same key may well be written at the same revision again.
    pub held: Option<KeyValue>,
}

impl Witness {
    fn of(event: &Event) -> Self {
        let held = if let Event::Put(kv) = event { Some(kv.clone()) } else { None };
        Witness { key: event.key().clone(), revision: event.revision(), held }
    }

    /// Whether the key, read as of the witness' revision, is what was seen.
    pub fn agrees(&self, read: Option<&KeyValue>) -> bool {
        read == self.held.as_ref()
    }
}

/// What a machine notes of a listing, page by page.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// The last write in it.
    newest: Option<KeyValue>,
    /// Something in it is older than it was seen.
    is_older: bool,
    keys: i64,
}

/// What is known of a watch.
#[derive(Debug, Clone)]
pub struct WatchMachine {
    ranges: Vec<KeyRange>,
    cluster_id: u64,
    /// Everything up to and including this revision was told.
    seen: Revision,
    /// The revision of the last event, or of the listing before it. Progress moves `seen` on, not this: it proves that nothing
    /// happened up to there in *this* store, and a restored one may have passed that revision with other events.
    proven: Revision,
    /// Further behind than this it reads again.
    behind_max: i64,
    /// See [`WatchMachine::lag`].
    lag: i64,
    /// Nothing was told since the listing.
    only_listed: bool,
    /// What had been seen when the present stream was opened.
    seen_before: Revision,
    /// The last write to our ranges.
    own: Option<Witness>,
    /// The last write seen, of whatever key the stream tells.
    written: Option<Witness>,
    /// The last deletion seen, if it came after that write. Alone it proves little: a restored store may never have had the key.
    deleted: Option<Witness>,
    fragments: Vec<Event>,
    /// The revisions after `told_after` whose events were told.
    told: BTreeSet<Revision>,
    told_after: Revision,
    /// The member whose progress answers are barriers.
    trusted_member: Option<u64>,
}

impl WatchMachine {
    /// A machine that has seen nothing.
    pub fn new(ranges: Vec<KeyRange>) -> Self {
        WatchMachine {
            ranges,
            cluster_id: 0,
            seen: Revision::NONE,
            proven: Revision::NONE,
            behind_max: BEHIND_MAX,
            lag: 0,
            only_listed: true,
            seen_before: Revision::NONE,
            own: None,
            written: None,
            deleted: None,
            fragments: Vec::new(),
            told: BTreeSet::new(),
            told_after: Revision::NONE,
            trusted_member: None,
        }
    }

    /// The revision to watch from.
    pub fn resume(&self) -> Revision {
        self.proven.next()
    }

    /// Whether a stream that broke may be resumed once the witnesses are recognised. They prove the past up to the last event;
    /// where there was none since the listing, what was deleted before the listing is proven by nothing.
    pub fn can_resume(&self) -> bool {
        !self.only_listed && self.witnesses().next().is_some()
    }

    /// The last revision that was told.
    pub fn seen(&self) -> Revision {
        self.seen
    }

    /// How many revisions the stream was behind the store when it sent its last events.
    pub fn lag(&self) -> i64 {
        self.lag
    }

    /// Whether a watch that began so may go on from where this stands, later: of the same cluster, and not of a past of it.
    pub fn may_go_on(&self, began: &Header) -> bool {
        began.cluster_id == self.cluster_id && began.revision >= self.seen
    }

    /// Whether events, not only progress, were told up to where a watch began.
    pub fn reached(&self, began: Revision) -> bool {
        began <= self.proven
    }

    /// Another watch goes on, which tells some of what was told again. What the former one left unfinished will come again.
    pub fn taken_over(&mut self) {
        self.fragments.clear();
        self.lag = 0;
        self.trusted_member = None;
    }

    /// What to ask the store before a watch is resumed; none = nothing was ever seen: read again.
    pub fn witnesses(&self) -> impl Iterator<Item = &Witness> {
        self.written.iter().chain(&self.deleted)
    }

    /// Whether a linearizable read of a witness, as of its revision, is of the store that was followed.
    pub fn recognises(&self, witness: &Witness, read: &RangeResponse) -> bool {
        read.header.cluster_id == self.cluster_id && read.header.revision >= self.seen && witness.agrees(read.kvs.first())
    }

    /// The progress answers of this member are barriers (servers ≥ 3.4.25 / 3.5.8). Older ones answer with the store's
    /// revision while events are still owed: there they are a sign of life only. By member, because the one that told its
    /// version need not be the one that serves the watch: a cluster in a rolling upgrade has both kinds.
    pub fn trust_progress_of(&mut self, member: Option<u64>) {
        self.trusted_member = member;
    }

    /// Takes note of a page of a listing.
    pub fn page(&self, listed: &mut Listed, kvs: &[KeyValue]) {
        // A key is never older than it was; if it is gone that proves nothing.
        let older = |kv: &KeyValue| self.own.as_ref().is_some_and(|w| w.key == kv.key && kv.mod_revision < w.revision);
        listed.is_older |= kvs.iter().any(older);
        listed.keys = listed.keys.saturating_add_unsigned(kvs.len() as u64);
        let newest = kvs.iter().max_by_key(|kv| kv.mod_revision);
        if let Some(newest) =
            newest.filter(|kv| listed.newest.as_ref().is_none_or(|before| kv.mod_revision > before.mod_revision))
        {
            listed.newest = Some(newest.clone());
        }
    }

    /// Everything was read whole: all pages were taken note of. Answers whether the store stepped back.
    pub fn reread(&mut self, header: &Header, listed: Listed) -> bool {
        let is_known = self.cluster_id != 0;
        let stepped_back = is_known && (header.cluster_id != self.cluster_id || header.revision < self.seen || listed.is_older);
        self.cluster_id = header.cluster_id;
        self.seen = header.revision;
        self.behind_max = BEHIND_MAX.max(listed.keys / KEYS_A_REVISION);
        (self.proven, self.only_listed) = (self.seen, true);
        self.restart();
        self.written = listed.newest.map(|kv| Witness { key: kv.key.clone(), revision: kv.mod_revision, held: Some(kv) });
        self.own.clone_from(&self.written);
        self.deleted = None;
        stepped_back
    }

    /// A new watch stream is opened: what a former one left unfinished is thrown away and will come again.
    pub fn reopened(&mut self) {
        self.restart();
        self.trusted_member = None;
    }

    fn restart(&mut self) {
        self.fragments.clear();
        self.lag = 0;
        self.told.clear();
        self.told_after = self.proven;
        self.seen_before = self.seen;
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

    /// A start in the future would be silence for ever, in a store that stepped back. But the header is one member's: a
    /// follower that lags, or has just been restarted, is behind as well, and will deliver.
    fn created(&mut self, header: Header) -> Verdict {
        if header.cluster_id != 0 && header.cluster_id != self.cluster_id {
            return Verdict::Reread(Reread::SteppedBack);
        }
        if header.revision < self.seen { Verdict::Doubt } else { Verdict::Nothing }
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
        let behind = header.revision.0.saturating_sub(upto.0);
        self.lag = lag_of(&header, upto, events.len());
        if behind > self.behind_max {
            return Verdict::Reread(Reread::Behind);
        }
        // Old events are usual (see etcd's list of faults), repeated ones too; one that was never told comes too late.
        let (seen, after) = (self.seen, self.told_after);
        let is_late = |at: Revision| at <= seen && at > after && !self.told.contains(&at);
        if let Some(late) = events.iter().find(|event| is_late(event.revision())) {
            // Race: the store was restored, and has passed what was seen before anybody could ask it. Before, there was nothing
            // at this revision.
            let is_another_past = late.revision() <= self.seen_before;
            return Verdict::Reread(if is_another_past { Reread::SteppedBack } else { Reread::Disorder });
        }
        if upto <= seen {
            return Verdict::Nothing; // duplicates of a resumed watch (servers before 3.4.24 / 3.5.8)
        }
        events.retain(|event| event.revision() > seen);
        self.seen = upto;
        (self.proven, self.only_listed) = (upto, false);
        self.remember(&events);
        if let Some(write) = events.iter().rfind(|event| matches!(event, Event::Put(_))) {
            (self.written, self.deleted) = (Some(Witness::of(write)), None);
        }
        if let Some(delete) = events.last().filter(|event| matches!(event, Event::Delete { .. })) {
            self.deleted = Some(Witness::of(delete));
        }
        let ranges = &self.ranges;
        events.retain(|event| ranges.iter().any(|range| range.contains(event.key())));
        if let Some(write) = events.iter().rfind(|event| matches!(event, Event::Put(_))) {
            self.own = Some(Witness::of(write));
        }
        Verdict::Apply(upto, events)
    }

    fn remember(&mut self, events: &[Event]) {
        self.told.extend(events.iter().map(Event::revision));
        while self.told.len() > TOLD_MAX
            && let Some(oldest) = self.told.pop_first()
        {
            self.told_after = oldest;
        }
    }

    fn progress(&mut self, header: Header) -> Verdict {
        if header.cluster_id != 0 && header.cluster_id != self.cluster_id {
            return Verdict::Reread(Reread::SteppedBack);
        }
        if self.trusted_member == Some(header.member_id) && self.fragments.is_empty() && header.revision > self.seen {
            self.seen = header.revision;
            self.lag = 0;
            return Verdict::Apply(self.seen, Vec::new());
        }
        Verdict::Nothing
    }
}

/// How many revisions a stream was behind the store when it sent a whole message of so many events up to a revision. 0 if they do
/// not fill a message of one that lags: then nothing is owed, however much others wrote.
pub fn lag_of(header: &Header, upto: Revision, events: usize) -> i64 {
    if events >= FULL { header.revision.0.saturating_sub(upto.0) } else { 0 }
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
