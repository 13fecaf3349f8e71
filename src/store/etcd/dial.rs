//! Making connections: a byte stream ([`Connect`]), then TLS if the endpoint wants it, all within the dial time-out.
//!
//! The transport gets our own dialer instead of its own one for three reasons: an error says for certain that nothing was sent
//! (a write may then go to another endpoint), certificates are read anew for each connection, and the server's certificate
//! can be left unverified on demand.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

use super::address::Address;
use super::connect::{Connect, Io};
use super::settings::StoreSettings;
use super::tls;
use crate::store::api::StoreError;

/// How much a peer may send of one answer before we have read any of it.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// What to ask oneself when a server does not answer to TLS.
const NOT_SPOKEN: &str = "is it spoken there? if not, write http:// and no --cacert, --cert or --key";

/// A connection could not be made: nothing was sent.
#[derive(Debug, Clone)]
pub(super) struct DialError {
    /// What kind of failure it is.
    pub(super) kind: DialFault,
    /// Why, in a line for people.
    pub(super) reason: String,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialFault {
    /// The peer was not reached.
    Unreached,
    /// TLS did not accept the peer, or it us.
    Refused,
    /// There was one, which broke.
    Gone,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DialError {}

/// A channel to one endpoint that connects at the first call, and only once: what listens there later may be another member, of
/// another cluster even.
pub(super) fn channel(
    address: &Address,
    connect: &Arc<dyn Connect>,
    settings: &Arc<StoreSettings>,
) -> Result<Channel, StoreError> {
    let wrong = |error: &dyn fmt::Display| StoreError::Other(format!("endpoint {}: {error}", address.authority()));
    // The transport must not do TLS itself, so it is told http; the requests carry the true scheme.
    let scheme = if address.tls { "https" } else { "http" };
    let origin: Uri = format!("{scheme}://{}", address.authority()).parse().map_err(|error| wrong(&error))?;
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(|error| wrong(&error))?
        .origin(origin)
        // The default of 64 KiB makes a re-read of some megabytes over a long line take as many round trips.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(false);
    let (address, connect, settings) = (address.clone(), connect.clone(), settings.clone());
    let dialled = Arc::new(AtomicBool::new(false));
    let connector = tower::service_fn(move |_: Uri| {
        let (address, connect, settings) = (address.clone(), connect.clone(), settings.clone());
        let is_gone = dialled.swap(true, Ordering::Relaxed);
        async move {
            if is_gone {
                return Err(DialError { kind: DialFault::Gone, reason: "the connection broke".to_owned() });
            }
            dial(&address, &*connect, &settings).await.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn dial(address: &Address, connect: &dyn Connect, settings: &StoreSettings) -> Result<Box<dyn Io>, DialError> {
    let deadline = Instant::now() + settings.dial_timeout;
    let unreachable = |reason: String| DialError { kind: DialFault::Unreached, reason };
    let refused = |reason: String| DialError { kind: DialFault::Refused, reason: format!("TLS: {reason}") };
    let late = |what: &str| unreachable(format!("no {what} within {} ms", settings.dial_timeout.as_millis()));
    let plain = timeout_at(deadline, connect.connect(&address.host, address.port));
    let plain = plain.await.map_err(|_| late("connection"))?.map_err(|error| unreachable(describe(&error)))?;
    if !address.tls {
        return Ok(plain);
    }
    let config = tls::client_config(settings).map_err(refused)?;
    let name = ServerName::try_from(address.host.clone()).map_err(|error| refused(error.to_string()))?;
    match timeout_at(deadline, TlsConnector::from(Arc::new(config)).connect(name, plain)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        // rustls wraps what it did not like as invalid data; everything else is the network's.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(refused(describe(&error))),
        Ok(Err(error)) => Err(unreachable(format!("TLS: {} ({NOT_SPOKEN})", describe(&error)))),
        // A plain etcd hangs up at a TLS greeting, or says nothing at all.
        Err(_) => Err(late(&format!("answer to TLS ({NOT_SPOKEN})"))),
    }
}

/// What rustls says of certificates only in the names of its types, in words.
fn of_certificate(text: &str) -> Option<&'static str> {
    [
        (
            "CaUsedAsEndEntity",
            "invalid peer certificate: the server shows the certificate of an authority (CA:TRUE) as its own, as self-signed ones \
             often are: give etcd one that the authority has signed, with CA:FALSE",
        ),
        (
            "EndEntityUsedAsCa",
            "invalid peer certificate: it is signed by a certificate that is no authority's (CA:FALSE): sign it with one that is, \
             and name that in cacert",
        ),
        (
            "UnsupportedCertVersion",
            "invalid peer certificate: it is an X.509 certificate of version 1: make it anew, with subject alternative names",
        ),
    ]
    .into_iter()
    .find_map(|(name, words)| text.contains(name).then_some(words))
}

/// "connection refused" rather than "Connection refused (os error 111)".
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    if let Some(words) = of_certificate(text) {
        return words.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}
