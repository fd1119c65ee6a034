//! A TLS server that answers one line in capital letters. On Ctrl-C it lets every open connection finish.
//!
//! `cargo run --example console` makes the certificates, and `cargo run --example client` is the other side.

use std::time::Duration;

use bowline::{Error, Incoming, Listener, ServerTls, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let tls = ServerTls::builder().identity_pem_files("certs/server.pem", "certs/server.key").build()?;
    let listener = Listener::bind("127.0.0.1:7001").await?;
    let group = listener.group().clone();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            tokio::spawn(serve(incoming, tls.clone())); // an error ends this connection only
        }
    });
    tokio::signal::ctrl_c().await?;
    println!("{}", group.drain(Duration::from_secs(30)).await); // aborts what is left after 30 s
    Ok(())
}

async fn serve(incoming: Incoming, tls: ServerTls) -> Result<(), Error> {
    let mut connection = incoming.handshake(&tls).await?; // the handshake has a deadline
    let mut line = String::new();
    (&mut connection).take(1024).read_line(&mut line).await?; // reads at most 1 KiB
    connection.write_all(line.to_uppercase().as_bytes()).await?;
    println!("{}", connection.close().await); // delivers the last byte, waits for the peer's end, reports both
    Ok(())
}
