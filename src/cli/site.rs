//! From settings to a store: checked at once for commands, with patience for what runs on.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::resolve::SiteSettings;
use crate::reconcile::{Context, Site, Wall};
use crate::store::api::{KeyRange, RangeRequest, Store, StoreError};
use crate::store::backoff::Nag;

/// A store that answered: for commands.
///
/// # Errors
/// When it did not answer within the dial time-out, or refused.
pub async fn connect(settings: SiteSettings) -> anyhow::Result<Site> {
    let site = Site { store: Store::connect(settings.store).await?, prefix: settings.prefix };
    knock(&site, Door::Nodes).await?;
    Ok(site)
}

/// A store that need not be there yet: for roles and agents.
///
/// # Errors
/// When an endpoint cannot be understood.
pub fn open(settings: SiteSettings) -> anyhow::Result<Site> {
    Ok(Site { store: Store::open(settings.store)?, prefix: settings.prefix })
}

/// Where to knock: a key that whoever has business there may read, whatever else he may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Where nodes register.
    Nodes,
    /// Where relay and manager write: their users need not be let in anywhere else.
    Manager,
}

/// One small read below the prefix: proves that the store is there *and* lets us in.
async fn knock(site: &Site, door: Door) -> Result<(), StoreError> {
    let key = match door {
        Door::Nodes => site.prefix.key("nodes/"),
        Door::Manager => site.prefix.checkpoint(),
    };
    let request = RangeRequest { count_only: true, ..RangeRequest::all(KeyRange::one(key)) };
    site.store.range(request).await.map(|_| ())
}

/// Waits until the store lets us in. Says once that it is away, then at longer intervals.
///
/// # Errors
/// When it refuses: a password does not mend itself. `Ok(false)` = told to stop meanwhile.
pub async fn first_contact(site: &Site, door: Door, stop: &CancellationToken) -> Result<bool, StoreError> {
    let mut pause = Duration::from_millis(200);
    let mut nag = Nag::default();
    loop {
        match knock(site, door).await {
            Ok(()) => return Ok(true),
            Err(error @ StoreError::Refused(_)) => return Err(error),
            Err(error) if nag.is_due(Instant::now()) => tracing::warn!(%error, "the store is away; trying again"),
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// What a role or an agent is given by this process.
pub fn context(shutdown: CancellationToken) -> Context {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "host".into());
    Context { identity: format!("{host}/{}", std::process::id()), seed: fastrand::u64(..), wall: Wall::system(), shutdown }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::keys::Prefix;
    use crate::store::memory::MemoryEtcd;
    use crate::store::memory::faults::{FaultPlan, Faults};

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
        let site = Site { store: faults.client(MemoryEtcd::new().store()).store(), prefix: Prefix::default() };
        let stop = CancellationToken::new();
        let away = tokio::time::timeout(Duration::from_secs(3_600), first_contact(&site, Door::Nodes, &stop)).await;
        assert!(away.is_err(), "it is tried for ever");
        let told = lines.0.lock().unwrap().clone();
        let gaps: Vec<u64> = told.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert!((8..=12).contains(&told.len()), "an hour takes a dozen lines: {gaps:?}");
        assert!(gaps[0] >= 5 && gaps[1] > gaps[0] && gaps[2] > gaps[1] && gaps.iter().all(|gap| *gap <= 610), "{gaps:?}");
        // It is tried on between two lines: when the store is back, that is noticed within seconds.
        faults.set_plan(FaultPlan::default());
        assert!(tokio::time::timeout(Duration::from_secs(6), first_contact(&site, Door::Nodes, &stop)).await.unwrap().unwrap());
    }
}
