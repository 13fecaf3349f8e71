//! The temporary endpoint: a small HTTP listener that answers with the identity of this agent, and a client for the
//! endpoints of others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::agent::host::{Face, HostError};

/// The limit for a request and its answer, with the connection.
const LIMIT: Duration = Duration::from_secs(2);
/// The interval of route checks on a host without a route to etcd.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The largest head of a request, and the largest answer.
const BYTES_MAX: usize = 16 * 1024;
/// Addresses for documentation (RFC 5737, RFC 3849): the route to them is the default one, and nothing is sent there.
const DEFAULT_ROUTES: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];
/// So many answer at once; more wait.
const CONNECTIONS_MAX: usize = 16;

/// Opens the endpoint on `wanted`, or on a free port of the address that others reach (loopback if nobody says where etcd is).
///
/// A host may have no route to etcd yet while it boots. The function waits for one, because the label would keep
/// another address for good.
///
/// # Errors
/// When the endpoint cannot listen there.
pub async fn listen(
    wanted: Option<SocketAddr>,
    towards: &[String],
    face: watch::Receiver<Face>,
) -> Result<(SocketAddr, JoinHandle<()>), HostError> {
    let socket = match wanted {
        Some(socket) => socket,
        None => SocketAddr::new(address_towards(towards).await, 0),
    };
    let failed = |error| HostError::failed(format!("failed to open the temporary endpoint on {socket}"), error);
    let listener = TcpListener::bind(socket).await.map_err(failed)?;
    let mut local = listener.local_addr().map_err(failed)?;
    // A listener on all addresses is reached at one of them.
    if local.ip().is_unspecified() {
        local.set_ip(address_towards(towards).await);
    }
    Ok((local, tokio::spawn(serve(listener, face))))
}

/// The address of this host that others can reach: that of the route to the first endpoint which is not this host itself. An etcd (or
/// a proxy) on loopback says nothing of it: then it is that of the default route, and loopback only without one. Waits until there is
/// a way to any endpoint.
async fn address_towards(towards: &[String]) -> IpAddr {
    if towards.is_empty() {
        return IpAddr::V4(Ipv4Addr::LOCALHOST);
    }
    let mut said = false;
    loop {
        let mut found = Vec::new();
        for authority in towards {
            let address = timeout(LIMIT, local_address(authority)).await.ok().flatten();
            found.extend(address);
            if address.is_some_and(|address| !address.is_loopback()) {
                break;
            }
        }
        if !found.is_empty() {
            let mut by_default = Vec::new();
            for target in DEFAULT_ROUTES {
                by_default.extend(local_address(target).await);
            }
            let address = reachable(&found, &by_default);
            if let Some(address) = address.filter(IpAddr::is_loopback) {
                info!(%address, "the temporary endpoint is on loopback: set temporary_listen if other hosts must reach it");
            }
            return address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        if !said {
            warn!(error = "no name is known or no route leads there", "this host has no route to etcd; retrying");
            said = true;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Which address others can reach, of those towards etcd and those of the default routes; loopback if there is no other.
fn reachable(towards: &[IpAddr], by_default: &[IpAddr]) -> Option<IpAddr> {
    let all = || towards.iter().chain(by_default);
    all().find(|address| !address.is_loopback()).or_else(|| all().next()).copied()
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
                    // The client may disconnect or speak another protocol.
                    let _ = timeout(LIMIT, answer(stream, face)).await;
                });
            }
            // Most likely the process has no free file handles.
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
    let (status, kind, body) = respond(&head, &face.borrow());
    let head_text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head_text.as_bytes()).await?;
    if !head.starts_with(b"HEAD ") {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

/// The answer to a request: status, type and body.
///
/// | path | answer |
/// |---|---|
/// | `/` | 200: who this is, what it uses and how far it is ([`Face`]): another host with the same id asks this |
/// | `/readyz` | 200 while what was assigned is in use and serves, else 503 with the reason; etcd that is away changes nothing |
/// | `/livez` | 200 |
/// | any other | 404 |
fn respond(head: &[u8], face: &Face) -> (&'static str, &'static str, Vec<u8>) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed\r\nAllow: GET, HEAD", TEXT, b"only GET and HEAD\n".to_vec());
    }
    match target.split('?').next().unwrap_or_default() {
        "/" => {
            let mut body = serde_json::to_vec(face).unwrap_or_default();
            body.push(b'\n');
            ("200 OK", "application/json", body)
        }
        "/livez" => ("200 OK", TEXT, b"ok\n".to_vec()),
        "/readyz" if face.ready => ("200 OK", TEXT, b"ok\n".to_vec()),
        "/readyz" => {
            let phase = if face.phase.is_empty() { "not joined" } else { &face.phase };
            ("503 Service Unavailable", TEXT, format!("{phase}: {}\n", face.message).into_bytes())
        }
        _ => ("404 Not Found", TEXT, b"only /, /livez and /readyz\n".to_vec()),
    }
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
    async fn endpoint_answers_with_the_present_identity() {
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
    async fn address_is_that_of_the_first_route_to_etcd() {
        let (_send, face) = watch::channel(Face::default());
        // Without a port no resolver is asked.
        let nowhere = "nowhere".to_owned();
        let (at, task) = listen(None, &[nowhere.clone(), "127.0.0.1:2379".into()], face.clone()).await.unwrap();
        // Etcd is on loopback: it is the default route's, if this machine has one.
        let by_default = local_address(DEFAULT_ROUTES[0]).await;
        assert!(by_default.is_none_or(|address| address == at.ip()) || at.ip().is_ipv6(), "{at} {by_default:?}");
        task.abort();
        let any = "0.0.0.0:0".parse().unwrap();
        for wanted in [None, Some(any)] {
            let waits = timeout(Duration::from_millis(300), listen(wanted, std::slice::from_ref(&nowhere), face.clone())).await;
            assert!(waits.is_err(), "{:?}", waits.map(|result| result.map(|(at, _)| at)));
        }
    }

    #[test]
    fn each_path_has_its_answer() {
        let get = |request: &str, face: &Face| {
            let (status, _, body) = respond(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(), face);
            (status.split(' ').next().unwrap().to_owned(), String::from_utf8(body).unwrap())
        };
        let failed = Face { id: "edge-7".into(), phase: "failed".into(), message: "no such interface".into(), ..Face::default() };
        // Registered, and etcd is away.
        let ready = Face { ready: true, ..Face::default() };
        let code = |request: &str, face: &Face| get(request, face).0;
        for (request, face, expected) in [
            ("GET /", &failed, "200"),
            ("GET /?x", &failed, "200"),
            ("HEAD /", &failed, "200"),
            ("GET /livez", &failed, "200"),
            ("GET /readyz", &failed, "503"),
            ("GET /readyz?verbose", &ready, "200"),
            ("GET /readyz/", &ready, "404"),
            ("GET /metrics", &ready, "404"),
            ("GET ", &ready, "404"),
            ("POST /", &ready, "405"),
            ("", &ready, "405"),
        ] {
            assert_eq!(code(request, face), expected, "{request}");
        }
        assert_eq!(get("GET /readyz", &failed).1, "failed: no such interface\n");
        assert_eq!(get("GET /readyz", &Face::default()).1, "not joined: \n");
    }

    #[test]
    fn loopback_is_published_only_without_any_other_route() {
        let check = |towards: &[&str], by_default: &[&str], expected: &str| {
            let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
            let address = reachable(&ips(towards), &ips(by_default)).map(|address| address.to_string()).unwrap_or_default();
            assert_eq!(address, expected, "{towards:?} {by_default:?}");
        };
        check(&["127.0.0.1", "10.0.0.7"], &["192.168.1.5"], "10.0.0.7");
        check(&["10.0.0.7"], &["192.168.1.5"], "10.0.0.7");
        check(&["127.0.0.1"], &["192.168.1.5"], "192.168.1.5");
        check(&["::1"], &["2001:db8::7"], "2001:db8::7");
        check(&["127.0.0.1"], &[], "127.0.0.1");
        check(&["127.0.0.1"], &["127.0.0.1"], "127.0.0.1");
        check(&[], &[], "");
    }

    #[tokio::test]
    async fn answer_of_another_protocol_is_ignored() {
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
