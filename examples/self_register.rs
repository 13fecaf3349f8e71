//! A service that registers itself: it gets an address and a port, listens there, and answers with its id.
//!
//! ```text
//! cargo run --example self_register -- 127.0.0.1:2379 edge-7
//! ```
//!
//! An allocator must assign addresses: `enlist run`, with a pool that matches the variables of this node.
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::path::PathBuf;

use enlist::store::etcd::StoreSettings;
use enlist::{Agent, Store};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| "127.0.0.1:2379".to_owned());
    let id = arguments.next().unwrap_or_else(|| "self-registered".to_owned());
    let state_dir = arguments.next().map_or_else(|| std::env::temp_dir().join(format!("enlist-{id}")), PathBuf::from);

    let store = Store::connect(StoreSettings { endpoints: vec![endpoint.clone()], ..StoreSettings::default() }).await?;
    let mut registered = Agent::builder(store)
        .id(&id)
        .variable("role", "example")
        .port("http")
        .description("a service that registers itself")
        .state_dir(state_dir)
        // The temporary endpoint gets this host's address on the route to etcd; other agents ask there who holds the
        // id.
        .towards(endpoint)
        // Registered only once the port below accepts connections.
        .registered_when_listening()
        .join()
        .await?;
    for socket in registered.sockets() {
        let listener = TcpListener::bind(socket).await?;
        // Printed only now, because a reader of this line may connect.
        println!("{id} was given {socket}");
        let id = id.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello from {id}\n");
                // The client may have disconnected.
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
    }
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            change = registered.changed() => match change {
                // A real service would now listen at its new address, or stop if it has none.
                Some(state) => println!("{id}: {} {}", state.phase, state.message),
                None => break,
            },
        }
    }
    registered.stop().await?;
    println!("{id} stopped; its address is held for it");
    Ok(())
}
