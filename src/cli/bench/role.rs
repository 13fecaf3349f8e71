//! A role in this process, that can be stopped.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::Place;
use crate::reconcile::{Context, Site, Wall};
use crate::{allocator, manager, relay};

/// It runs until it is stopped or dropped.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// One of each, all at one place.
    ///
    /// # Errors
    /// When the place cannot be reached.
    pub fn all(place: &Place) -> anyhow::Result<[Running; 3]> {
        let site = || place.site();
        Ok([Running::allocator(site()?), Running::relay(site()?, site()?), Running::manager(site()?)])
    }

    /// An allocator.
    pub fn allocator(site: Site) -> Running {
        Running::start(|context| allocator::run(site, Default::default(), context))
    }

    /// A relay.
    pub fn relay(source: Site, destination: Site) -> Running {
        Running::start(|context| relay::run(source, destination, Default::default(), context))
    }

    /// A manager.
    pub fn manager(site: Site) -> Running {
        Running::start(|context| manager::run(site, Default::default(), context))
    }

    fn start<F>(role: impl FnOnce(Context) -> F) -> Running
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let context = Context { identity: "bench".into(), seed: 1, wall: Wall::system(), shutdown: stop.clone() };
        Running { task: tokio::spawn(role(context)), stop }
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// Why it ended, if it did not wait to be stopped.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        (&mut self.task).await?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
