//! A simulated process: a role or an agent with its links to the stores. It can be killed, paused as SIGSTOP does, or made to
//! do either at one of its store calls. All of it stands still then: its own future and what its links would bring.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use enlist::reconcile::Wall;
use enlist::store::memory::faults::FaultyClient;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// What happens at a store call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// After so many other calls.
    pub(crate) calls: u32,
    /// The store has done it, its answer has not arrived. Else it was not sent yet.
    pub(crate) done: bool,
}

/// A clock that jumps. Times are for people: nothing may come of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    ahead_s: Arc<AtomicI64>,
    /// How often it was looked at after a jump.
    seen: Arc<AtomicU64>,
}

impl Clock {
    pub(crate) fn jump(&self, seconds: i64) {
        self.ahead_s.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Hosts' clocks are minutes apart as it is.
    pub(crate) fn wall(&self, skew: Duration) -> Wall {
        const START_S: u64 = 1_767_225_600;
        let (clock, started) = (self.clone(), tokio::time::Instant::now());
        Wall::of(move || {
            let ahead = clock.ahead_s.load(Ordering::Relaxed);
            clock.seen.fetch_add(u64::from(ahead != 0), Ordering::Relaxed);
            let there = SystemTime::UNIX_EPOCH + Duration::from_secs(START_S.saturating_add_signed(ahead));
            there + skew + started.elapsed()
        })
    }
}

/// One, and what it will end with.
pub(crate) struct Process<T> {
    pub(crate) task: JoinHandle<T>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) grip: Grip,
}

impl<T: Send + 'static> Process<T> {
    /// Starts one that does `work` over these links.
    pub(crate) fn start(
        work: impl Future<Output = T> + Send + 'static,
        links: Vec<FaultyClient>,
        shutdown: CancellationToken,
        clock: Clock,
    ) -> Self {
        let task = tokio::spawn(pausable(work, links.clone()));
        let grip = Grip { links, clock, shared: false, kill: task.abort_handle() };
        Process { task, shutdown, grip }
    }

    /// Its links are those of others as well: what is done to one of them is done to all.
    pub(crate) fn with_shared_links(mut self) -> Self {
        self.grip.shared = true;
        self
    }

    /// SIGKILL.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// What faults take a process by.
#[derive(Clone)]
pub(crate) struct Grip {
    pub(crate) links: Vec<FaultyClient>,
    pub(crate) clock: Clock,
    shared: bool,
    kill: AbortHandle,
}

impl Grip {
    pub(crate) fn cut(&self, cut: bool) {
        self.links.iter().for_each(|link| if cut { link.cut() } else { link.heal() });
    }

    pub(crate) fn cut_answers(&self) {
        self.links.iter().for_each(FaultyClient::cut_answers);
    }

    pub(crate) fn cut_calls(&self) {
        self.links.iter().for_each(FaultyClient::cut_all_but_beats);
    }

    pub(crate) fn thaw(&self) {
        self.links.iter().for_each(FaultyClient::thaw);
    }

    /// SIGKILL when it comes to a call.
    pub(crate) fn crash_at(self, at: At) {
        self.links.iter().for_each(|link| link.freeze_at(at.calls, at.done));
        tokio::spawn(async move {
            first_frozen(&self.links).await;
            self.kill.abort();
            if self.shared {
                self.thaw();
            }
        });
    }

    /// SIGSTOP when it comes to a call, SIGCONT after a while.
    pub(crate) fn pause_at(self, at: At, lasts: Duration) {
        self.links.iter().for_each(|link| link.freeze_at(at.calls, at.done));
        tokio::spawn(async move {
            first_frozen(&self.links).await;
            self.links.iter().for_each(FaultyClient::freeze);
            tokio::time::sleep(lasts).await;
            self.thaw();
        });
    }
}

/// Ends with the first that stands still. Should none ever do, it ends with the simulation.
async fn first_frozen(links: &[FaultyClient]) {
    futures::future::select_all(links.iter().map(|link| Box::pin(link.frozen()))).await;
}

/// `work`, which is not polled while any of the links stands still: then all of the process does.
async fn pausable<T>(work: impl Future<Output = T> + Send, links: Vec<FaultyClient>) -> T {
    let mut work = std::pin::pin!(work);
    let mut waits: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    std::future::poll_fn(move |context| {
        if waits.is_some() || links.iter().any(FaultyClient::is_frozen) {
            let thawed = waits.get_or_insert_with(|| Box::pin(all_thawed(links.clone())));
            if thawed.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            waits = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

async fn all_thawed(links: Vec<FaultyClient>) {
    for link in &links {
        link.thawed().await;
    }
}
