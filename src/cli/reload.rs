//! SIGHUP: the settings are read again, and those of the stores are put into force. All other settings need a restart.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::args::{Common, FlagSettings};
use crate::config::Loaded;
use crate::config::resolve::SiteSettings;
use crate::store::api::Store;

/// A store, and how to find its settings among all.
pub type Reloaded = (Store, fn(&Loaded) -> Result<SiteSettings, crate::config::ConfigError>);

/// Listens for SIGHUP from now on, until the handle is dropped. `common` and `own` are the flags that the process was started with:
/// they still count before the file.
///
/// # Errors
/// When the signal cannot be listened for.
pub fn on_hangup(common: Common, own: FlagSettings, stores: Vec<Reloaded>) -> anyhow::Result<AbortOnDropHandle<()>> {
    let mut hangups = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match reload(&common, &own, &stores) {
                Ok(()) => tracing::info!("the settings were read again"),
                Err(error) => tracing::error!(error = format!("{error:#}"), "the settings cannot be used; the former ones stay"),
            }
        }
    })))
}

fn reload(common: &Common, own: &FlagSettings, stores: &[Reloaded]) -> anyhow::Result<()> {
    let loaded = common.settings(own.clone())?;
    // All of them first: half of a change is none.
    let settings = stores.iter().map(|(_, settings)| settings(&loaded)).collect::<Result<Vec<_>, _>>()?;
    for ((store, _), settings) in stores.iter().zip(settings) {
        store.reconfigure(settings.store)?;
    }
    Ok(())
}
