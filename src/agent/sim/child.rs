//! What hooks and children of a simulated machine do.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use super::SimMachine;
use crate::agent::host::Child;

/// What hooks do.
#[derive(Debug, Clone, Default)]
pub struct HookScript {
    /// How long they take.
    pub takes: Duration,
    /// Why they fail; `None` = they do not.
    pub fails: Option<String>,
}

/// What children do.
#[derive(Debug, Clone, Default)]
pub struct ChildScript {
    /// How long after TERM they end; longer than the stop time-out = they must be killed.
    pub stops_after: Duration,
    /// They do not listen on their ports.
    pub deaf: bool,
    /// They listen on all addresses of the machine, not on what they were given.
    pub on_all_addresses: bool,
}

/// A child that runs.
pub(super) struct SimChild {
    pub machine: SimMachine,
    pub ended: watch::Receiver<Option<i32>>,
    pub stops_after: Duration,
}

impl Child for SimChild {
    fn pid(&self) -> u32 {
        7
    }

    fn signal(&self, signal: i32) {
        self.machine.note(format!("signal {signal}"));
    }

    fn signal_group(&self, signal: i32) {
        if self.ended.borrow().is_some() {
            return;
        }
        if signal == 9 {
            self.machine.child_ended(137);
            return;
        }
        let (machine, after, mut ended) = (self.machine.clone(), self.stops_after, self.ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = sleep(after) => machine.child_ended(143),
                _ = ended.wait_for(Option::is_some) => {}
            }
        });
    }

    fn ended(&self) -> BoxFuture<'static, i32> {
        let mut ended = self.ended.clone();
        async move { ended.wait_for(Option::is_some).await.ok().and_then(|code| *code).unwrap_or(137) }.boxed()
    }
}
