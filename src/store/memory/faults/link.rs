//! The link of one client to the store: the fate of each call, and whether it is connected.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::gate::Gate;
use super::{FaultPlan, Faults};
use crate::store::api::StoreError;

/// The directions in which a client is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    No,
    /// No request or answer gets through: every call times out, without effect.
    Both,
    /// Requests arrive, answers do not.
    Answers,
    /// Only keep-alives get through.
    AllButBeats,
}

/// The link of one client to the store, which decides the fate of each call.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) faults: Faults,
    pub(super) gate: Gate,
    random: Mutex<fastrand::Rng>,
    cut: watch::Sender<Cut>,
}

/// A call as it is sent.
pub(super) struct Call<T> {
    first: Request<T>,
    /// The second execution of a duplicate; only transactions have one.
    second: Option<Request<T>>,
    snared: Option<Duration>,
    is_beat: bool,
}

impl<T> Call<T> {
    pub(super) fn new(first: Request<T>) -> Self {
        Call { first, second: None, snared: None, is_beat: false }
    }

    pub(super) fn beat(first: Request<T>) -> Self {
        Call { is_beat: true, ..Call::new(first) }
    }

    /// A transaction that may be executed twice, or that a snare has caught.
    pub(super) fn txn(first: Request<T>, second: Request<T>, snared: Option<Duration>) -> Self {
        Call { second: Some(second), snared, ..Call::new(first) }
    }
}

/// The fate of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Fine,
    Unreachable,
    AnswerLost,
    Late(Duration),
    Duplicate(Duration),
}

/// A call of the store, not yet begun. It owns its data, so that it can run after the client is gone.
pub(super) type Request<T> = BoxFuture<'static, Result<T, StoreError>>;

impl Link {
    /// A connected link.
    pub(super) fn new(faults: Faults, random: fastrand::Rng) -> Self {
        Link { faults, gate: Gate::new(), random: Mutex::new(random), cut: watch::Sender::new(Cut::No) }
    }

    /// Cuts or connects the link.
    pub(super) fn set_cut(&self, cut: Cut) {
        self.cut.send_replace(cut);
    }

    pub(super) fn cut(&self) -> Cut {
        *self.cut.borrow()
    }

    /// Rolls the dice for the fate and the delays there and back. The number of throws is constant, so that a change of
    /// one probability does not shift all later throws.
    fn decide(&self, plan: &FaultPlan) -> (Fate, Duration, Duration) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let (dice, later) = (random.f64(), plan.late_max.mul_f64(random.f64()));
        let (there, back) = (plan.delay_max.mul_f64(random.f64()), plan.delay_max.mul_f64(random.f64()));
        let mut below = 0.0;
        let fates = [
            (plan.unreachable, Fate::Unreachable),
            (plan.answer_lost, Fate::AnswerLost),
            (plan.late, Fate::Late(plan.late_min + later)),
            (plan.duplicate, Fate::Duplicate(later)),
        ];
        let fate = fates.into_iter().find(|(probability, _)| {
            below += probability;
            dice < below
        });
        (fate.map_or(Fate::Fine, |(_, fate)| fate), there, back)
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).f64() < probability
    }

    pub(super) fn watch_delay(&self, plan: &FaultPlan) -> Duration {
        if plan.watch_delay_max > Duration::ZERO {
            self.faults.count(|counts| counts.watches_delayed += 1);
        }
        plan.watch_delay_max.mul_f64(self.random.lock().unwrap_or_else(PoisonError::into_inner).f64())
    }

    pub(super) fn plan(&self) -> FaultPlan {
        self.faults.lock().plan.clone()
    }

    /// Makes a call with its fate.
    pub(super) async fn call<T: Send + 'static>(&self, call: Call<T>) -> Result<T, StoreError> {
        let stops = self.gate.count();
        if stops == Some(false) {
            self.stop();
        }
        self.gate.wait(false).await;
        let answer = self.carry(call, stops == Some(true)).await;
        // A frozen client receives the answer when it resumes.
        self.gate.wait(false).await;
        answer
    }

    fn stop(&self) {
        self.faults.count(|counts| counts.frozen += 1);
        self.gate.freeze();
    }

    async fn carry<T: Send + 'static>(&self, call: Call<T>, stops_when_done: bool) -> Result<T, StoreError> {
        let Call { first, second, snared, is_beat } = call;
        let plan = self.plan();
        let deadline = Instant::now() + plan.timeout;
        let (fate, there, back) = self.decide(&plan);
        if let Some(after) = snared {
            self.later(after, first);
            return self.time_out(&plan, deadline).await;
        }
        if plan.delay_max > Duration::ZERO {
            self.faults.count(|counts| counts.delayed += 1);
            sleep(there).await;
        }
        match (self.cut(), fate) {
            (Cut::AllButBeats, _) if is_beat => {}
            (Cut::Both | Cut::AllButBeats, _) => {
                self.faults.count(|counts| counts.cut_off += 1);
                return self.time_out(&plan, deadline).await;
            }
            (_, Fate::Unreachable) => {
                self.faults.count(|counts| counts.unreachable += 1);
                let reason = "connection refused (injected)".to_owned();
                return Err(StoreError::Unreachable { endpoints: "memory".to_owned(), reason });
            }
            (_, Fate::Late(after)) => {
                self.faults.count(|counts| counts.late += 1);
                self.later(after, first);
                return self.time_out(&plan, deadline).await;
            }
            (_, Fate::Duplicate(after)) => {
                if let Some(second) = second {
                    self.faults.count(|counts| counts.duplicates += 1);
                    self.later(after, second);
                }
            }
            (_, Fate::Fine | Fate::AnswerLost) => {}
        }
        let answer = first.await;
        match &answer {
            Err(StoreError::NoSpace) => self.faults.count(|counts| counts.no_space += 1),
            Err(StoreError::Compacted(_)) => self.faults.count(|counts| counts.compacted += 1),
            _ => {}
        }
        if stops_when_done {
            self.stop();
        }
        if fate == Fate::AnswerLost {
            self.faults.count(|counts| counts.answers_lost += 1);
            return self.time_out(&plan, deadline).await;
        }
        if back > Duration::ZERO {
            sleep(back).await;
        }
        if self.cut() != Cut::No && !(is_beat && self.cut() == Cut::AllButBeats) {
            self.faults.count(|counts| counts.cut_off += 1);
            return self.time_out(&plan, deadline).await;
        }
        answer
    }

    async fn time_out<T>(&self, plan: &FaultPlan, deadline: Instant) -> Result<T, StoreError> {
        sleep_until(deadline).await;
        Err(StoreError::Timeout { milliseconds: u64::try_from(plan.timeout.as_millis()).unwrap_or(u64::MAX) })
    }

    fn later<T: Send + 'static>(&self, after: Duration, request: Request<T>) {
        let faults = self.faults.clone();
        faults.lock().under_way += 1;
        tokio::spawn(async move {
            sleep(after).await;
            // No client waits for this answer.
            let _ = request.await;
            faults.lock().under_way -= 1;
        });
    }

    /// Waits while answers are blocked; `false` if that took so long that the connection is given up.
    pub(super) async fn connected(&self, silence_max: Duration) -> bool {
        let mut cut = self.cut.subscribe();
        tokio::time::timeout(silence_max, cut.wait_for(|cut| *cut == Cut::No)).await.is_ok()
    }

    /// Returns when the client has been cut off long enough to give up its connections.
    pub(super) async fn given_up(&self, silence_max: Duration) {
        let mut cut = self.cut.subscribe();
        loop {
            if cut.wait_for(|cut| *cut != Cut::No).await.is_err() {
                return std::future::pending().await;
            }
            if !self.connected(silence_max).await {
                return;
            }
        }
    }
}
