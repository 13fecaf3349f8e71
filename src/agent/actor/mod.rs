//! The shell of one agent: a task with one loop. It looks at what is, decides purely, and keeps at most one request to the
//! store (`io`) and one piece of work on the host (`work`) under way; what they bring back wakes it again.
//!
//! `steps` looks and begins, `done` takes in what was brought back, `finish` is the way out.

mod state;
mod label;
mod io;
mod work;
mod steps;
mod done;
mod apply;
mod change;
mod drain;
mod finish;
mod offline;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, info, info_span, warn};

pub use state::AgentState;

use self::label::make_label;
use self::state::{Backoff, Doing, Joined, Slot, Unanswered, View, Wish, outcome};
use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::identity::Me;
use crate::agent::decide::isolation::Suspends;
use crate::agent::decide::subtree::Subtree;
use crate::agent::decide::word::Word;
use crate::agent::exit::{AgentExit, Ending};
use crate::agent::host::{Child, Face, Host, LeaveRequest};
use crate::agent::settings::AgentSettings;
use crate::model::label::{Holding, Label};
use crate::model::names::Revision;
use crate::model::status::Phase;
use crate::model::variables::Variables;
use crate::reconcile::{Context, Site};
use crate::store;
use crate::store::api::{LeaseId, RangeResponse};
use crate::store::backoff::Nag;
use crate::store::feed::{Ahead, Feed, FeedSettings, Scope, Update};
use crate::store::lease::Leases;
use crate::store::wire::Encoded;

/// The sub-tree is read again this often (spread out): what old servers' watches lose is found.
const VERIFY: Duration = Duration::from_secs(300);
/// A failed apply is tried again after this, twice as long each time …
const APPLY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … up to this.
const APPLY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A store that did not answer is tried again after this, twice as long each time …
const STORE_PAUSE_FIRST: Duration = Duration::from_millis(200);
/// … up to this …
const STORE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// … or up to this if it refused: passwords are not guessed in a hurry.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// An agent that loses its registration shortly after it joined waits before the next join: this long, twice as long each time,
/// up to [`STORE_PAUSE_MAX`]. A store in trouble (a restore under live leases) otherwise gets 100 joins a second from one agent.
const REJOIN_PAUSE_FIRST: Duration = Duration::from_millis(200);

/// Runs an agent until it is told to stop (`context.shutdown`), its child ends, or it must not go on.
///
/// It joins, applies what it is given, acknowledges it and keeps all that true. A store that is away is waited for.
pub async fn run(site: Site, settings: AgentSettings, context: Context, host: Arc<dyn Host>) -> AgentExit {
    run_untied(site, settings, context, host, None).await
}

/// [`run`], perhaps on leases that it shares.
pub(crate) fn run_untied(
    site: Site,
    settings: AgentSettings,
    context: Context,
    host: Arc<dyn Host>,
    leases: Option<Arc<Leases>>,
) -> impl Future<Output = AgentExit> + Send + 'static {
    let (tell, _) = watch::channel(AgentState::new());
    let (order, orders) = mpsc::channel(1);
    let life = run_tied(site, settings, context, host, Ties { tell, orders, leases });
    async move {
        // Nobody orders anything; without it there would be nobody who could.
        let _order = order;
        life.await
    }
}

/// What ties an agent to other code of its process.
pub(crate) struct Ties {
    /// Its state as it changes.
    pub tell: watch::Sender<AgentState>,
    /// What it is told to do.
    pub orders: mpsc::Receiver<Order>,
    /// Leases that it shares with other agents; `None` = it has its own.
    pub leases: Option<Arc<Leases>>,
}

/// What other code of its process tells an agent to do.
pub(crate) enum Order {
    /// Leave for good.
    Leave(LeaveRequest),
    /// Say this of the node from now on: the whole set. Answers what is wrong with it.
    Variables(Variables, oneshot::Sender<Result<(), String>>),
}

/// [`run`], tied to other code of this process.
pub(crate) fn run_tied(
    site: Site,
    settings: AgentSettings,
    context: Context,
    host: Arc<dyn Host>,
    ties: Ties,
) -> impl Future<Output = AgentExit> + Send + 'static {
    let id = settings.id.clone();
    // In boxes, made before the future is: most of an agent's life is spent in the loop, a process may run thousands of agents, and
    // a future keeps room for all that it was ever given.
    let opening = Box::pin(Actor::open(site, settings, context, host, ties));
    async move {
        // Made where it runs: whoever starts an agent from within a span of his own must not keep that open for its whole life.
        let span = info_span!("agent", node = %id);
        let life = async {
            match opening.await {
                Ok(actor) => actor.run().await,
                Err(ending) => ending.alone(),
            }
        };
        life.instrument(span).await
    }
}

impl AgentState {
    pub(crate) fn new() -> Self {
        AgentState { phase: Phase::Joining, assignment: None, message: String::new(), joined: false }
    }
}

/// One agent.
struct Actor {
    site: Site,
    settings: AgentSettings,
    context: Context,
    host: Arc<dyn Host>,
    me: Arc<Me>,
    /// As it should stand in the store.
    label: Arc<Encoded<Label>>,
    ties: Ties,
    face: watch::Sender<Face>,

    // What is seen.
    feed: Option<Feed>,
    view: View,

    // Being in the store.
    joined: Option<Joined>,
    /// The last lease that was lost with its keys: the store said that it is gone, or its time was overslept.
    lost_lease: Option<LeaseId>,
    /// A lease that a next try to join may use.
    spare_lease: Option<Arc<crate::store::lease::Lease>>,
    ever_in: bool,
    ever_joined: bool,
    /// A process of this state directory joined, and no last word of it was acknowledged since: as it is recorded.
    registered: bool,
    /// A process of this state directory was let into the store before.
    let_in_before: bool,
    /// A try to join was not answered: it may have joined.
    unheard: bool,
    /// The revision of this run's last write, also if the store stepped back behind it.
    since: Revision,
    /// The last status that this run wrote, or, before that, an earlier one when it ended.
    word: Option<Word>,
    attempt_at: Instant,
    attempt_backoff: Backoff,
    /// The pause before a join that follows on a registration which did not last.
    rejoin_backoff: store::backoff::Backoff,
    /// Since when the first join waits for a live holder that does not answer.
    waits_since: Option<Instant>,
    said: String,
    nag: Nag,
    io: Slot<io::Done>,
    io_at: Instant,
    io_backoff: Backoff,
    wish: Wish,
    /// While no allocator has answered the label.
    unanswered: Option<Unanswered>,
    refused: BTreeSet<SocketAddr>,

    // What is in use.
    applied: Option<Arc<Applied>>,
    /// What is applied was put to use by this process.
    started: bool,
    given: Option<Given>,
    /// Everything a hook was called with since the last withdraw.
    hooked: Vec<Given>,
    child: Option<Arc<dyn Child>>,
    child_code: Option<i32>,
    /// The child was told to end: its end ends nothing else.
    child_stopping: bool,
    ready: bool,
    /// While what is in use is about to be put out of use, and may be for a while still.
    draining: Option<drain::Draining>,
    doing: Doing,
    work: Slot<work::Done>,
    retry_at: Option<Instant>,
    /// What was tried to be applied last, until it serves: files, hook and child may be at it, or half at it.
    tried: Option<Given>,
    /// When what was refused is looked at again.
    recheck_at: Instant,
    apply_backoff: Backoff,
    memory: Slot<()>,

    // What it says of the node.
    reload: Slot<change::Reloaded>,
    /// Who waits for the next reload.
    reload_asked: Vec<change::Reply>,
    /// Files were written with other variables than those of now.
    files_stale: bool,

    // Isolation.
    began: Instant,
    suspends: Suspends,
    /// When the last good read was sent, and the mod_revision of the assignment that it showed.
    good_read: Option<(Duration, Revision)>,
    read_at: Instant,
    last_beat: Duration,
    read_now: bool,

    ending: Option<(Ending, Option<LeaveRequest>)>,
}

impl Actor {
    async fn open(
        site: Site,
        settings: AgentSettings,
        context: Context,
        host: Arc<dyn Host>,
        ties: Ties,
    ) -> Result<Box<Actor>, Ending> {
        if let Some(fault) = settings.fault() {
            return Err(Ending::Settings(fault));
        }
        let opened = host.open(settings.instance.clone()).await.map_err(|error| match error {
            crate::agent::host::HostError::Locked(text) => Ending::Conflict(text),
            other => Ending::Host(other.to_string()),
        })?;
        let me = Arc::new(Me {
            id: settings.id.clone(),
            instance: opened.instance,
            boot: opened.boot,
            run: opened.run,
            place: opened.place,
            runs: opened.runs,
        });
        let first_face = Face {
            v: 1,
            id: me.id.to_string(),
            instance: me.instance.to_string(),
            run: me.run.to_string(),
            host: host.name(),
            ..Face::default()
        };
        let (face, _) = watch::channel(first_face);
        // It may wait for a way to etcd. Nothing else here is cut short: a file operation would go on and keep the directory locked.
        let temporary = tokio::select! {
            biased;
            at = host.listen(face.subscribe()) => at.map_err(|error| Ending::Host(error.to_string()))?,
            () = context.shutdown.cancelled() => return Err(Ending::Stopped),
        };
        let label = make_label(&settings, &me, temporary, &*host, &context)?;
        let now = Instant::now();
        let rng = |purpose: &str| context.rng(&format!("agent/{}/{purpose}", me.run));
        let mut actor = Box::new(Actor {
            attempt_backoff: Backoff::new(rng("attempt")),
            rejoin_backoff: store::backoff::Backoff::new(rng("rejoin"), REJOIN_PAUSE_FIRST, STORE_PAUSE_MAX),
            io_backoff: Backoff::new(rng("io")),
            apply_backoff: Backoff::new(rng("apply")),
            site,
            settings,
            context,
            host,
            me,
            label: Arc::new(Encoded::new(label)),
            ties,
            face,
            feed: None,
            view: View::default(),
            joined: None,
            lost_lease: None,
            spare_lease: None,
            ever_in: false,
            ever_joined: false,
            registered: opened.registered,
            let_in_before: opened.registered || opened.applied.is_some(),
            unheard: false,
            since: Revision::NONE,
            word: None,
            attempt_at: now,
            waits_since: None,
            said: String::new(),
            nag: Nag::default(),
            io: None,
            io_at: now,
            wish: Wish { phase: Phase::Joining, generation: Revision::NONE, message: String::new() },
            unanswered: None,
            refused: BTreeSet::new(),
            applied: None,
            started: false,
            given: None,
            hooked: Vec::new(),
            child: None,
            child_code: None,
            child_stopping: false,
            ready: false,
            draining: None,
            doing: Doing::Nothing,
            work: None,
            retry_at: None,
            tried: None,
            recheck_at: now,
            memory: None,
            reload: None,
            reload_asked: Vec::new(),
            files_stale: false,
            began: now,
            suspends: Suspends::default(),
            good_read: None,
            read_at: now,
            last_beat: Duration::ZERO,
            read_now: false,
            ending: None,
        });
        actor.recall(opened.applied).await;
        // Before the first call: after a restart the node stays with the etcd cluster that it was registered in. A record that is another
        // node's says nothing of this one's.
        if let Some(applied) = &actor.applied {
            actor.site.store.expect_cluster(applied.cluster_id);
        }
        actor.word = actor.host.last_word().await;
        actor.let_in_before |= actor.word.is_some();
        Ok(actor)
    }

    async fn run(mut self: Box<Self>) -> AgentExit {
        let (shutdown, host) = (self.context.shutdown.clone(), self.host.clone());
        // Made once: each ends the loop.
        let (mut shutdown, mut leave) = (pin!(shutdown.cancelled()), host.leave_requested());
        let mut change = host.change_requested();
        loop {
            self.step();
            self.publish();
            if let Some((ending, asked)) = self.ending.take() {
                return Box::pin(self.finish(ending, asked)).await;
            }
            let wake = self.wake();
            tokio::select! {
                biased;
                () = &mut shutdown => self.end(Ending::Stopped),
                Some(order) = self.ties.orders.recv() => self.obey_order(order),
                request = &mut leave => self.ending = Some((Ending::Left, Some(request))),
                request = &mut change => {
                    change = host.change_requested();
                    self.obey_request(request);
                }
                done = outcome(&mut self.reload) => self.reloaded(done),
                code = child_ended(self.child.as_ref()) => self.child_ended(code),
                done = outcome(&mut self.work) => self.work_done(done),
                done = outcome(&mut self.io) => self.io_done(done),
                () = outcome(&mut self.memory) => {}
                () = lease_lost(self.joined.as_ref()) => self.lease_lost(),
                update = next_update(self.feed.as_mut()) => self.feed_told(update),
                // While a child is being started a signal waits for it: the child may be there before we know.
                signal = host.signal_for_child(), if !matches!(self.doing, Doing::Starting(_)) => {
                    if let Some(child) = &self.child {
                        child.signal(signal);
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// What the label says this node holds.
    fn set_holding(&mut self, holding: Option<Box<Holding>>) {
        if self.label.holding != holding {
            self.label = Arc::new(Encoded::new(Label { holding, ..Label::clone(&self.label) }));
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some((ending, None));
        }
    }

    fn child_ended(&mut self, code: i32) {
        if let Some(child) = self.child.take() {
            // What it left behind in its process group must not go on using what was given.
            child.signal_group(work::KILL);
        }
        self.child_code = Some(code);
        if !self.child_stopping {
            info!(code, "the child ended by itself");
            self.end(Ending::ChildEnded);
        }
    }

    fn lease_lost(&mut self) {
        warn!("the lease is lost: joining again");
        self.lost_lease = self.joined.as_ref().filter(|joined| !joined.lease.lives_on()).map(|joined| joined.lease.id());
        self.leave_store();
    }

    /// It is no longer in the store: the agent joins again. At once if its registration lasted for a lease TTL; else after a pause
    /// that grows, or an agent whose registration is taken away each time would join as fast as the store answers.
    fn leave_store(&mut self) {
        let mut lasted = true;
        if let Some(joined) = self.joined.take() {
            lasted = joined.at.elapsed() >= self.settings.lease_ttl;
            self.spare_lease = Some(joined.lease).filter(|lease| lease.is_good());
        }
        if lasted {
            self.rejoin_backoff.reset();
        }
        let is_first = self.rejoin_backoff.failures() == 0;
        let pause = self.rejoin_backoff.next_delay();
        // An agent with a short lease may wait for less: what it shares a lease with may be about to end.
        let pause = if is_first { Duration::ZERO } else { pause.min(self.settings.lease_ttl / 4) };
        self.attempt_at = Instant::now() + pause;
        self.attempt_backoff.reset();
    }

    fn feed_told(&mut self, update: Update) {
        let (prefix, id) = (&self.site.prefix, &self.me.id);
        match update {
            Update::Reset { revision, cluster_id, kvs, stepped_back } => {
                self.view.reset(Subtree::read(prefix, id, cluster_id, revision, &kvs), stepped_back);
                if stepped_back {
                    warn!(rev = %revision, "the store stepped back: it was emptied, or restored from a backup");
                    self.read_now = true;
                }
            }
            Update::Events { revision, events } => {
                self.view.advance(|subtree| subtree.apply(prefix, id, revision, &events));
            }
        }
        // Whoever waits for a holder looks again.
        if self.joined.is_none() && self.waits_since.is_some() {
            self.attempt_at = Instant::now();
        }
    }

    /// Follows its sub-tree; from what the join made known on, if it did.
    fn open_feed(&mut self, known: Option<(RangeResponse, Option<Ahead>)>) {
        if self.feed.is_none() {
            self.feed = Some(Feed::open_from(
                known,
                self.site.store.clone(),
                Scope::one(self.site.prefix.node_range(&self.me.id)),
                // No progress requests: its keep-alive is an agent's sign of life, and there are thousands.
                FeedSettings { progress: None, beside: true, verify: VERIFY },
                self.context.rng(&format!("agent/{}/feed", self.me.run)),
            ));
        }
    }
}

async fn child_ended(child: Option<&Arc<dyn Child>>) -> i32 {
    match child {
        Some(child) => child.ended().await,
        None => std::future::pending().await,
    }
}

async fn lease_lost(joined: Option<&Joined>) {
    match joined {
        Some(joined) => joined.lease.lost().await,
        None => std::future::pending().await,
    }
}

async fn next_update(feed: Option<&mut Feed>) -> Update {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

/// A boxed future for a slot.
fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> Slot<T> {
    let boxed: BoxFuture<'static, T> = Box::pin(future);
    Some(boxed)
}
