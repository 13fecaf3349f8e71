//! The temporary endpoint: a small HTTP listener that tells who this agent is, and the question to another's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::agent::host::{Face, HostError};

/// Question and answer, connecting included.
const LIMIT: Duration = Duration::from_secs(2);
/// A host without a way to etcd is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A request's head, and an answer, are at most this long.
const BYTES_MAX: usize = 16 * 1024;
/// So many answer at once; more wait.
const CONNECTIONS_MAX: usize = 16;

/// Opens the endpoint on `wanted`, or on a free port of the address towards etcd (loopback if nobody says where that is).
///
/// A host that has no way to etcd yet (it boots) is waited for: another address would be in the label for good.
///
/// # Errors
/// When it cannot listen there.
pub async fn listen(
    wanted: Option<SocketAddr>,
    towards: &[String],
    face: watch::Receiver<Face>,
) -> Result<(SocketAddr, JoinHandle<()>), HostError> {
    let socket = match wanted {
        Some(socket) => socket,
        None => SocketAddr::new(address_towards(towards).await, 0),
    };
    let failed = |error| HostError::failed(format!("the temporary endpoint cannot listen on {socket}"), error);
    let listener = TcpListener::bind(socket).await.map_err(failed)?;
    let mut local = listener.local_addr().map_err(failed)?;
    // Who listens on all addresses is reached at one.
    if local.ip().is_unspecified() {
        local.set_ip(address_towards(towards).await);
    }
    Ok((local, tokio::spawn(serve(listener, face))))
}

/// The address of the interface that leads to the first of these that there is a way to. Waits until there is one.
async fn address_towards(towards: &[String]) -> IpAddr {
    if towards.is_empty() {
        return IpAddr::V4(Ipv4Addr::LOCALHOST);
    }
    let mut said = false;
    loop {
        for authority in towards {
            if let Ok(Some(address)) = timeout(LIMIT, local_address(authority)).await {
                return address;
            }
        }
        if !said {
            warn!(error = "no name is known or no route leads there", "this host has no way to etcd; trying on");
            said = true;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What the routing table says; no packet is sent.
async fn local_address(towards: &str) -> Option<IpAddr> {
    for target in lookup_host(towards).await.ok()? {
        let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let Ok(socket) = UdpSocket::bind(SocketAddr::new(any, 0)).await else { continue };
        if socket.connect(target).await.is_ok()
            && let Ok(local) = socket.local_addr()
            && !local.ip().is_unspecified()
        {
            return Some(local.ip());
        }
    }
    None
}

async fn serve(listener: TcpListener, face: watch::Receiver<Face>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let face = face.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    // Whoever asks may go away or be no HTTP client at all.
                    let _ = timeout(LIMIT, answer(stream, face)).await;
                });
            }
            // No file handles left, most likely.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, face: watch::Receiver<Face>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let n = stream.read(&mut chunk).await?;
        if n == 0 || head.len() + n > BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(chunk.get(..n).unwrap_or_default());
    }
    let (status, body) = if head.starts_with(b"GET ") || head.starts_with(b"HEAD ") {
        let mut body = serde_json::to_vec(&*face.borrow()).unwrap_or_default();
        body.push(b'\n');
        ("200 OK", body)
    } else {
        ("405 Method Not Allowed", b"only GET\n".to_vec())
    };
    let head_text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head_text.as_bytes()).await?;
    if !head.starts_with(b"HEAD ") {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

/// Asks who is at a temporary endpoint; `None` = nobody that answers sensibly in time.
pub async fn ask(at: SocketAddr) -> Option<Face> {
    timeout(LIMIT, exchange(at)).await.ok().flatten()
}

async fn exchange(at: SocketAddr) -> Option<Face> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut limited = stream.take(BYTES_MAX as u64);
    limited.read_to_end(&mut answer).await.ok()?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return None;
    }
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    serde_json::from_slice(answer.get(body..)?).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[tokio::test]
    async fn it_tells_who_it_is_and_what_it_uses_now() {
        let (send, face) = watch::channel(Face { v: 1, id: "edge-7".into(), ..Face::default() });
        let (at, task) = listen(None, &[], face).await.unwrap();
        assert!(at.ip().is_loopback());
        assert_eq!(ask(at).await.unwrap().id, "edge-7");
        send.send_modify(|face| face.generation = 812);
        assert_eq!(ask(at).await.unwrap().generation, 812);
        task.abort();
        let _ = task.await;
        assert_eq!(ask(at).await, None);
    }

    #[tokio::test]
    async fn the_address_is_that_of_the_first_way_to_etcd_and_none_is_waited_for() {
        let (_send, face) = watch::channel(Face::default());
        // No port, so that no resolver is asked.
        let nowhere = "nowhere".to_owned();
        let (at, task) = listen(None, &[nowhere.clone(), "127.0.0.1:2379".into()], face.clone()).await.unwrap();
        assert!(at.ip().is_loopback());
        task.abort();
        let any = "0.0.0.0:0".parse().unwrap();
        for wanted in [None, Some(any)] {
            let waits = timeout(Duration::from_millis(300), listen(wanted, std::slice::from_ref(&nowhere), face.clone())).await;
            assert!(waits.is_err(), "{:?}", waits.map(|result| result.map(|(at, _)| at)));
        }
    }

    #[tokio::test]
    async fn a_stranger_is_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stranger = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
        });
        assert_eq!(ask(at).await, None);
        stranger.await.unwrap();
    }
}
