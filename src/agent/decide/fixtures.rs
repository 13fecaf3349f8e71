//! Values for the tests of the decisions.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use bytes::Bytes;

use super::applied::Applied;
use super::identity::{Me, Place, RecordedRun};
use super::subtree::{Entry, Subtree};
use crate::model::asked::Asked;
use crate::model::assignment::{Answer, Assignment, Bound, Leaving, Reason, Terms, Waiting};
use crate::model::label::{Label, Want};
use crate::model::names::Revision;
use crate::model::pool::{OnIsolation, Sharing};
use crate::model::status::{Phase, Status};
use crate::store::api::LeaseId;
use crate::store::wire::Stored;

pub(crate) const LEASE: LeaseId = LeaseId(77);
pub(crate) const HERE: Place = Place { device: 1, inode: 10 };

pub(crate) fn me() -> Me {
    let run = |run: &str, boot: &str, place| RecordedRun { run: run.parse().unwrap(), boot: boot.parse().unwrap(), place };
    Me {
        id: "edge-7".parse().unwrap(),
        instance: "mine".parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        run: "run-1".parse().unwrap(),
        place: HERE,
        runs: vec![
            run("run-0", "boot-1", HERE),
            run("run-old-boot", "boot-0", HERE),
            run("run-copied", "boot-1", Place { device: 1, inode: 9 }),
            run("run-1", "boot-1", HERE),
        ],
    }
}

pub(crate) fn label() -> Label {
    Label {
        id: "edge-7".parse().unwrap(),
        instance: "mine".parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        run: "run-1".parse().unwrap(),
        temporary: "192.0.2.17:49311".parse().unwrap(),
        variables: Default::default(),
        description: String::new(),
        since: "2026-01-01T00:00:00Z".into(),
        ports: vec!["http".parse().unwrap()],
        want: Want::default(),
        holding: None,
        ephemeral: false,
        annotations: Default::default(),
    }
}

pub(crate) fn status(instance: &str, run: &str, phase: Phase) -> Status {
    Status {
        instance: instance.parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        run: run.parse().unwrap(),
        phase,
        generation: Revision::NONE,
        message: String::new(),
        refused: Vec::new(),
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        pool: "eu".parse().unwrap(),
        domain: "default".parse().unwrap(),
        sharing: Sharing::Exclusive,
        hold_s: 600,
        cooldown_s: 60,
        on_isolation: OnIsolation::Keep,
    }
}

pub(crate) fn bound(generation: i64, ip: &str, ports: &[(&str, u16)]) -> Assignment {
    Assignment {
        node: "edge-7".parse().unwrap(),
        instance: "mine".parse().unwrap(),
        generation: Revision(generation),
        asked: Asked::of(&label(), Sharing::Exclusive),
        answer: Answer::Bound(Bound {
            terms: terms(),
            addresses: vec![ip.parse().unwrap()],
            ports: ports.iter().map(|(name, port)| (name.parse().unwrap(), *port)).collect(),
        }),
        leaving: Vec::new(),
        mark: None,
    }
}

pub(crate) fn waiting(generation: i64, leaving: Option<&Assignment>) -> Assignment {
    Assignment {
        answer: Answer::Waiting(Waiting { reason: Reason::PoolFull, message: "pool eu is full".into() }),
        leaving: leaving.map(leaving_of).into_iter().collect(),
        ..bound(generation, "10.0.0.1", &[])
    }
}

pub(crate) fn leaving_of(assignment: &Assignment) -> Leaving {
    let bound = assignment.bound().unwrap();
    Leaving {
        generation: assignment.generation,
        terms: bound.terms.clone(),
        addresses: bound.addresses.clone(),
        ports: bound.ports.clone(),
    }
}

pub(crate) fn applied(assignment: Assignment) -> Applied {
    Applied { mod_revision: assignment.generation, assignment, cluster_id: 1, answered: None }
}

pub(crate) fn entry<T: Stored>(value: T, mod_revision: i64) -> Arc<Entry<T>> {
    let bytes: Bytes = value.encode();
    Arc::new(Entry { value: Ok(value), bytes, mod_revision: Revision(mod_revision), lease: LeaseId::NONE })
}

/// What stands there, to be changed.
pub(crate) fn change<T: Clone>(entry: &mut Option<Arc<Entry<T>>>) -> &mut Entry<T> {
    Arc::make_mut(entry.as_mut().unwrap())
}

/// This agent joined: its label, its live status on its lease.
pub(crate) fn joined(assignment: Option<Assignment>) -> Subtree {
    let mut status = entry(status("mine", "run-1", Phase::Joining), 11);
    Arc::get_mut(&mut status).unwrap().lease = LEASE;
    Subtree {
        cluster_id: 1,
        revision: Revision(1000),
        label: Some(entry(label(), 11)),
        status: Some(status),
        assignment: assignment.map(|assignment| {
            let at = assignment.generation.0;
            entry(assignment, at)
        }),
    }
}
