//! Hosts in memory, for simulations and tests: machines with a disk, a boot and a network, on tokio's clock.
//!
//! The same agent runs on them as on a real host. The journal of a machine lists the actions of its agent; the
//! addresses and ports in use show whether `on_isolation: withdraw` is kept.

mod child;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use self::child::SimChild;
pub use self::child::{ChildScript, HookScript};
use super::decide::applied::{Applied, Given};
use super::decide::identity::{Place, RecordedRun};
use super::decide::word::Word;
use super::host::{ChangeRequest, Child, Face, HookEvent, Host, HostError, LeaveRequest, Opened, SetVariables};
use super::settings::AgentSettings;
use crate::model::names::InstanceId;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network between the machines of one simulation. Clones are the same network.
#[derive(Clone, Default)]
pub struct SimNet(Arc<Mutex<Net>>);

#[derive(Default)]
struct Net {
    counter: u64,
    listeners: BTreeMap<SocketAddr, watch::Receiver<Face>>,
}

impl SimNet {
    fn next(&self) -> u64 {
        let mut net = lock(&self.0);
        net.counter += 1;
        net.counter
    }

    /// Puts an endpoint at an address that answers like an agent: a stranger on a recycled address.
    pub fn put(&self, at: SocketAddr, face: Face) {
        let (_, face) = watch::channel(face);
        lock(&self.0).listeners.insert(at, face);
    }

    /// Cuts a listener off.
    pub fn cut(&self, at: SocketAddr) {
        lock(&self.0).listeners.remove(&at);
    }
}

/// A machine: it has a disk, boots, and runs agents' processes. Clones are the same machine.
#[derive(Clone)]
pub struct SimMachine {
    net: SimNet,
    state: Arc<Mutex<Machine>>,
}

struct Machine {
    name: String,
    ip: IpAddr,
    boot: u64,
    booted: Instant,
    suspended: Duration,
    disk: Disk,
    locked: bool,
    taken: BTreeSet<SocketAddr>,
    hook: Option<HookScript>,
    child: Option<ChildScript>,
    /// The assignment of the child, its end, and whether it listens on all addresses.
    running: Option<(Given, watch::Sender<Option<i32>>, bool)>,
    /// The assignment for which the files were last written.
    files: Option<Given>,
    journal: Vec<String>,
    leave: Option<mpsc::Sender<LeaveRequest>>,
    change: Option<mpsc::Sender<ChangeRequest>>,
    /// What a reload reads.
    settings: Option<AgentSettings>,
    /// What its files were written with last.
    variables: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Disk {
    place: Place,
    instance: Option<InstanceId>,
    runs: Vec<RecordedRun>,
    applied: Option<Applied>,
    word: Option<Word>,
    registered: bool,
}

impl SimMachine {
    /// A machine that was just booted, with an empty disk.
    pub fn new(net: &SimNet, name: &str, ip: IpAddr) -> Self {
        let disk = Disk {
            place: Place { device: 1, inode: net.next() },
            instance: None,
            runs: Vec::new(),
            applied: None,
            word: None,
            registered: false,
        };
        let machine = Machine {
            name: name.to_owned(),
            ip,
            boot: net.next(),
            booted: Instant::now(),
            suspended: Duration::from_secs(1_000),
            disk,
            locked: false,
            taken: BTreeSet::new(),
            hook: None,
            child: None,
            running: None,
            files: None,
            journal: Vec::new(),
            leave: None,
            change: None,
            settings: None,
            variables: BTreeMap::new(),
        };
        SimMachine { net: net.clone(), state: Arc::new(Mutex::new(machine)) }
    }

    fn state(&self) -> MutexGuard<'_, Machine> {
        lock(&self.state)
    }

    /// A process on the machine, to run one agent. Dropping all of its clones kills it and its child.
    pub fn process(&self) -> Arc<dyn Host> {
        let (send, leave) = mpsc::channel(1);
        let (change_send, change) = mpsc::channel(1);
        let mut state = self.state();
        (state.leave, state.change) = (Some(send), Some(change_send));
        Arc::new(SimHost {
            machine: self.clone(),
            leave: tokio::sync::Mutex::new(leave),
            change: tokio::sync::Mutex::new(change),
            at: Mutex::new(None),
            has_lock: Mutex::new(false),
        })
    }

    /// Boots the machine again: the agent's process must have ended before.
    pub fn reboot(&self) {
        let boot = self.net.next();
        let mut state = self.state();
        state.boot = boot;
        state.booted = Instant::now();
    }

    /// Adds the time that the machine was suspended.
    pub fn suspend(&self, time: Duration) {
        self.state().suspended += time;
    }

    /// Copies the state directory of the other machine here: same content, another inode.
    pub fn copy_disk(&self, other: &SimMachine) {
        let disk = other.state().disk.clone();
        let place = Place { device: 1, inode: self.net.next() };
        self.state().disk = Disk { place, ..disk };
    }

    /// Clones the disk of the other machine block by block: even the inode is the same.
    pub fn clone_disk(&self, other: &SimMachine) {
        let disk = other.state().disk.clone();
        self.state().disk = disk;
    }

    /// Empties the disk, as a new installation does.
    pub fn reinstall(&self) {
        let place = Place { device: 1, inode: self.net.next() };
        self.state().disk = Disk { place, instance: None, runs: Vec::new(), applied: None, word: None, registered: false };
    }

    /// Sets the hook; `None` = none.
    pub fn set_hook(&self, hook: Option<HookScript>) {
        self.state().hook = hook;
    }

    /// Sets the child of the agents; `None` = none.
    pub fn set_child(&self, child: Option<ChildScript>) {
        self.state().child = child;
    }

    /// Sets whether another program on the machine listens on this socket.
    pub fn set_taken(&self, socket: SocketAddr, taken: bool) {
        let mut state = self.state();
        if taken {
            state.taken.insert(socket)
        } else {
            state.taken.remove(&socket)
        };
    }

    /// Lets the child end by itself.
    pub fn end_child(&self, code: i32) {
        self.child_ended(code);
    }

    /// Takes the actions of the agent since the last call.
    pub fn journal(&self) -> Vec<String> {
        std::mem::take(&mut self.state().journal)
    }

    /// The assignment that the child uses; `None` = no child runs.
    pub fn uses(&self) -> Option<Given> {
        self.state().running.as_ref().map(|(given, ..)| given.clone())
    }

    /// The applied assignment in the state directory.
    pub fn recorded(&self) -> Option<Applied> {
        self.state().disk.applied.clone()
    }

    /// The assignment for which the files were last written.
    pub fn files(&self) -> Option<Given> {
        self.state().files.clone()
    }

    /// Whether the last agent wrote and recorded a final status. A killed agent did not.
    pub fn ended_in_order(&self) -> bool {
        let state = self.state();
        let last = state.disk.runs.last().map(|recorded| &recorded.run);
        last.is_none() || state.disk.word.as_ref().map(|word| &word.run) == last
    }

    /// Asks the agent to leave, as `enlist leave` does on the node.
    pub fn leave(&self) -> BoxFuture<'static, Result<(), String>> {
        let send = self.state().leave.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            let (_sent, delivered) = oneshot::channel();
            let gone = || "no agent runs".to_owned();
            send.ok_or_else(gone)?.send(LeaveRequest { reply, delivered }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        }
        .boxed()
    }

    /// Sets variables, as `enlist agent --set` does on the node.
    pub fn set_variables(&self, variables: SetVariables) -> BoxFuture<'static, Result<String, String>> {
        self.change(|reply| ChangeRequest::Set(variables, reply))
    }

    /// Lets its agent read these settings again, as SIGHUP does.
    pub fn reload(&self, settings: Option<AgentSettings>) -> BoxFuture<'static, Result<String, String>> {
        self.state().settings = settings;
        self.change(ChangeRequest::Reload)
    }

    fn change(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<String, String>>) -> ChangeRequest,
    ) -> BoxFuture<'static, Result<String, String>> {
        let send = self.state().change.clone();
        let (reply, answer) = oneshot::channel();
        let request = request(reply);
        async move {
            let gone = || "no agent runs".to_owned();
            send.ok_or_else(gone)?.send(request).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        }
        .boxed()
    }

    /// What its files were written with last.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.state().variables.clone()
    }

    fn note(&self, text: String) {
        self.state().journal.push(text);
    }

    fn child_ended(&self, code: i32) {
        let mut state = self.state();
        if let Some((given, ended, _)) = state.running.take() {
            state.journal.push(format!("child of {} ended {code}", given.summary()));
            ended.send_replace(Some(code));
        }
    }
}

struct SimHost {
    machine: SimMachine,
    leave: tokio::sync::Mutex<mpsc::Receiver<LeaveRequest>>,
    change: tokio::sync::Mutex<mpsc::Receiver<ChangeRequest>>,
    at: Mutex<Option<SocketAddr>>,
    has_lock: Mutex<bool>,
}

impl Drop for SimHost {
    fn drop(&mut self) {
        // The child dies with the agent.
        self.machine.child_ended(137);
        if let Some(at) = lock(&self.at).take() {
            self.machine.net.cut(at);
        }
        if *lock(&self.has_lock) {
            self.machine.state().locked = false;
        }
    }
}

impl Host for SimHost {
    fn open(&self, wanted: Option<InstanceId>) -> BoxFuture<'_, Result<Opened, HostError>> {
        let result = (|| {
            let (run, fresh) = (self.machine.net.next(), self.machine.net.next());
            let token = |text: String| text.parse().map_err(|error| HostError::failed("a token", error));
            let mut state = self.machine.state();
            if state.locked {
                return Err(HostError::Locked("another agent runs with this state directory".into()));
            }
            state.locked = true;
            *lock(&self.has_lock) = true;
            let instance = match wanted.or_else(|| state.disk.instance.clone()) {
                Some(instance) => instance,
                None => token(format!("instance-{fresh}"))?,
            };
            state.disk.instance = Some(instance.clone());
            let failed = |error| HostError::failed("a token", error);
            let run = format!("run-{run}").parse().map_err(failed)?;
            let boot = format!("boot-{}", state.boot).parse().map_err(failed)?;
            let place = state.disk.place;
            state.disk.runs.push(RecordedRun { run, boot, place });
            let RecordedRun { run, boot, .. } = state.disk.runs.last().cloned().ok_or(HostError::Failed(String::new()))?;
            let (runs, applied, registered) = (state.disk.runs.clone(), state.disk.applied.clone(), state.disk.registered);
            Ok(Opened { instance, run, boot, place, runs, applied, registered })
        })();
        std::future::ready(result).boxed()
    }

    fn remember(&self, applied: Option<Applied>) -> BoxFuture<'_, Result<(), HostError>> {
        self.machine.state().disk.applied = applied;
        std::future::ready(Ok(())).boxed()
    }

    fn remember_word(&self, word: Word) -> BoxFuture<'_, Result<(), HostError>> {
        self.machine.state().disk.word = Some(word);
        std::future::ready(Ok(())).boxed()
    }

    fn remember_registered(&self, registered: bool) -> BoxFuture<'_, Result<(), HostError>> {
        self.machine.state().disk.registered = registered;
        std::future::ready(Ok(())).boxed()
    }

    fn last_word(&self) -> BoxFuture<'_, Option<Word>> {
        std::future::ready(self.machine.state().disk.word.clone()).boxed()
    }

    fn listen(&self, face: watch::Receiver<Face>) -> BoxFuture<'_, Result<SocketAddr, HostError>> {
        let port = 40_000 + u16::try_from(self.machine.net.next() % 20_000).unwrap_or_default();
        let at = SocketAddr::new(self.machine.state().ip, port);
        lock(&self.machine.net.0).listeners.insert(at, face);
        *lock(&self.at) = Some(at);
        std::future::ready(Ok(at)).boxed()
    }

    fn ask(&self, at: SocketAddr) -> BoxFuture<'_, Option<Face>> {
        async move {
            let face = lock(&self.machine.net.0).listeners.get(&at).map(|face| face.borrow().clone());
            // If no agent answers, the request takes its whole time limit.
            sleep(Duration::from_millis(if face.is_some() { 5 } else { 2_000 })).await;
            face
        }
        .boxed()
    }

    fn in_use(&self, sockets: Vec<SocketAddr>) -> BoxFuture<'_, Vec<SocketAddr>> {
        let state = self.machine.state();
        let everywhere = state.running.as_ref().filter(|(_, _, everywhere)| *everywhere).map(|(given, ..)| given);
        let own = |socket: &SocketAddr| everywhere.is_some_and(|given| given.ports.values().any(|port| *port == socket.port()));
        let used = sockets.into_iter().filter(|socket| state.taken.contains(socket) || own(socket)).collect();
        std::future::ready(used).boxed()
    }

    fn write_files(&self, given: Given) -> BoxFuture<'_, Result<(), HostError>> {
        self.machine.state().files = Some(given);
        std::future::ready(Ok(())).boxed()
    }

    fn has_hook(&self) -> bool {
        self.machine.state().hook.is_some()
    }

    fn run_hook(&self, event: HookEvent, given: Given, _previous: Option<Given>) -> BoxFuture<'_, Result<(), HostError>> {
        async move {
            let Some(hook) = self.machine.state().hook.clone() else { return Ok(()) };
            sleep(hook.takes).await;
            let result = hook.fails.map_or(Ok(()), |why| Err(HostError::Failed(why)));
            let word = if result.is_ok() { "" } else { " failed" };
            self.machine.note(format!("hook {} {}{word}", event.as_str(), given.summary()));
            result
        }
        .boxed()
    }

    fn has_child(&self) -> bool {
        self.machine.state().child.is_some()
    }

    fn start_child(&self, given: Given) -> BoxFuture<'_, Result<Arc<dyn Child>, HostError>> {
        let mut state = self.machine.state();
        let script = state.child.clone().unwrap_or_default();
        let (ended, watch) = watch::channel(None);
        state.journal.push(format!("child of {} started", given.summary()));
        state.running = Some((given, ended, script.on_all_addresses));
        let child = SimChild { machine: self.machine.clone(), ended: watch, stops_after: script.stops_after };
        std::future::ready(Ok(Arc::new(child) as Arc<dyn Child>)).boxed()
    }

    fn accepts(&self, at: SocketAddr) -> BoxFuture<'_, bool> {
        let state = self.machine.state();
        let listens = state.child.as_ref().is_some_and(|child| !child.deaf)
            && state.running.as_ref().is_some_and(|(given, ..)| given.sockets().contains(&at));
        std::future::ready(listens).boxed()
    }

    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("host/hostname".to_owned(), self.name())])
    }

    fn name(&self) -> String {
        self.machine.state().name.clone()
    }

    fn since_boot(&self) -> Duration {
        let state = self.machine.state();
        state.booted.elapsed() + state.suspended
    }

    fn leave_requested(&self) -> BoxFuture<'_, LeaveRequest> {
        async move {
            match self.leave.lock().await.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn change_requested(&self) -> BoxFuture<'_, ChangeRequest> {
        async move {
            match self.change.lock().await.recv().await {
                Some(request) => request,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'static, Result<AgentSettings, HostError>> {
        let settings = self.machine.state().settings.clone();
        std::future::ready(settings.ok_or_else(|| HostError::Failed("line 3: \"zone\" is not K=V".into()))).boxed()
    }

    fn set_variables(&self, variables: BTreeMap<String, String>) {
        self.machine.state().variables = variables;
    }

    fn signal_for_child(&self) -> BoxFuture<'_, i32> {
        std::future::pending().boxed()
    }
}
