//! The command of a sample node: it listens on every assigned port, as any service would, and answers with its name. It
//! is a hidden command of this binary, so that the demonstration needs nothing else.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli::exit::Exit;

/// Listen on the addresses and ports in the environment (for the sample nodes of enlist dev)
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Listens until it is killed.
pub async fn run(_args: Args) -> anyhow::Result<Exit> {
    let environment: BTreeMap<String, String> = std::env::vars().filter(|(name, _)| name.starts_with("ENLIST_")).collect();
    let id = environment.get("ENLIST_ID").cloned().unwrap_or_default();
    let mut tasks = JoinSet::new();
    for socket in sockets(&environment) {
        let listener = TcpListener::bind(socket).await.with_context(|| format!("failed to listen on {socket}"))?;
        tasks.spawn(serve(listener, format!("this is {id} on {socket}\n")));
    }
    while tasks.join_next().await.is_some() {}
    Ok(Exit::Ok)
}

fn sockets(environment: &BTreeMap<String, String>) -> Vec<SocketAddr> {
    let ips = ["ENLIST_IP4", "ENLIST_IP6"].into_iter().filter_map(|name| environment.get(name)?.parse::<IpAddr>().ok());
    let ips: Vec<IpAddr> = ips.collect();
    let named = environment.iter().filter(|(name, _)| name.starts_with("ENLIST_PORT_"));
    let ports: Vec<u16> = named.filter_map(|(_, port)| port.parse().ok()).collect();
    ips.iter().flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}

async fn serve(listener: TcpListener, text: String) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(greet(stream, text.clone()));
    }
}

async fn greet(mut stream: TcpStream, text: String) {
    // If the client is gone, the greeting is dropped.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn service_listens_on_every_port_of_every_address() {
        let environment = [
            ("ENLIST_IP", "127.0.0.1"),
            ("ENLIST_IP4", "127.0.0.1"),
            ("ENLIST_IP6", "::1"),
            ("ENLIST_PORT", "80"),
            ("ENLIST_PORT_HTTP", "80"),
            ("ENLIST_PORT_METRICS", "81"),
        ];
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let expected = ["127.0.0.1:80", "127.0.0.1:81", "[::1]:80", "[::1]:81"];
        assert_eq!(sockets(&environment), expected.map(|socket| socket.parse().unwrap()));
    }
}
