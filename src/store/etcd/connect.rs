//! What connections run over: TCP, unless the caller has something else. TLS, time-outs and the meaning of errors are not its
//! business: they are [`dial`](super::dial)'s.

use std::fmt;
use std::io;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes the byte streams to the endpoints of a store.
pub trait Connect: Send + Sync + fmt::Debug {
    /// One stream to this host (a name or an IP address, IPv6 without brackets) and port. It is dropped when the dial time-out is
    /// over. Nothing of a request is sent before it is there, so each of its errors is told as "the endpoint was not reached".
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// TCP of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        async move {
            let tcp = TcpStream::connect((host, port)).await?;
            tcp.set_nodelay(true)?;
            Ok(Box::new(tcp) as Box<dyn Io>)
        }
        .boxed()
    }
}
