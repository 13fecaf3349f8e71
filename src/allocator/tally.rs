//! What the leading allocator says of itself in `roles/allocator`: counters, the brake, its last pass.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::names::Revision;
use crate::plan::brake::{Brake, BrakeState};
use crate::plan::change::Plan;
use crate::reconcile::election::Leadership;
use crate::reconcile::report::{BrakeReport, EVERY, Reporter};
use crate::reconcile::{Context, Site};
use crate::store::keys::Role;
use crate::store::wire::{RoleReport, VERSION};

/// Counts, and writes the report when it is due.
#[derive(Debug)]
pub(super) struct Tally {
    reporter: Reporter,
    context: Context,
    report: RoleReport,
    brake: BrakeReport,
    /// When the report should be written next.
    pub(super) due: Instant,
}

impl Tally {
    /// Of a new leader; due at once.
    pub(super) fn new(site: &Site, context: &Context, leadership: &Leadership) -> Self {
        Tally {
            reporter: Reporter::new(site, Role::Allocator, leadership),
            context: context.clone(),
            report: RoleReport {
                v: VERSION,
                identity: context.identity.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                revision: Revision::NONE,
                lag: 0,
                brake: String::new(),
                trouble: String::new(),
                brake_state: None,
                brake_since: String::new(),
                last_pass: String::new(),
                findings: 0,
                counters: Default::default(),
            },
            brake: BrakeReport::default(),
            due: Instant::now(),
        }
    }

    /// Writes it if it is news. Best effort: it is for people.
    pub(super) async fn write(&mut self, revision: Revision) {
        self.due = Instant::now() + EVERY;
        self.report.revision = revision;
        if let Some(writing) = self.reporter.write(self.report.clone()) {
            writing.await;
        }
    }

    /// Counts something.
    pub(super) fn count(&mut self, what: &str) {
        *self.report.counters.entry(what.to_owned()).or_insert(0) += 1;
    }

    /// How many findings there are.
    pub(super) fn findings(&mut self, count: usize) {
        self.report.findings = count as u64;
    }

    /// What the last pass did.
    pub(super) fn passed(&mut self, what: &str, elapsed: Duration) {
        self.report.last_pass = format!("{}: {what}, {} ms", self.context.wall.now(), elapsed.as_millis());
    }

    /// What the brake sees and does; reported at once when that changes.
    pub(super) fn brake(&mut self, plan: &Plan) {
        let Brake { silent, bound } = plan.brake;
        let seen = format!("{silent} of {bound} bound nodes are silent");
        let why = match plan.brake_state {
            BrakeState::Released => format!("{seen}; those that were silent at the release are released"),
            _ => format!("{seen}; {} releases wait", plan.releases_deferred),
        };
        if self.brake.set(Role::Allocator, plan.brake_state, why, || self.context.wall.now()) {
            self.due = Instant::now();
        }
        self.brake.write_to(&mut self.report);
    }
}
