//! SIGTERM and SIGINT.

use std::io::{Read, Write};
use std::net::TcpStream;

use bowline::{Connector, TlsConnection, Transport};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tools::{Console, certs, connect, line};

/// rule: close-1
#[test]
fn a_signal_closes_what_is_open_in_order_and_ends_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut console = Console::start(&[]);
        let mut idle = connect(console.tcp);
        let mut busy = connect(console.tcp);
        busy.get_mut().write_all(b"PAUSE 3600000\n").unwrap();
        let mut summing = connect(console.tcp);
        summing.get_mut().write_all(b"SUM\n").unwrap();
        assert_eq!(line(&mut summing), "250 go");
        let mut stalled = TcpStream::connect(console.tls).unwrap();
        stalled.write_all(b"\x16").unwrap();
        // A drain does not accept what still waits in the backlog.
        console.accepted("tls");
        let mut upgrading = connect(console.starttls);
        upgrading.get_mut().write_all(b"STARTTLS\n").unwrap();
        assert_eq!(line(&mut upgrading), "220 go ahead");

        console.signal(signal);
        for peer in [&mut idle, &mut busy, &mut summing] {
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
        let addr = console.tcp;
        drop((idle, busy, summing));
        assert_eq!(console.wait().code(), Some(0));
        // These two are dropped last, because an end before the drain would count as a truncation.
        drop((stalled, upgrading));
        assert!(TcpStream::connect(addr).is_err());
        let reasons: Vec<_> = (1..=5).map(|conn| console.lost(conn).1["reason"].as_str().unwrap().to_owned()).collect();
        // The unfinished handshake is given up. The two faces report different reasons for it.
        assert!(reasons.iter().filter(|reason| *reason == "closed").count() >= 4, "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason == "closed" || reason == "aborted"), "{reasons:?}");
    }
}

/// rule: upgrade-9, close-1
#[tokio::test]
async fn a_signal_closes_a_connection_whose_downgrade_the_peer_does_not_answer() {
    let mut console = Console::start(&[]);
    let tls = certs().client_tls_builder().build().unwrap();
    let tcp = Connector::new().connect_addr(console.tls).await.unwrap();
    let mut peer = TlsConnection::connect(tcp, &tls, "localhost").await.unwrap();
    peer.write_all(b"STOPTLS\n").await.unwrap();
    let mut answers = vec![0; b"220 bowline console tls\r\n220 going plain\r\n".len()];
    peer.read_exact(&mut answers).await.unwrap();
    console.signal(Signal::TERM);
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    assert!(peer.close().await.is_clean());
    assert_eq!(console.wait().code(), Some(0));
    assert_eq!(console.lost(1).1["reason"], "closed");
}
