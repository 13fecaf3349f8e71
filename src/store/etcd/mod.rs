//! A real etcd behind [`Backend`]. The only folder that names the client crate (`etcd_client`) and its transport (`tonic`,
//! `rustls`); none of their types leaves it, because their breaking releases are not ours.
//!
//! The crate balances calls over all endpoints without knowing which are healthy: with one of three members dead a quarter of
//! all calls fail. So there is one client per endpoint here and a choice of our own (`pool`). Every call has a time-out,
//! every watch a connection of its own. Reading order follows the `mod` lines.
//!
//! [`Backend`]: crate::store::api::Backend

mod address;
mod admit;
mod backend;
mod cluster;
mod connect;
mod convert;
mod denied;
mod dial;
mod error;
mod files;
mod keep_alive;
mod lookout;
mod pool;
mod ring;
mod settings;
mod slot;
mod tls;
mod turns;
mod users;
mod version;
mod watch;

use std::sync::Arc;

use tokio::time::{Instant, sleep};

pub use connect::{Connect, Io, Tcp};
pub use settings::StoreSettings;
pub use users::EtcdUsers;

use crate::store::api::{Store, StoreError};

impl Store {
    /// A store on the etcd that `settings` name, without any contact yet: for agents and roles, which keep trying.
    ///
    /// # Errors
    /// [`StoreError::Other`] if an endpoint cannot be understood.
    ///
    /// # Example
    /// ```
    /// let settings = enlist::store::etcd::StoreSettings { endpoints: vec!["127.0.0.1:2379".into()], ..Default::default() };
    /// let store = enlist::Store::open(settings);
    /// assert!(store.is_ok());
    /// ```
    pub fn open(settings: StoreSettings) -> Result<Store, StoreError> {
        Store::open_over(Arc::new(Tcp), settings)
    }

    /// Like [`open`](Self::open), over byte streams that `connect` makes: through a proxy, a tunnel, or a simulated network.
    ///
    /// # Errors
    /// [`StoreError::Other`] if an endpoint cannot be understood.
    pub fn open_over(connect: Arc<dyn Connect>, settings: StoreSettings) -> Result<Store, StoreError> {
        Ok(Store::new(Arc::new(backend::Etcd::new(connect, settings)?)))
    }

    /// A store on the etcd that `settings` name, after a first contact: for commands. An etcd that is away is tried again until
    /// the dial time-out is over; one that refuses is not.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] or [`StoreError::Timeout`] if there was no contact in time, [`StoreError::Refused`] if TLS or
    /// the credentials were not accepted, [`StoreError::Other`] if an endpoint cannot be understood.
    pub async fn connect(settings: StoreSettings) -> Result<Store, StoreError> {
        // The dial time-out of the connection itself is over a little earlier, and says more.
        let deadline = Instant::now() + settings.dial_timeout + ring::BACK_OFF_MIN * 2;
        let store = Store::open(settings.clone())?;
        let mut refusal = StoreError::Unreachable {
            endpoints: settings.endpoints.join(","),
            reason: format!("no answer within {} ms", settings.dial_timeout.as_millis()),
        };
        loop {
            match tokio::time::timeout_at(deadline, store.member()).await {
                Ok(Ok(member)) => {
                    version::warn_once(&member.version, settings.user_name().is_some());
                    return Ok(store);
                }
                Ok(Err(error @ StoreError::Refused(_))) => return Err(error),
                Ok(Err(error)) => refusal = unwanted(error, &settings),
                Err(_) => return Err(refusal),
            }
            if Instant::now() + ring::BACK_OFF_MIN >= deadline {
                return Err(refusal);
            }
            sleep(ring::BACK_OFF_MIN).await;
        }
    }
}

/// A server that wants a client certificate hangs up right after the handshake. Its alert says so, but is lost if our request
/// runs into the closed connection first: a connection that always breaks is told as what it most likely is.
fn unwanted(error: StoreError, settings: &StoreSettings) -> StoreError {
    match error {
        StoreError::Broken(reason) if settings.wants_tls() && settings.cert.is_none() => {
            let hint = "after the TLS handshake; if etcd wants a client certificate, name one (--cert, --key)";
            StoreError::Refused(format!("{reason} {hint}"))
        }
        StoreError::Broken(reason)
            if !settings.wants_tls() && !settings.endpoints.iter().any(|text| text.contains("https://")) =>
        {
            let hint = "at the first request; if etcd speaks TLS, name its authority (--cacert) or write https://";
            StoreError::Broken(format!("{reason} {hint}"))
        }
        other => other,
    }
}
