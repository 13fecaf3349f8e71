//! What every role runs in: who it is, its sources of randomness and of times for people, and how it is told to stop.
//!
//! One loop shape everywhere: wake → look at the views → plan → commit with compares → report.

pub mod election;
pub mod pace;
pub mod report;
pub mod standby;
pub mod trouble;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::store::api::Store;
use crate::store::keys::Prefix;

/// A store and where in it enlist's keys are.
#[derive(Debug, Clone)]
pub struct Site {
    /// The store.
    pub store: Store,
    /// The prefix.
    pub prefix: Prefix,
}

/// What a role, or an agent, is given by the process it runs in.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who this is, for people and logs, e.g. `host-a/4711`.
    pub identity: String,
    /// Seed for jitter and ids. The simulation gives a fixed one: same seed, same run.
    pub seed: u64,
    /// Times for people. No program compares them.
    pub wall: Wall,
    /// Cancelled = stop in order.
    pub shutdown: CancellationToken,
}

impl Context {
    /// A source of randomness of its own for one purpose, so that one task's draws do not shift another's.
    pub fn rng(&self, purpose: &str) -> fastrand::Rng {
        let salt =
            purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        fastrand::Rng::with_seed(self.seed ^ salt)
    }
}

/// The wall clock, for people.
#[derive(Clone)]
pub struct Wall(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Wall {
    /// The host's clock.
    pub fn system() -> Self {
        Wall(Arc::new(SystemTime::now))
    }

    /// Any other clock: a simulated one that jumps.
    pub fn of(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Wall(Arc::new(clock))
    }

    /// A clock made of tokio's (which tests pause), starting 2026-01-01T00:00:00Z plus `skew`.
    pub fn simulated(skew: Duration) -> Self {
        const START_S: u64 = 1_767_225_600;
        let started = tokio::time::Instant::now();
        Wall::of(move || SystemTime::UNIX_EPOCH + Duration::from_secs(START_S) + skew + started.elapsed())
    }

    /// Now, as RFC 3339 in whole seconds.
    pub fn now(&self) -> String {
        humantime::format_rfc3339_seconds((self.0)()).to_string()
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}
