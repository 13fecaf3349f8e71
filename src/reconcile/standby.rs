//! A role's life in a process with others: its own first contact, and its own trouble.
//!
//! What stops a role (a refusing store, a destination that is another's, a newer format) stops no other role of the process: that
//! role stands by, says why, and tries again. Only when every role of a process was refused before any was let in the process
//! ends: the settings are wrong then, and nothing is lost.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Context;
use crate::store::api::StoreError;
use crate::store::backoff::{Backoff, Nag, REFUSED_CAP};
use crate::store::keys::Role;

/// The first pause of a role that stands by. (The longest is the one after any refusal.)
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// A role that worked for this long before it stopped begins again with the first pause.
const WORKED: Duration = Duration::from_secs(60);

/// Asks until the store answers (`None` = told to stop). Says once that it is away, then at longer intervals, and when it is back.
///
/// # Errors
/// When the store refuses: a password does not mend itself.
pub async fn first_contact<T, F>(role: Role, context: &Context, mut ask: impl FnMut() -> F) -> Result<Option<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::reconnect(context.rng(&format!("{role}-first")));
    let mut nag = Nag::default();
    loop {
        let answer = tokio::select! {
            biased;
            () = context.shutdown.cancelled() => return Ok(None),
            answer = ask() => answer,
        };
        match answer {
            Ok(answer) => {
                if let Some(lasted) = nag.over(Instant::now()) {
                    info!(%role, elapsed_s = lasted.as_secs(), "the store answers");
                }
                return Ok(Some(answer));
            }
            Err(error @ StoreError::Refused(_)) => return Err(error),
            Err(error) if nag.is_due(Instant::now()) => warn!(%role, %error, "the store is away; retrying"),
            Err(_) => {}
        }
        if !pause(context, backoff.next_delay()).await {
            return Ok(None);
        }
    }
}

/// Answers false when told to stop.
async fn pause(context: &Context, delay: Duration) -> bool {
    tokio::select! {
        biased;
        () = context.shutdown.cancelled() => false,
        () = tokio::time::sleep(delay) => true,
    }
}

/// Which roles of this process were let in.
#[derive(Debug)]
pub struct Admissions {
    roles: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    refused: BTreeSet<Role>,
    any_admitted: bool,
}

impl Admissions {
    /// Of a process with so many roles; none was let in yet.
    pub fn new(roles: usize) -> Arc<Admissions> {
        Arc::new(Admissions { roles, seen: Mutex::default() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admitted(&self) {
        self.seen().any_admitted = true;
    }

    /// Answers whether all roles are refused and none was ever let in.
    fn refused(&self, role: Role) -> bool {
        let mut seen = self.seen();
        seen.refused.insert(role);
        !seen.any_admitted && seen.refused.len() == self.roles
    }
}

/// A role as a process runs it.
pub struct Standing {
    /// Which.
    pub role: Role,
    /// Its first contact with all stores that it needs; `None` = told to stop.
    pub contact: Box<dyn Fn() -> BoxFuture<'static, Result<Option<()>, StoreError>> + Send>,
    /// Its work, until it is told to stop or something stops it.
    pub work: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send>,
    /// Whether what stopped it ends the process: true only where no other role is in the process.
    pub is_final: fn(&anyhow::Error) -> bool,
}

impl Standing {
    /// Runs the role until it is told to stop.
    ///
    /// # Errors
    /// What must end the process.
    pub async fn run(self, admissions: Arc<Admissions>, context: Context) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(context.rng(&format!("{}-standby", self.role)), PAUSE_FIRST, REFUSED_CAP);
        let mut nag = Nag::default();
        loop {
            let began = Instant::now();
            let error = match (self.contact)().await {
                Ok(None) => return Ok(()),
                Ok(Some(())) => {
                    admissions.admitted();
                    match (self.work)().await {
                        Ok(()) => return Ok(()),
                        Err(error) if (self.is_final)(&error) => return Err(error),
                        Err(error) => error,
                    }
                }
                Err(error) if admissions.refused(self.role) => return Err(error.into()),
                Err(error) => error.into(),
            };
            if began.elapsed() > WORKED {
                (backoff, nag) = (Backoff::new(context.rng("standby"), PAUSE_FIRST, REFUSED_CAP), Nag::default());
            }
            if nag.is_due(Instant::now()) {
                error!(role = %self.role, error = format!("{error:#}"), "the role is stopped and stands by; retrying");
            }
            if !pause(&context, backoff.next_delay()).await {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::FutureExt as _;

    use super::*;
    use crate::reconcile::testing::context;
    use crate::store::memory::MemoryEtcd;
    use crate::store::memory::faults::{FaultPlan, Faults};

    type Answer = Result<Option<()>, StoreError>;

    fn refused() -> Answer {
        Err(StoreError::Refused("permission denied".into()))
    }

    /// A role whose contact ends like this, and a count of its contacts. Its work goes on for ever.
    fn standing(role: Role, answer: fn(usize) -> Answer) -> (Standing, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let contact = Box::new(move || {
            let answer = answer(counted.fetch_add(1, Relaxed));
            async move { answer }.boxed()
        });
        let work = Box::new(|| std::future::pending().boxed());
        (Standing { role, contact, work, is_final: |_| false }, count)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_role_stands_by_and_is_let_in_later() {
        let context = context("a", 1);
        let admissions = Admissions::new(2);
        let (allocator, _) = standing(Role::Allocator, |_| Ok(Some(())));
        let (relay, contacts) = standing(Role::Relay, |count| if count < 3 { refused() } else { Ok(Some(())) });
        let serving = tokio::spawn(allocator.run(admissions.clone(), context.clone()));
        tokio::task::yield_now().await;
        let waiting = tokio::spawn(relay.run(admissions, context));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(contacts.load(Relaxed), 4, "refused thrice, then it works on");
        assert!(!serving.is_finished() && !waiting.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn process_whose_roles_are_all_refused_at_first_ends() {
        let context = context("a", 1);
        let admissions = Admissions::new(2);
        let (allocator, _) = standing(Role::Allocator, |_| refused());
        let (relay, _) = standing(Role::Relay, |_| refused());
        let first = tokio::spawn(allocator.run(admissions.clone(), context.clone()));
        tokio::task::yield_now().await;
        let error = relay.run(admissions, context).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
        assert!(!first.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn stopped_work_is_begun_again() {
        let context = context("a", 1);
        let (mut role, contacts) = standing(Role::Relay, |_| Ok(Some(())));
        role.work = Box::new(|| async { anyhow::bail!("a newer format") }.boxed());
        let running = tokio::spawn(role.run(Admissions::new(1), context.clone()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!((3..=8).contains(&contacts.load(Relaxed)), "{contacts:?}");
        context.shutdown.cancel();
        assert!(running.await.unwrap().is_ok());
    }

    /// When each line was logged.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<Instant>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push(Instant::now());
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_tried_on_and_told_at_growing_intervals() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || writer.clone());
        let _logged_here = tracing::subscriber::set_default(subscriber.finish());
        let faults = Faults::new(7, FaultPlan { unreachable: 1.0, ..FaultPlan::default() });
        let store = faults.client(MemoryEtcd::new().store()).store();
        let context = context("a", 1);
        let contact = || first_contact(Role::Allocator, &context, || store.get("a"));
        let away = tokio::time::timeout(Duration::from_secs(3_600), contact()).await;
        assert!(away.is_err(), "it is tried for ever");
        let told = lines.0.lock().unwrap().clone();
        let gaps: Vec<u64> = told.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert!((8..=12).contains(&told.len()), "an hour takes a dozen lines: {gaps:?}");
        assert!(gaps[0] >= 5 && gaps[1] > gaps[0] && gaps[2] > gaps[1] && gaps.iter().all(|gap| *gap <= 610), "{gaps:?}");
        // It is tried on between two lines: when the store is back, that is noticed within seconds.
        faults.set_plan(FaultPlan::default());
        assert!(tokio::time::timeout(Duration::from_secs(6), contact()).await.unwrap().unwrap().is_some());
    }
}
