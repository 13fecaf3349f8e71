//! The host of a bench's agent: none. No disk, no process, no hook: what is measured is the store and the protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, pending, ready};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::nodes::token;
use crate::agent::decide::applied::{Applied, Given};
use crate::agent::decide::identity::{Place, RecordedRun};
use crate::agent::host::{Child, Face, HookEvent, Host, HostError, LeaveRequest, Opened};
use crate::model::names::InstanceId;

/// The n-th host.
pub struct BareHost {
    number: usize,
    booted: Instant,
    children: Option<Arc<AtomicU64>>,
}

impl BareHost {
    /// The n-th.
    pub fn new(number: usize) -> BareHost {
        BareHost { number, booted: Instant::now(), children: None }
    }

    /// With a child, which is none either; `started` counts how often it was started.
    pub fn with_child(number: usize, started: Arc<AtomicU64>) -> BareHost {
        BareHost { children: Some(started), ..BareHost::new(number) }
    }

    fn opened(&self) -> Option<Opened> {
        let place = Place { device: 1, inode: self.number as u64 };
        let (run, boot) = (token("3", self.number).parse().ok()?, token("2", 1).parse().ok()?);
        let this = RecordedRun { run, boot, place };
        Some(Opened {
            instance: token("1", self.number).parse().ok()?,
            run: this.run.clone(),
            boot: this.boot.clone(),
            place,
            runs: vec![this],
            applied: None,
            registered: false,
        })
    }
}

/// Runs until it is sent any signal.
#[derive(Default)]
struct BareChild(CancellationToken);

impl Child for BareChild {
    fn pid(&self) -> u32 {
        0
    }

    fn signal(&self, _signal: i32) {
        self.0.cancel();
    }

    fn signal_group(&self, _signal: i32) {
        self.0.cancel();
    }

    fn ended(&self) -> BoxFuture<'static, i32> {
        self.0.clone().cancelled_owned().map(|()| 0).boxed()
    }
}

impl Host for BareHost {
    fn open(&self, _wanted: Option<InstanceId>) -> BoxFuture<'_, Result<Opened, HostError>> {
        ready(self.opened().ok_or_else(|| HostError::Failed("a bench's name is not valid".into()))).boxed()
    }

    fn remember(&self, _applied: Option<Applied>) -> BoxFuture<'_, Result<(), HostError>> {
        ready(Ok(())).boxed()
    }

    fn listen(&self, _face: watch::Receiver<Face>) -> BoxFuture<'_, Result<SocketAddr, HostError>> {
        ready(Ok(SocketAddr::from(([127, 0, 0, 1], 49_311)))).boxed()
    }

    fn ask(&self, _at: SocketAddr) -> BoxFuture<'_, Option<Face>> {
        ready(None).boxed()
    }

    fn in_use(&self, _sockets: Vec<SocketAddr>) -> BoxFuture<'_, Vec<SocketAddr>> {
        ready(Vec::new()).boxed()
    }

    fn write_files(&self, _given: Given) -> BoxFuture<'_, Result<(), HostError>> {
        ready(Ok(())).boxed()
    }

    fn has_hook(&self) -> bool {
        false
    }

    fn run_hook(&self, _event: HookEvent, _given: Given, _previous: Option<Given>) -> BoxFuture<'_, Result<(), HostError>> {
        ready(Ok(())).boxed()
    }

    fn has_child(&self) -> bool {
        self.children.is_some()
    }

    fn start_child(&self, _given: Given) -> BoxFuture<'_, Result<Arc<dyn Child>, HostError>> {
        if let Some(started) = &self.children {
            started.fetch_add(1, Relaxed);
        }
        ready(Ok(Arc::new(BareChild::default()) as Arc<dyn Child>)).boxed()
    }

    fn accepts(&self, _at: SocketAddr) -> BoxFuture<'_, bool> {
        ready(true).boxed()
    }

    fn facts(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn name(&self) -> String {
        format!("host-{}", self.number)
    }

    fn since_boot(&self) -> Duration {
        self.booted.elapsed()
    }

    fn leave_requested(&self) -> BoxFuture<'_, LeaveRequest> {
        pending().boxed()
    }

    fn signal_for_child(&self) -> BoxFuture<'_, i32> {
        pending().boxed()
    }
}
