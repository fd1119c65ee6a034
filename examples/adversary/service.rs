//! The service behind a terminator, which attacks some of its clients.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::testing::peer::{Event, RawTls};
use bowline::testing::pki::PkiFiles;
use bowline::{ServerTls, TlsVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{Args, Failure, line, long_chain};

/// Serves until the task is aborted. Prints the address.
pub(crate) async fn serve(args: Arc<Args>, pki: &PkiFiles, addr: SocketAddr) -> Result<JoinHandle<()>, Failure> {
    let version = if args.tls12 { TlsVersion::V1_2 } else { TlsVersion::V1_3 };
    let tls = |bytes| {
        let me = pki.server();
        ServerTls::builder()
            .identity(long_chain(me, bytes), me.key_der())
            .min_version(version)
            .max_version(version)
            .build()
    };
    let honest = tls(1)?;
    let hostile = tls(args.attack.chain().unwrap_or(1))?;
    let listener = TcpListener::bind(addr).await?;
    println!("listening {}", listener.local_addr()?);
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (args, honest, hostile) = (Arc::clone(&args), honest.clone(), hostile.clone());
            // A client that fails is not an event here: the script watches the terminator.
            tokio::spawn(async move { drop(one(&args, &honest, &hostile, stream).await) });
        }
    }))
}

async fn one(args: &Args, honest: &ServerTls, hostile: &ServerTls, mut stream: TcpStream) -> Result<(), Failure> {
    let header = line(&mut stream).await?;
    if header.starts_with(b"PROXY TCP4 127.0.0.1 ") {
        let mut peer = RawTls::server(stream, honest).await?;
        while !peer.receive(peer.received().len() + 1).await.ends_with(b"\n") {
            if peer.events().last().is_some_and(|event| matches!(event, Event::Fin | Event::Reset)) {
                return Ok(());
            }
        }
        let answer = peer.received().strip_prefix(b"ECHO ").unwrap_or_default().to_vec();
        peer.data(&answer).close_notify().send().await?;
        peer.observe().await;
        return Ok(());
    }
    // A client may refuse the handshake. It then has ended the attack.
    let peer = RawTls::server(stream, hostile).await;
    let sent = match peer {
        Ok(mut peer) => Some((args.attack.flood(&mut peer, args.records).await, peer)),
        Err(_) => None,
    };
    println!("done 1 {}", sent.as_ref().map_or(0, |(records, _)| *records));
    if let Some((_, mut peer)) = sent {
        peer.observe().await;
    }
    Ok(())
}
