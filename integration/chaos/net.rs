//! The network between the processes: every connection to an etcd goes through a listener here, one for each pair of ends,
//! so that any two can be cut off from each other, slowed down, or have their connections reset. It never looks into what
//! it carries.
//!
//! Members call each other by one address each, whoever calls; the caller is found by the owner of its socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Chunks under way in one direction of a connection; beyond it the sender's own buffers fill, as on a real network.
const CHUNKS: usize = 64;

/// One end: a process.
pub(crate) type End = String;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: bool,
    delay: Duration,
    /// Raised = every connection of before is reset.
    resets: u64,
}

#[derive(Default)]
struct Inner {
    links: BTreeMap<(End, End), watch::Sender<State>>,
    /// Process ids of those that call by shared addresses.
    callers: BTreeMap<u32, End>,
    connections: u64,
}

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<Inner>>);

fn pair(a: &str, b: &str) -> (End, End) {
    if a <= b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) }
}

impl Net {
    /// A way for `from` to `to`, which listens at `target`; answers where to call it.
    pub(crate) async fn way(&self, from: &str, to: &str, target: SocketAddr) -> SocketAddr {
        let (listener, at) = listen().await;
        let (net, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        net.link(&from, &to);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                net.carry(stream, &from, &to, target);
            }
        });
        at
    }

    /// A way for whoever is named by [`Net::calls`] to `to`.
    pub(crate) async fn shared_way(&self, to: &str, target: SocketAddr) -> SocketAddr {
        let (listener, at) = listen().await;
        let (net, to) = (self.clone(), to.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let callers = net.0.lock().unwrap().callers.clone();
                let owner = tokio::task::spawn_blocking(move || owner(peer.port(), at.port(), &callers)).await;
                // A caller that is gone already is nobody's.
                if let Ok(Some(from)) = owner {
                    net.carry(stream, &from, &to, target);
                }
            }
        });
        at
    }

    /// The process calls by shared addresses as this end from now on.
    pub(crate) fn calls(&self, pid: u32, end: &str) {
        let mut inner = self.0.lock().unwrap();
        inner.callers.retain(|_, other| other != end);
        inner.callers.insert(pid, end.to_owned());
    }

    fn link(&self, a: &str, b: &str) -> watch::Receiver<State> {
        let mut inner = self.0.lock().unwrap();
        inner.links.entry(pair(a, b)).or_insert_with(|| watch::channel(State::default()).0).subscribe()
    }

    fn change(&self, a: &str, b: &str, change: impl FnOnce(&mut State)) {
        self.link(a, b);
        if let Some(link) = self.0.lock().unwrap().links.get(&pair(a, b)) {
            link.send_modify(change);
        }
    }

    /// Nothing passes between the two, in either direction, or all does again.
    pub(crate) fn cut(&self, a: &str, b: &str, cut: bool) {
        self.change(a, b, |state| state.cut = cut);
    }

    /// Everything between the two takes so long.
    pub(crate) fn delay(&self, a: &str, b: &str, delay: Duration) {
        self.change(a, b, |state| state.delay = delay);
    }

    /// Every connection between the two breaks.
    pub(crate) fn reset(&self, a: &str, b: &str) {
        self.change(a, b, |state| state.resets += 1);
    }

    /// Everybody whom this end has a link with.
    pub(crate) fn partners(&self, end: &str) -> BTreeSet<End> {
        let inner = self.0.lock().unwrap();
        let other = |(a, b): &(End, End)| match (a == end, b == end) {
            (true, _) => Some(b.clone()),
            (_, true) => Some(a.clone()),
            _ => None,
        };
        inner.links.keys().filter_map(other).collect()
    }

    /// Every pair with a link.
    pub(crate) fn pairs(&self) -> Vec<(End, End)> {
        self.0.lock().unwrap().links.keys().cloned().collect()
    }

    /// All is as it was at first.
    pub(crate) fn heal(&self) {
        for link in self.0.lock().unwrap().links.values() {
            link.send_modify(|state| *state = State { resets: state.resets, ..State::default() });
        }
    }

    /// How many connections were carried.
    pub(crate) fn connections(&self) -> u64 {
        self.0.lock().unwrap().connections
    }

    fn carry(&self, caller: TcpStream, from: &str, to: &str, target: SocketAddr) {
        let mut link = self.link(from, to);
        self.0.lock().unwrap().connections += 1;
        tokio::spawn(async move {
            let resets = link.borrow().resets;
            let mut broken = link.clone();
            let carried = async {
                link.wait_for(|state| !state.cut).await.ok()?;
                let called = TcpStream::connect(target).await.ok()?;
                called.set_nodelay(true).ok()?;
                caller.set_nodelay(true).ok()?;
                let (caller_read, caller_write) = caller.into_split();
                let (called_read, called_write) = called.into_split();
                tokio::join!(pipe(caller_read, called_write, link.clone()), pipe(called_read, caller_write, link));
                Some(())
            };
            tokio::select! {
                _ = carried => {}
                _ = broken.wait_for(|state| state.resets != resets) => {}
            }
        });
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<State>) {
    let (send, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let delays = link.clone();
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delays.borrow().delay;
            if send.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = chunks.recv().await {
            sleep_until(due).await;
            if link.wait_for(|state| !state.cut).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Whose socket the local port is, of a connection to `remote`.
fn owner(local: u16, remote: u16, callers: &BTreeMap<u32, End>) -> Option<End> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = port(fields.get(1)?)? == local && port(fields.get(2)?)? == remote;
        is_it.then(|| (*fields.get(9).unwrap_or(&"")).to_owned())
    })?;
    let wanted = format!("socket:[{inode}]");
    callers.iter().find_map(|(pid, end)| {
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let owns = open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy() == wanted));
        owns.then(|| end.clone())
    })
}
