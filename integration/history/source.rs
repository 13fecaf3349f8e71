//! Checks the source revision by revision: no double grant, every claim has its assignment and the reverse, and no
//! assignment moves or disappears without a reason.

use std::collections::BTreeSet;

use enlist::allocator::{Listing, View};
use enlist::model::names::Revision;
use enlist::plan::check::check;
use enlist::plan::snapshot::Snapshot;
use enlist::store::api::Event;
use enlist::store::feed::Update;
use enlist::store::keys::{ParsedKey, Prefix};

use super::steps::{Allowed, Rules, Times};

/// Unreadable claims are written by hand: the check finds them, and no role may touch them.
const BY_HAND: &str = "claim-unreadable";

/// A walk through the history of a source, from its first revision on.
#[derive(Debug)]
pub(crate) struct Walk {
    prefix: Prefix,
    rules: Rules,
    view: View,
    /// The violations at the revision before: each is reported once, not at every revision that it lasts.
    standing: BTreeSet<String>,
    revisions: u64,
}

impl Walk {
    /// Starts before the first revision.
    pub(crate) fn new(prefix: Prefix, allowed: Allowed, times: Times) -> Walk {
        let mut view = View::new(prefix.clone());
        view.apply(Update::Reset {
            revision: Revision(1),
            cluster_id: 0,
            kvs: Listing::new(prefix.clone()),
            stepped_back: false,
        });
        Walk { rules: Rules::new(prefix.clone(), allowed, times), prefix, view, standing: BTreeSet::new(), revisions: 0 }
    }

    /// The number of revisions taken.
    pub(crate) fn revisions(&self) -> u64 {
        self.revisions
    }

    /// The state after the last revision taken.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        self.view.snapshot()
    }

    /// Takes the next revision. Returns the violations that are new with it.
    pub(crate) fn take(&mut self, revision: Revision, events: Vec<Event>) -> Vec<String> {
        self.revisions += 1;
        let parsed: Vec<ParsedKey> = events.iter().map(|event| self.prefix.parse(event.key())).collect();
        let before = self.rules.before(&events, self.view.snapshot());
        self.view.apply(Update::Events { revision, events });
        let concerns = |key: &ParsedKey| matches!(key, ParsedKey::Node(..) | ParsedKey::Claim(_) | ParsedKey::Pool(_));
        if !parsed.iter().any(concerns) {
            return Vec::new();
        }
        let found = check(self.snapshot()).into_iter().filter(|finding| finding.code != BY_HAND);
        let now: BTreeSet<String> = found.map(|finding| finding.to_string()).collect();
        let mut wrong: Vec<String> = now.difference(&self.standing).map(|what| format!("at {revision:?}: {what}")).collect();
        self.standing = now;
        let steps = self.rules.step(revision, &before, self.view.snapshot());
        wrong.extend(steps.into_iter().map(|why| format!("at {revision:?}: {why}")));
        wrong
    }
}
