//! The network between clients and members, as the clients' and the members' sockets see it: which links are faulty, which
//! members stand still, and what that did to whom. turmoil carries the bytes; it has no half-open accept queue, no retransmission
//! and no SIGSTOP, so the sockets are wrapped here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use enlist::store::etcd::{Connect, Io};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::TcpStream;

use super::effects::Effects;

/// Where etcd listens.
pub(super) const PORT: u16 = 2379;

/// What is wrong with a link between a client's host and a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkFault {
    /// Nothing gets through.
    Cut,
    /// What the client sends arrives, answers do not: half-open.
    Deaf,
    /// What the client sends does not arrive.
    Mute,
    /// Everything is late: it arrives when the fault is over.
    Held,
}

/// Clones are the same network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By client and member.
    links: BTreeMap<(String, String), LinkFault>,
    /// Members that stand still, and who waits for them.
    paused: BTreeMap<String, Vec<Waker>>,
    /// Open connections of each member, as it sees them, by their numbers; and who waits for what comes over them.
    connections: BTreeMap<String, BTreeMap<u64, Option<Waker>>>,
    /// … and how many each client's host has, as that sees them.
    held: BTreeMap<String, u64>,
    connections_made: u64,
    /// Members whose kernel closes their connections, because their process is gone.
    dying: BTreeSet<String>,
    effects: Effects,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Effects)) {
        change(&mut self.lock().effects);
    }

    pub(super) fn effects(&self) -> Effects {
        self.lock().effects
    }

    /// How many connections a member has.
    pub(super) fn connections(&self, member: &str) -> u64 {
        self.lock().connections.get(member).map_or(0, |open| open.len() as u64)
    }

    /// How many connections a client's host has.
    pub(super) fn held(&self, client: &str) -> u64 {
        self.lock().held.get(client).copied().unwrap_or_default()
    }

    /// Breaks a link, unless something is wrong with it already. Answers whether it did.
    pub(super) fn break_link(&self, client: &str, member: &str, fault: LinkFault) -> bool {
        let link = (client.to_owned(), member.to_owned());
        let mut state = self.lock();
        if state.links.contains_key(&link) {
            return false;
        }
        state.links.insert(link, fault);
        match fault {
            LinkFault::Cut => turmoil::partition(client, member),
            LinkFault::Deaf => turmoil::partition_oneway(member, client),
            LinkFault::Mute => turmoil::partition_oneway(client, member),
            LinkFault::Held => turmoil::hold(client, member),
        }
        true
    }

    pub(super) fn repair(&self, client: &str, member: &str) {
        let link = (client.to_owned(), member.to_owned());
        match self.lock().links.remove(&link) {
            Some(LinkFault::Held) => turmoil::release(client, member),
            Some(_) => turmoil::repair(client, member),
            None => {}
        }
    }

    /// A member's process is gone, and its connections are closed, oldest first. That order is why it is not left to the end of the
    /// host's runtime, which drops tasks in the order of numbers that the whole process counts.
    pub(super) fn die(&self, member: &str) {
        let mut state = self.lock();
        state.dying.insert(member.to_owned());
        let open = state.connections.get_mut(member).into_iter().flat_map(|open| open.values_mut());
        let waiting: Vec<Waker> = open.filter_map(Option::take).collect();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A member starts anew.
    pub(super) fn live(&self, member: &str) {
        self.lock().dying.remove(member);
    }

    /// A member stands still: what is sent to it piles up in front of it.
    pub(super) fn pause(&self, member: &str) {
        self.lock().paused.insert(member.to_owned(), Vec::new());
    }

    pub(super) fn resume(&self, member: &str) {
        let waiting = self.lock().paused.remove(member).unwrap_or_default();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn fault(&self, client: &str, member: &str) -> Option<LinkFault> {
        self.lock().links.get(&(client.to_owned(), member.to_owned())).copied()
    }
}

/// TCP of a client's host.
#[derive(Debug)]
pub(super) struct SimTcp {
    pub(super) network: Network,
    pub(super) host: String,
}

impl Connect for SimTcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        async move {
            match TcpStream::connect((host, port)).await {
                // Who knocks at a cut link hears nothing; turmoil says at once that it is refused.
                Err(_) if self.network.fault(&self.host, host).is_some() => {
                    self.network.count(|effects| effects.dials_lost += 1);
                    std::future::pending().await
                }
                Err(error) => {
                    self.network.count(|effects| effects.dials_refused += 1);
                    Err(error)
                }
                Ok(stream) => {
                    let (network, client, member) = (self.network.clone(), self.host.clone(), host.to_owned());
                    *network.lock().held.entry(client.clone()).or_default() += 1;
                    Ok(Box::new(ClientSide { stream, network, client, member }) as Box<dyn Io>)
                }
            }
        }
        .boxed()
    }
}

/// A connection at its client: counts what is sent in vain.
struct ClientSide {
    stream: TcpStream,
    network: Network,
    client: String,
    member: String,
}

impl Drop for ClientSide {
    fn drop(&mut self) {
        if let Some(held) = self.network.lock().held.get_mut(&self.client) {
            *held -= 1;
        }
    }
}

impl AsyncRead for ClientSide {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientSide {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(_)) = &written {
            let fault = self.network.fault(&self.client, &self.member);
            let mut state = self.network.lock();
            match fault {
                Some(LinkFault::Cut) => state.effects.sent_into_cut += 1,
                Some(LinkFault::Mute) => state.effects.sent_unheard += 1,
                Some(LinkFault::Held) => state.effects.sent_held += 1,
                Some(LinkFault::Deaf) | None => {}
            }
            if state.paused.contains_key(&self.member) {
                state.effects.sent_to_paused += 1;
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection at its member, which reads and writes nothing while the member stands still.
pub(super) struct MemberSide {
    stream: TcpStream,
    network: Network,
    member: String,
    /// The client's host.
    client: String,
    number: u64,
}

impl MemberSide {
    pub(super) fn new(stream: TcpStream, network: Network, member: &str) -> Self {
        let client = stream.peer_addr().ok().and_then(|peer| turmoil::reverse_lookup(peer.ip())).unwrap_or_default();
        let number = {
            let mut state = network.lock();
            state.connections_made += 1;
            let number = state.connections_made;
            state.connections.entry(member.to_owned()).or_default().insert(number, None);
            number
        };
        MemberSide { stream, network, member: member.to_owned(), client, number }
    }

    /// Whether the process behind it is gone; if not, it will be told.
    fn is_dying(&self, context: &Context<'_>) -> bool {
        let mut state = self.network.lock();
        if let Some(waiting) = state.connections.get_mut(&self.member).and_then(|open| open.get_mut(&self.number)) {
            *waiting = Some(context.waker().clone());
        }
        state.dying.contains(&self.member)
    }

    fn stands_still(&self, context: &Context<'_>) -> bool {
        match self.network.lock().paused.get_mut(&self.member) {
            Some(waiting) => {
                waiting.push(context.waker().clone());
                true
            }
            None => false,
        }
    }
}

impl Drop for MemberSide {
    fn drop(&mut self) {
        if let Some(open) = self.network.lock().connections.get_mut(&self.member) {
            open.remove(&self.number);
        }
    }
}

/// Who calls, for the log.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

impl Connected for MemberSide {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.client.clone())
    }
}

impl AsyncRead for MemberSide {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_dying(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.stands_still(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for MemberSide {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.stands_still(context) {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() && self.network.fault(&self.client, &self.member) == Some(LinkFault::Deaf) {
            self.network.count(|effects| effects.answers_unheard += 1);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
