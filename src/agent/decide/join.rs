//! The transaction that makes this agent the owner of its id, and the other writes it makes.
//!
//! Every write compares what it was decided on, so that a late or repeated one changes nothing.

use std::sync::Arc;

use crate::agent::decide::applied::{Applied, same_place};
use crate::agent::decide::identity::Me;
use crate::agent::decide::subtree::{Entry, Subtree, modified};
use crate::model::label::Label;
use crate::model::names::Revision;
use crate::model::status::Status;
use crate::store::api::{Compare, Header, Key, KeyValue, LeaseId, Op, RangeResponse, Txn};
use crate::store::keys::{NodePart, Prefix};
use crate::store::wire::{Encoded, Stored};

/// What stands there, and how that is known.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// It was read just now.
    ByRead(&'a Subtree),
    /// The watch showed it: it may be anything by now. Only a join that found it so says anything.
    ByWatch(&'a Subtree),
}

impl<'a> Seen<'a> {
    /// What stands there.
    pub fn subtree(self) -> &'a Subtree {
        match self {
            Seen::ByRead(subtree) | Seen::ByWatch(subtree) => subtree,
        }
    }
}

/// Label and status in one transaction; `hold` goes, so that a second absence is never taken for the first. Its clock is left to
/// its lease: without a hold it says nothing, and the next one puts it again.
///
/// A label that would be equal is compared, not written again: ten thousand nodes that come back after a pause of the
/// store make no new label.
pub fn txn(prefix: &Prefix, seen: Seen<'_>, label: &Encoded<Label>, status: &Status, lease: LeaseId) -> Txn {
    let by_watch = matches!(seen, Seen::ByWatch(_));
    let seen = seen.subtree();
    let key = |part| prefix.node(&label.id, part);
    let mut then = Vec::with_capacity(3);
    if seen.label.as_ref().is_none_or(|stored| stored.bytes != label.bytes()) {
        then.push(Op::put(key(NodePart::Label), label.bytes().clone()));
    }
    then.push(Op::Put { key: key(NodePart::Status), value: status.encode(), lease });
    then.push(Op::delete(key(NodePart::Hold)));
    let mut txn = Txn {
        // Race: without the assignment's compare a release that is on its way could free the address between this
        // decision and its writing, and the node would take as its own what is somebody else's a moment later.
        compares: vec![
            compare(key(NodePart::Label), seen.label.as_deref(), by_watch),
            Compare::Modified(key(NodePart::Status), modified(seen.status.as_deref())),
            compare(key(NodePart::Assignment), seen.assignment.as_deref(), by_watch),
        ],
        then,
        otherwise: Vec::new(),
    };
    // A status is written over and over, by its owner too: its revision and its value.
    if let Some(entry) = seen.status.as_deref().filter(|_| by_watch) {
        txn.compares.push(Compare::Value(key(NodePart::Status), entry.bytes.clone()));
    }
    txn
}

/// That a label or an assignment is still what was decided on.
///
/// Race: a store that was restored since the watch showed a value may have another one at the same revision, which a read would
/// have shown. So that is compared byte for byte. Then its revision adds nothing: all that was decided on is in the value, and who gives
/// claims away in between, and takes them again, writes another generation.
fn compare<T>(key: Key, entry: Option<&Entry<T>>, by_watch: bool) -> Compare {
    match entry {
        Some(entry) if by_watch => Compare::Value(key, entry.bytes.clone()),
        entry => Compare::Modified(key, modified(entry)),
    }
}

/// The sub-tree just after a join that found nothing: what it wrote, and nothing else.
pub fn listing(prefix: &Prefix, label: &Encoded<Label>, status: &Status, lease: LeaseId, header: Header) -> RangeResponse {
    let made = |part, value, lease| KeyValue {
        key: prefix.node(&label.id, part),
        value,
        create_revision: header.revision,
        mod_revision: header.revision,
        version: 1,
        lease,
    };
    let kvs = vec![made(NodePart::Label, label.bytes().clone(), LeaseId::NONE), made(NodePart::Status, status.encode(), lease)];
    RangeResponse { header, count: 2, more: false, kvs }
}

/// The next status. It compares this run's last one; a lost compare gives back what stands there.
pub fn status_txn(prefix: &Prefix, me: &Me, last: Revision, status: &Status, lease: LeaseId) -> Txn {
    let key = prefix.node(&me.id, NodePart::Status);
    Txn {
        compares: vec![Compare::Modified(key.clone(), last)],
        then: vec![Op::Put { key: key.clone(), value: status.encode(), lease }],
        otherwise: vec![Op::get(key)],
    }
}

/// The last word of a node whose status is gone already (its lease ran out while it stopped): only if nobody joined since,
/// which the label's mod_revision shows.
pub fn last_word_txn(prefix: &Prefix, me: &Me, label: Revision, status: &Status) -> Txn {
    let key = prefix.node(&me.id, NodePart::Status);
    Txn {
        compares: vec![
            Compare::Modified(key.clone(), Revision::NONE),
            Compare::Modified(prefix.node(&me.id, NodePart::Label), label),
        ],
        then: vec![Op::put(key, status.encode())],
        otherwise: Vec::new(),
    }
}

/// The label again, or another one, by the owner of the status.
pub fn label_txn(prefix: &Prefix, label: &Encoded<Label>, label_seen: Revision, status_seen: Revision) -> Txn {
    let key = prefix.node(&label.id, NodePart::Label);
    Txn {
        compares: vec![
            Compare::Modified(key.clone(), label_seen),
            Compare::Modified(prefix.node(&label.id, NodePart::Status), status_seen),
        ],
        then: vec![Op::put(key, label.bytes().clone())],
        otherwise: Vec::new(),
    }
}

/// The label to join with: the wished one, with what must be carried over from what stands there.
///
/// `since` stays while the label says the same. `holding` stays while the present answer is one to it: an agent that restarts
/// between its answer and the next label must find the answer valid without any allocator.
pub fn label_for(wished: &Arc<Encoded<Label>>, seen: &Subtree, applied: Option<&Applied>) -> Arc<Encoded<Label>> {
    let mut label = wished.clone();
    // Most that come back find what they wrote.
    if let Some(stored) = seen.label.as_deref().and_then(Entry::ok).filter(|stored| **stored != **label) {
        let same = Label {
            boot: stored.boot.clone(),
            run: stored.run.clone(),
            temporary: stored.temporary,
            since: stored.since.clone(),
            holding: stored.holding.clone(),
            ..Label::clone(&label)
        };
        if same == *stored {
            label = Arc::new(Encoded::new(Label { since: stored.since.clone(), ..Label::clone(&label) }));
        }
    }
    let assignment = seen.assignment.as_deref().and_then(Entry::ok);
    if let (Some(assignment), Some(applied)) = (assignment, applied)
        && label.holding.is_none()
        && let (Some(bound), Some(before)) = (assignment.bound(), applied.bound())
        && same_place(bound, before)
        && !assignment.asked.answers(&label)
    {
        let held = Label { holding: applied.answered.clone(), ..Label::clone(&label) };
        if assignment.asked.answers(&held) {
            return Arc::new(Encoded::new(held));
        }
    }
    label
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::fixtures::{LEASE, applied, bound, joined, label, status};
    use super::*;
    use crate::model::asked::Asked;
    use crate::model::label::Holding;
    use crate::model::pool::Sharing;
    use crate::model::status::Phase;

    fn made(label: &Label) -> Arc<Encoded<Label>> {
        Arc::new(Encoded::new(label.clone()))
    }

    fn keys(txn: &Txn) -> Vec<String> {
        txn.then
            .iter()
            .map(|op| match op {
                Op::Put { key, lease, .. } => format!("put {} {}", Prefix::default().relative(key), lease.0),
                Op::Delete(range) => format!("delete {}", Prefix::default().relative(&range.start)),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_first_join_compares_three_absences_and_writes_label_and_status() {
        let status = status("mine", "run-1", Phase::Joining);
        let txn = txn(&Prefix::default(), Seen::ByRead(&Subtree::default()), &made(&label()), &status, LEASE);
        let absent = |part: &str| Compare::Modified(Key::from(format!("/enlist/nodes/edge-7/{part}")), Revision::NONE);
        assert_eq!(txn.compares, [absent("label"), absent("status"), absent("assignment")]);
        assert_eq!(keys(&txn), ["put nodes/edge-7/label 0", "put nodes/edge-7/status 77", "delete nodes/edge-7/hold"]);
    }

    #[test]
    fn an_equal_label_is_compared_and_not_written_again() {
        let seen = joined(Some(bound(8, "10.0.0.1", &[])));
        let txn = txn(&Prefix::default(), Seen::ByRead(&seen), &made(&label()), &status("mine", "run-1", Phase::Joining), LEASE);
        let is = |part: &str, at| Compare::Modified(Key::from(format!("/enlist/nodes/edge-7/{part}")), Revision(at));
        assert_eq!(txn.compares, [is("label", 11), is("status", 11), is("assignment", 8)]);
        assert_eq!(keys(&txn)[0], "put nodes/edge-7/status 77");
    }

    #[test]
    fn what_was_only_seen_is_compared_byte_for_byte() {
        let mut seen = joined(Some(bound(8, "10.0.0.1", &[])));
        seen.status = None;
        let status = status("mine", "run-1", Phase::Registered);
        let txn = txn(&Prefix::default(), Seen::ByWatch(&seen), &made(&label()), &status, LEASE);
        let key = |part: &str| Key::from(format!("/enlist/nodes/edge-7/{part}"));
        let (label, assignment) = (seen.label.unwrap(), seen.assignment.unwrap());
        let wanted = [
            Compare::Value(key("label"), label.bytes.clone()),
            Compare::Modified(key("status"), Revision::NONE),
            Compare::Value(key("assignment"), assignment.bytes.clone()),
        ];
        assert_eq!(txn.compares, wanted);
    }

    #[test]
    fn a_status_that_a_watch_showed_is_compared_by_revision_and_value() {
        let seen = joined(Some(bound(8, "10.0.0.1", &[])));
        let txn = txn(&Prefix::default(), Seen::ByWatch(&seen), &made(&label()), &status("mine", "run-1", Phase::Joining), LEASE);
        let key = Key::from("/enlist/nodes/edge-7/status");
        let bytes = seen.status.unwrap().bytes.clone();
        for wanted in [Compare::Modified(key.clone(), Revision(11)), Compare::Value(key, bytes)] {
            assert!(txn.compares.contains(&wanted), "{wanted:?}");
        }
    }

    #[test]
    fn since_stays_while_the_label_says_the_same() {
        let seen = joined(None);
        let mut wished = Label { since: "2027-01-01T00:00:00Z".into(), run: "run-2".parse().unwrap(), ..label() };
        assert_eq!(label_for(&made(&wished), &seen, None).since, label().since);
        wished.description = "another".into();
        assert_eq!(label_for(&made(&wished), &seen, None).since, "2027-01-01T00:00:00Z");
    }

    #[test]
    fn an_answer_to_what_was_held_stays_valid_over_a_restart() {
        let holding = Holding {
            generation: Revision(812),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ports: Default::default(),
            mark: None,
        };
        let held = Label { holding: Some(Box::new(holding.clone())), ..label() };
        let mut answer = bound(20, "10.0.0.1", &[]);
        answer.asked = Asked::of(&held, Sharing::Exclusive);
        let mut before = applied(answer.clone());
        before.answered = Some(Box::new(holding));
        assert_eq!(label_for(&made(&label()), &joined(Some(answer.clone())), Some(&before)).holding, before.answered);
        // An answer to the label without it needs no holding.
        answer.asked = Asked::of(&label(), Sharing::Exclusive);
        assert_eq!(label_for(&made(&label()), &joined(Some(answer)), Some(&before)).holding, None);
    }
}
