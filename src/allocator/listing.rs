//! What an allocator makes of a listing while it is read: the typed content, without the keys and values that it came as.

use crate::model::claim::{Claim, ClaimKey};
use crate::model::names::{NodeId, Revision};
use crate::plan::snapshot::{NodeRecord, Snapshot, Stored};
use crate::store::api::KeyValue;
use crate::store::feed::Collect;
use crate::store::keys::{ParsedKey, Prefix, Role};

use super::view::{drop_prose, pool, set, stored};

/// A listing on its way to a [`Snapshot`]. Nodes and claims are lists until all of them are there: maps that are made of whole
/// lists are packed, those that grow key by key are half empty.
#[derive(Debug)]
pub struct Listing {
    prefix: Prefix,
    nodes: Vec<(NodeId, NodeRecord)>,
    claims: Vec<(ClaimKey, Stored<Claim>)>,
    rest: Snapshot,
}

impl Listing {
    /// Nothing yet.
    pub fn new(prefix: Prefix) -> Self {
        Listing { prefix, nodes: Vec::new(), claims: Vec::new(), rest: Snapshot::default() }
    }

    /// A whole one, with all that is for people. In key order.
    pub fn of<'a>(prefix: Prefix, kvs: impl IntoIterator<Item = &'a KeyValue>) -> Self {
        let mut listing = Listing::new(prefix);
        kvs.into_iter().for_each(|kv| listing.take(kv));
        listing
    }

    /// The content, as of this revision.
    pub fn into_snapshot(self, revision: Revision) -> Snapshot {
        Snapshot { revision, nodes: self.nodes.into_iter().collect(), claims: self.claims.into_iter().collect(), ..self.rest }
    }

    /// The record of a node. All keys of one follow each other.
    fn record(&mut self, node: NodeId) -> &mut NodeRecord {
        if self.nodes.last().is_none_or(|(last, _)| *last != node) {
            self.nodes.push((node, NodeRecord::default()));
        }
        // Invariant: one was pushed if there was none.
        let last = self.nodes.len() - 1;
        &mut self.nodes[last].1
    }

    fn take(&mut self, kv: &KeyValue) {
        match self.prefix.parse(&kv.key) {
            ParsedKey::Node(node, part) => set(self.record(node.clone()), part, kv, &node),
            ParsedKey::Claim(key) => self.claims.push((key, stored(kv))),
            ParsedKey::Pool(name) => {
                let pool = pool(kv, &name);
                self.rest.pools.insert(name, pool);
            }
            ParsedKey::Lineage => self.rest.lineage = Some(stored(kv)),
            ParsedKey::Brake(Role::Allocator) => self.rest.brake_released = kv.mod_revision,
            ParsedKey::Foreign => {
                if let Some(address) = self.prefix.stray_under(&kv.key) {
                    self.rest.strays.insert(self.prefix.relative(&kv.key), address);
                }
            }
            _ => {}
        }
    }
}

impl Collect for Listing {
    fn page(&mut self, kvs: Vec<KeyValue>) {
        // By value: each is dropped when it is done with.
        for kv in kvs {
            self.take(&kv);
            if let Some((_, record)) = self.nodes.last_mut() {
                drop_prose(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::allocator::view::View;
    use crate::model::label::Label;
    use crate::store::api::{Event, LeaseId};
    use crate::store::feed::Update;
    use crate::store::wire::Stored as _;

    fn of_a(snapshot: &Snapshot) -> Label {
        snapshot.nodes[&"a".parse().unwrap()].label.as_ref().unwrap().ok().unwrap().clone()
    }

    #[test]
    fn what_of_a_label_is_for_people_alone_is_kept_for_commands_and_not_for_passes() {
        let label = Label {
            description: "video cache".into(),
            since: "2026-11-26T00:00:00Z".into(),
            annotations: [("serial".to_owned(), "7".to_owned())].into(),
            ..crate::plan::testing::make::label("a")
        };
        let (key, value) = ("/enlist/nodes/a/label".into(), label.encode());
        let kv =
            KeyValue { key, value, create_revision: Revision(3), mod_revision: Revision(3), version: 1, lease: LeaseId::NONE };
        assert_eq!(of_a(&View::of(Prefix::default(), Revision(3), [&kv])), label);

        let bare = Label { description: String::new(), since: String::new(), annotations: Default::default(), ..label };
        let mut listing = Listing::new(Prefix::default());
        listing.page(vec![kv.clone()]);
        assert_eq!(of_a(&listing.into_snapshot(Revision(3))), bare);

        let mut view = View::new(Prefix::default());
        let kvs = Listing::new(Prefix::default());
        view.apply(Update::Reset { revision: Revision(2), cluster_id: 1, kvs, stepped_back: false });
        view.apply(Update::Events { revision: Revision(3), events: vec![Event::Put(kv)] });
        assert_eq!(of_a(view.snapshot()), bare);
    }
}
