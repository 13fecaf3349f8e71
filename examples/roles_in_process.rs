//! The three roles inside your own program.
//!
//! ```console
//! $ cargo run --example roles_in_process -- 127.0.0.1:2379 /enlist
//! ```
//!
//! Any number of copies may run, here and elsewhere: one instance of each role leads, the others stand by. Ctrl-C stops
//! the program cleanly, so that a standby takes over at once.

use enlist::Store;
use enlist::allocator::{self, AllocatorSettings};
use enlist::manager::{self, ManagerSettings};
use enlist::reconcile::{Context, Site, Wall};
use enlist::relay::{self, RelaySettings};
use enlist::store::etcd::StoreSettings;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| "127.0.0.1:2379".into());
    let prefix = arguments.next().unwrap_or_else(|| "/enlist".into()).parse()?;
    let store = Store::connect(StoreSettings::endpoints([endpoint])).await?;
    let site = Site { store, prefix };

    let shutdown = CancellationToken::new();
    let context = |role: &str| Context {
        identity: format!("example/{}/{role}", std::process::id()),
        seed: u64::from(std::process::id()),
        wall: Wall::system(),
        shutdown: shutdown.clone(),
    };
    let roles = async {
        tokio::try_join!(
            allocator::run(site.clone(), AllocatorSettings::default(), context("allocator")),
            // Source and destination may be different stores.
            relay::run(site.clone(), site.clone(), RelaySettings::default(), context("relay")),
            manager::run(site.clone(), ManagerSettings::default(), context("manager")),
        )
    };
    let stop = async {
        let interrupted = tokio::signal::ctrl_c().await;
        shutdown.cancel();
        interrupted
    };
    eprintln!("running the roles; Ctrl-C stops");
    let (ended, interrupted) = tokio::join!(roles, stop);
    interrupted?;
    ended.map(|_| ())
}
