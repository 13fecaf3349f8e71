//! The agent's work on its host, one piece at a time. Each is a future of its own, so that the loop goes on meanwhile.
//!
//! An apply is three pieces: prepare (probe, files, hook; may be dropped), stop the old child (may be dropped: whoever comes
//! next stops it on), start the new one (short; never dropped, so that no child is lost).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::word::Word;
use crate::agent::host::{Child, HookEvent, Host, HostError};

/// SIGTERM.
const TERM: i32 = 15;
/// SIGKILL.
pub(super) const KILL: i32 = 9;
/// How often ports are tried while a child starts.
const READY_EVERY: Duration = Duration::from_millis(200);

/// What a piece of work came to.
pub(super) enum Done {
    /// Probe, files and hook.
    Prepared(Result<(), Trouble>),
    /// The old child has ended.
    OldStopped,
    /// The new child runs (`None` = there is none to run); what is applied is recorded.
    Started(Result<Option<Arc<dyn Child>>, HostError>),
    /// Whether the ports accept connections.
    Checked(Result<(), String>),
    /// Files alone were written again.
    Refreshed(Result<(), HostError>),
    /// What of the refused is still in use.
    Rechecked(Vec<SocketAddr>),
    /// Nothing is in use any more.
    Withdrawn,
}

/// Why preparing failed.
pub(super) enum Trouble {
    /// Something else on this host listens there.
    InUse(Vec<SocketAddr>),
    /// Files or hook.
    Host(HostError),
}

/// What to prepare.
pub(super) struct Preparation {
    pub host: Arc<dyn Host>,
    pub given: Given,
    /// What serves now.
    pub previous: Option<Given>,
    /// What a hook was called with that never came to serve: put out of use first.
    pub strays: Vec<Given>,
    /// What must be free.
    pub probe: Vec<SocketAddr>,
    /// The ports that this node serves already, on other addresses perhaps.
    pub own_ports: BTreeSet<u16>,
    pub event: HookEvent,
    /// For all calls with `withdrawn` together.
    pub hook_limit: Duration,
}

/// Probe, files, hook, in this order.
pub(super) async fn prepare(it: Preparation) -> Done {
    let used = used_by_others(&*it.host, it.probe, &it.own_ports).await;
    if !used.is_empty() {
        return Done::Prepared(Err(Trouble::InUse(used)));
    }
    if let Err(error) = it.host.write_files(it.given.clone()).await {
        return Done::Prepared(Err(Trouble::Host(error)));
    }
    put_all_out_of_use(&*it.host, it.strays, it.hook_limit).await;
    let hook = it.host.run_hook(it.event, it.given, it.previous).await;
    Done::Prepared(hook.map_err(Trouble::Host))
}

/// Which of these somebody else listens on. A child of this node that listens on all addresses is nobody else: its port is in
/// use on every address of the host then, one that nobody is ever given included.
async fn used_by_others(host: &dyn Host, probe: Vec<SocketAddr>, own_ports: &BTreeSet<u16>) -> Vec<SocketAddr> {
    const NEVER_GIVEN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 113, 91, 57));
    let mut used = host.in_use(probe).await;
    let same_port = used.iter().map(SocketAddr::port).filter(|port| own_ports.contains(port)).collect::<BTreeSet<_>>();
    let everywhere = host.in_use(same_port.into_iter().map(|port| SocketAddr::new(NEVER_GIVEN, port)).collect()).await;
    used.retain(|socket| !everywhere.iter().any(|own| own.port() == socket.port()));
    used
}

/// Looks at what was refused.
pub(super) async fn recheck(host: Arc<dyn Host>, refused: Vec<SocketAddr>) -> Done {
    Done::Rechecked(host.in_use(refused).await)
}

/// Writes files again, for values that serve no differently.
pub(super) async fn refresh(host: Arc<dyn Host>, given: Given) -> Done {
    Done::Refreshed(host.write_files(given).await)
}

/// Starts the child, and records what is applied.
pub(super) async fn start(host: Arc<dyn Host>, given: Given, applied: Arc<Applied>) -> Done {
    let child = match host.has_child() {
        true => match host.start_child(given).await {
            Ok(child) => Some(child),
            Err(error) => return Done::Started(Err(error)),
        },
        false => None,
    };
    remember(&*host, Some(&applied)).await;
    Done::Started(Ok(child))
}

/// Records what is applied. A full disk must not stop a service that works: it is said, and goes on.
pub(super) async fn remember(host: &dyn Host, applied: Option<&Applied>) {
    if let Err(error) = host.remember(applied.cloned()).await {
        warn!(%error, "what is applied could not be recorded");
    }
}

/// Records the last status that was written.
pub(super) async fn remember_word(host: &dyn Host, word: Word) {
    if let Err(error) = host.remember_word(word).await {
        warn!(%error, "the last status could not be recorded");
    }
}

/// Records that a process of this directory joined, or that its last word was acknowledged.
pub(super) async fn remember_registered(host: &dyn Host, registered: bool) {
    if let Err(error) = host.remember_registered(registered).await {
        warn!(%error, "failed to record whether this node is registered; an offline start is not possible");
    }
}

/// Waits until every port accepts connections.
pub(super) async fn check(host: Arc<dyn Host>, sockets: Vec<SocketAddr>, limit: Duration) -> Done {
    let until = Instant::now() + limit;
    let mut left = sockets;
    loop {
        let mut closed = Vec::new();
        for socket in left {
            if !host.accepts(socket).await {
                closed.push(socket);
            }
        }
        let Some(first) = closed.first().copied() else { return Done::Checked(Ok(())) };
        if Instant::now() >= until {
            let limit = humantime::format_duration(limit);
            return Done::Checked(Err(format!("{first} does not accept connections after {limit}")));
        }
        left = closed;
        sleep(READY_EVERY).await;
    }
}

/// TERM to the child's process group, KILL after the stop time-out. Its exit code.
pub(super) async fn stop_child(child: Arc<dyn Child>, stop_timeout: Duration) -> i32 {
    child.signal_group(TERM);
    let code = match timeout(stop_timeout, child.ended()).await {
        Ok(code) => code,
        Err(_) => {
            warn!(pid = child.pid(), "the child did not end in time and is killed");
            child.signal_group(KILL);
            child.ended().await
        }
    };
    // What the child left behind in its group must not go on using what was given.
    child.signal_group(KILL);
    info!(pid = child.pid(), code, "the child has ended");
    code
}

/// Calls the hook with `withdrawn`. Its failure is said, and keeps nothing in use.
pub(super) async fn put_out_of_use(host: &dyn Host, given: Given) {
    if host.has_hook()
        && let Err(error) = host.run_hook(HookEvent::Withdrawn, given, None).await
    {
        warn!(%error, "the hook failed on withdrawn");
    }
}

/// The same for several, one after the other (a hook need not bear another of its kind beside it), all within one hook limit:
/// the promise of `on_isolation: withdraw` has room for no more.
pub(super) async fn put_all_out_of_use(host: &dyn Host, given: Vec<Given>, hook_limit: Duration) {
    let all = async {
        for given in given {
            put_out_of_use(host, given).await;
        }
    };
    if timeout(hook_limit, all).await.is_err() {
        warn!("the hooks on withdrawn did not all end within one hook limit");
    }
}

/// Stops the child, calls the hook with `withdrawn` for all that it was called with, and forgets.
pub(super) async fn withdraw(
    host: Arc<dyn Host>,
    child: Option<Arc<dyn Child>>,
    stop_timeout: Duration,
    in_use: Vec<Given>,
    hook_limit: Duration,
) -> Done {
    if let Some(child) = child {
        stop_child(child, stop_timeout).await;
    }
    put_all_out_of_use(&*host, in_use, hook_limit).await;
    remember(&*host, None).await;
    Done::Withdrawn
}
