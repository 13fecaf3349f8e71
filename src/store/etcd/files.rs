//! Certificates and passwords that change on disk: connections made with the former ones are replaced. A connection that lives has
//! shown its certificate once, and nobody asks for it again: without this a renewal shows only when the old one has expired and
//! the connection breaks.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::{info, warn};

use super::pool::Pool;
use super::settings::StoreSettings;
use super::tls;

/// How often the files are looked at: a change counts within 5 s, a third of the lease TTL that agents have by default.
const EVERY: Duration = Duration::from_secs(2);

/// What tells one content of the files from another.
type Seen = Vec<Option<(u64, u64, u64, Option<SystemTime>)>>;

fn look(settings: &StoreSettings) -> Seen {
    let seen = |path: &std::path::Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.modified().ok()))
    };
    settings.files().into_iter().map(seen).collect()
}

/// Whether connections can be made with what is there: a certificate may be in place before its key is.
fn fault(settings: &StoreSettings) -> Option<String> {
    settings.credentials().err().or_else(|| tls::client_config(settings).err().filter(|_| settings.wants_tls()))
}

/// Looks at the files of the settings until the pool is gone.
pub(super) async fn watch(pool: Weak<Pool>) {
    let Some(mut settings) = pool.upgrade().map(|pool| pool.ring().settings.clone()) else { return };
    let (mut used, mut complained) = (look(&settings), None);
    loop {
        sleep(EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = pool.ring().settings.clone();
        if now != settings {
            (settings, used) = (now.clone(), look(&now));
        }
        let there = look(&settings);
        if there == used {
            continue;
        }
        if let Some(fault) = fault(&settings) {
            // Half of a change is no trouble: it is said when it lasts.
            if complained.replace(there.clone()) == Some(there) {
                used = complained.take().unwrap_or_default();
                warn!(fault, "the files of the store's settings changed and cannot be used; the connections stay");
            }
            continue;
        }
        (used, complained) = (there, None);
        match pool.replace((*settings).clone()) {
            Ok(()) => info!("certificates or the password changed; connecting again"),
            Err(error) => warn!(%error, "failed to connect again with changed files"),
        }
    }
}
