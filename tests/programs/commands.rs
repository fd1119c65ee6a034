//! The console's commands over bare TCP, and mistakes of a peer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bowline::{Connector, StartTls, TlsConnection, Transport, UpgradableConnection};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::tools::{A_LITTLE, Console, PATIENCE, ask, certs, connect, flood, line, pattern};

#[test]
fn commands_answer_as_the_contract_says() {
    let console = Console::start(&[]);
    let mut peer = connect(console.tcp);
    let abc = "abc".repeat(1000);
    for (command, answer) in [
        ("ECHO text  as it is \r\n", "text  as it is "),
        ("echo lower case\n", "lower case"),
        ("ECHO\n", ""),
        ("SEND 3\nECHO\n", "abc"),
        (
            "SENDSEQ 3 28\nECHO\n",
            "abcdefghijklmnopqrstuvwxyzababcdefghijklmnopqrstuvwxyzababcdefghijklmnopqrstuvwxyzab",
        ),
        ("SENDSEQ 0 5\nSENDSEQ 5 0\nTINY 0\nSEND 0\nECHO\n", ""),
        ("TINY 5\nECHO\n", "xxxxx"),
        ("PAUSE 1\n", "250 resumed"),
        ("NODELAY off\n", "250 nodelay=off"),
        ("nodelay ON\n", "250 nodelay=on"),
        ("KEEPALIVE on\n", "250 keepalive=on"),
        ("KEEPALIVE off\n", "250 keepalive=off"),
        ("STOPTLS\n", "500 not secure"),
        ("STARTTLS\n", "500 no STARTTLS on this port"),
        ("SENDSEQ 1000 3\nECHO\n", abc.as_str()),
        ("SENDSEQ 16777217 1\n", "500 too large"),
        ("SENDSEQ 1048576 67108864\n", "500 too large"),
        ("SENDSEQ 18446744073709551615 2\n", "500 too large"),
        ("SENDSEQ 18446744073709551616 1\n", "500 too large"),
        ("SENDSEQ 18446744073709551615 0\nSENDSEQ 0 18446744073709551615\nECHO\n", ""),
        ("SEND 18446744073709551616\n", "500 unknown command"),
        ("\n", "500 unknown command"),
        ("SEND\n", "500 unknown command"),
        ("SEND -1\n", "500 unknown command"),
        ("SENDX 1\n", "500 unknown command"),
        ("\u{1}\u{2}é\n", "500 unknown command"),
    ] {
        assert_eq!(ask(&mut peer, command), answer, "{command:?}");
    }
    assert!(ask(&mut peer, "HELP\n").contains("SENDSEQ k n"));
    assert!(ask(&mut peer, "INFO\n").contains(r#""secure":false,"#));
    assert_eq!(ask(&mut peer, "QUIT\n"), "221 bye");
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_line_has_at_most_4096_bytes() {
    let console = Console::start(&[]);
    let longest = format!("ECHO {}", "a".repeat(4091));
    let mut peer = connect(console.tcp);
    assert_eq!(ask(&mut peer, &format!("{longest}\r\n")), longest[5..]);
    // With one byte more, the console refuses the line before its end has come.
    assert_eq!(ask(&mut peer, &format!("{longest}b")), "500 line too long");
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    let mut peer = connect(console.tcp);
    assert_eq!(ask(&mut peer, &format!("{longest}\r\r\n")), "500 line too long");
}

/// rule: half-6
#[test]
fn commands_before_the_peers_end_are_answered_and_a_partial_line_is_not() {
    let console = Console::start(&[]);
    let mut peer = connect(console.tcp);
    peer.get_mut().write_all(b"ECHO asked\nSEND 100000\nECHO unended").unwrap();
    peer.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(line(&mut peer), "asked");
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert!(rest == pattern(100_000));
    assert_eq!(console.lost(1).1["reason"], "closed");
}

/// rule: half-1
#[test]
fn half_continues_to_read_and_counts() {
    let console = Console::start(&[]);
    let mut peer = connect(console.tcp);
    peer.get_mut().write_all(b"HALF 1000\n").unwrap();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert!(all == pattern(1000));
    peer.get_mut().write_all(&[b'x'; 100_000]).unwrap();
    drop(peer);
    let (events, last) = console.lost(1);
    assert_eq!(events, ["made", "write_closed", "read_closed:clean", "lost"]);
    assert_eq!((&last["reason"], &last["received"]), (&"closed".into(), &100_010.into()));
}

/// rule: write-6
#[tokio::test]
async fn bytes_sent_before_a_pause_arrive_during_the_pause() {
    let console = Console::start(&[]);
    let tls = certs().client_tls_builder().build().unwrap();
    let secure = async {
        let tcp = Connector::new().connect_addr(console.tls).await.unwrap();
        Box::new(TlsConnection::connect(tcp, &tls, "localhost").await.unwrap()) as Box<dyn Transport>
    };
    let plain = async { Box::new(Connector::new().connect_addr(console.tcp).await.unwrap()) as Box<dyn Transport> };
    for mut peer in [secure.await, plain.await] {
        peer.write_all(b"SEND 5000000\r\nPAUSE 3600000\r\n").await.unwrap();
        // The client reads late, so that the server has to keep the bytes that the socket cannot hold.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut all = vec![0; 25 + 5_000_000];
        tokio::time::timeout(PATIENCE, peer.read_exact(&mut all)).await.unwrap().unwrap();
        assert!(all[25..] == pattern(5_000_000));
    }
}

/// rule: flow-5
#[test]
fn a_reset_ends_a_pause() {
    let console = Console::start(&[]);
    let mut peer = connect(console.tcp);
    peer.get_mut().write_all(b"PAUSE 3600000\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    socket2::SockRef::from(peer.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(console.lost(1).1["reason"], "reset");
}

/// rule: close-2
#[test]
fn a_close_with_unread_input_loses_nothing() {
    let console = Console::start(&[]);
    for conn in 1..=20 {
        let mut peer = connect(console.tcp);
        peer.get_mut().write_all(&[b"CLOSE 5000000\n".as_slice(), &[b'x'; 200_000]].concat()).unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 5_000_000);
        drop(peer);
        assert_eq!(console.lost(conn).1["reason"], "closed");
    }
}

/// rule: abort-1
#[test]
fn an_abort_does_not_wait_for_a_peer_that_does_not_read() {
    let console = Console::start(&[]);
    let mut peer = connect(console.tcp);
    peer.get_mut().write_all(b"ABORT 500000000\n").unwrap();
    assert_eq!(console.lost(1).1["reason"], "aborted");
    let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// rule: close-3
#[test]
fn a_close_does_not_wait_for_a_silent_peer_past_its_bound() {
    let console = Console::start(&["--close-timeout", "0.3"]);
    let mut peer = connect(console.tcp);
    let begun = Instant::now();
    assert_eq!(ask(&mut peer, "QUIT\n"), "221 bye");
    let (_, last) = console.lost(1);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(last["reason"], "timed_out");
    assert_eq!(last["bound"], "time");
}

/// rule: close-3, close-4
#[test]
fn the_log_names_the_limit_that_ended_a_close() {
    for face in ["async", "protocol"] {
        let console = Console::start(&["--face", face]);
        let mut peer = connect(console.tcp);
        assert_eq!(ask(&mut peer, "QUIT\n"), "221 bye");
        // A close discards at most 16 MiB, and then gives up.
        while peer.get_mut().write_all(&[b'z'; 64 << 10]).is_ok() {}
        let last = console.lost(1).1;
        assert_eq!((&last["reason"], &last["bound"]), (&"unconfirmed".into(), &"bytes".into()), "{face}: {last}");
    }
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn a_large_number_in_a_command_uses_no_memory() {
    let console = Console::start(&["--close-timeout", "0.3"]);
    let before = console.peak();
    let most = u64::MAX;
    let lasting = [
        format!("SEND {most}\n"),
        format!("TINY {most}\n"),
        format!("HALF {most}\n"),
        "SEND 262144\n".repeat(5000),
        "TINY 100000\n".repeat(5000),
    ];
    for (conn, command) in (1..).zip(&lasting) {
        let mut peer = connect(console.tcp);
        peer.get_mut().write_all(command.as_bytes()).unwrap();
        // The transfer has started.
        peer.read_exact(&mut [0; 1000]).unwrap();
        drop(peer);
        console.events(conn);
    }
    let first = lasting.len() as u64 + 1;
    let peers: Vec<_> = (0..12)
        .map(|_| {
            let mut peer = connect(console.tcp);
            peer.get_mut().write_all(b"CLOSE 64000000\n").unwrap();
            peer
        })
        .collect();
    for conn in (first..).take(peers.len()) {
        assert_eq!(console.lost(conn).1["reason"], "timed_out");
    }
    let mut peer = connect(console.tcp);
    peer.get_mut().write_all(format!("ABORT {most}\n").as_bytes()).unwrap();
    assert_eq!(console.lost(first + 12).1["reason"], "aborted");
    let grown = console.peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes");
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn answers_that_the_peer_does_not_read_use_no_memory() {
    let console = Console::start(&[]);
    let before = console.peak();
    for command in ["HELP\n", "INFO\n", "SEND 1000\n", "\n"] {
        flood(connect(console.tcp).get_ref(), command.as_bytes());
    }
    let grown = console.peak() - before;
    assert!(grown < A_LITTLE, "{grown} bytes");
}

/// rule: life-6, write-10
#[cfg(target_os = "linux")]
#[test]
fn a_request_of_a_peer_that_left_does_not_delay_others() {
    let console = Console::start(&[]);
    for command in ["SENDSEQ 16777216 1\n", "TINY 16384\n"] {
        let peer = connect(console.tcp);
        flood(peer.get_ref(), command.as_bytes());
        // The peer has not read its answers, so this drop resets the connection.
        drop(peer);
        assert_eq!(ask(&mut connect(console.tcp), "ECHO still here\n"), "still here");
    }
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn an_unread_log_uses_no_memory_and_its_losses_are_counted() {
    const CONNECTIONS: u64 = 5000;
    const EVENTS: u64 = 4;
    let (console, output) = Console::start_unread(&[]);
    let before = console.peak();
    for _ in 0..CONNECTIONS {
        drop(connect(console.tcp));
    }
    let grown = console.peak() - before;
    assert!(grown < 16 << 20, "{grown} bytes");
    console.signal(Signal::TERM);
    let (mut kept, mut lost) = (0, 0);
    for line in output.map(Result::unwrap) {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "log_lost" {
            lost += event["lines"].as_u64().unwrap();
        } else {
            kept += 1;
        }
    }
    assert!(lost > 0, "nothing is lost: {kept}");
    assert_eq!(kept + lost, CONNECTIONS * EVENTS);
}

/// rule: secure-4, end-1
#[test]
fn http_and_garbage_on_the_tls_port_are_answered_by_an_alert() {
    let console = Console::start(&[]);
    let inputs: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0xff; 100_000],
        // A handshake record that begins with a message of six megabytes, and one with no ClientHello in it.
        b"\x16\x03\x01\x00\x10garbage garbage!",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01!",
    ];
    for (conn, bytes) in (1..).zip(inputs) {
        let mut peer = TcpStream::connect(console.tls).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(bytes).unwrap();
        let mut alert = Vec::new();
        peer.read_to_end(&mut alert).unwrap();
        assert_eq!((alert.len(), alert[0], alert[5]), (7, 21, 2), "{alert:?}");
        drop(peer);
        let (events, last) = console.lost(conn);
        assert_eq!(events, ["made", "lost"]);
        assert_eq!((&last["reason"], &last["phase"]), (&"tls".into(), &"handshake".into()));
    }
}

/// rule: secure-5
#[test]
fn a_handshake_after_starttls_has_a_deadline_too() {
    let console = Console::start(&["--handshake-timeout", "0.3"]);
    let _silent = TcpStream::connect(console.tls).unwrap();
    let (events, last) = console.lost(1);
    assert_eq!((events.len(), &last["reason"], &last["phase"]), (2, &"timed_out".into(), &"handshake".into()));
    let mut silent = connect(console.starttls);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(ask(&mut silent, "STARTTLS\n"), "220 go ahead");
    let (_, last) = console.lost(2);
    assert_eq!((&last["reason"], &last["phase"]), (&"timed_out".into(), &"handshake".into()));
}

/// rule: tcp-6
#[tokio::test]
async fn a_thousand_stalled_handshakes_delay_no_other() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let console = Console::start(&[]);
    let tls = certs().client_tls_builder().build().unwrap();
    let connector = Connector::new();
    let mut stalled = Vec::new();
    for _ in 0..1_000 {
        stalled.push(connector.connect_addr(console.tls).await.unwrap());
    }
    for _ in 0..50 {
        let tcp = connector.connect_addr(console.tls).await.unwrap();
        let good = TlsConnection::connect(tcp, &tls, "localhost");
        let mut good = tokio::time::timeout(Duration::from_secs(10), good).await.unwrap().unwrap();
        good.write_all(b"QUIT\n").await.unwrap();
        let mut all = String::new();
        good.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "220 bowline console tls\r\n221 bye\r\n");
    }
    drop(stalled);
    for conn in 1..=1_050 {
        console.events(conn);
    }
    let count = |name| console.log().iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("made"), count("lost")), (1_050, 1_050));
}

/// rule: upgrade-12
#[tokio::test]
async fn the_console_refuses_one_layer_too_many_and_continues() {
    let console = Console::start(&[]);
    let tls = certs().client_tls_builder().build().unwrap();
    for (port, upgrades) in [(console.starttls, 4), (console.tls, 3)] {
        let mut peer = UpgradableConnection::new(Connector::new().connect_addr(port).await.unwrap());
        if port == console.tls {
            peer.start_tls(StartTls::client(&tls, "localhost")).await.unwrap();
        }
        assert!(answer(&mut peer, "").await.starts_with("220 bowline console "));
        for _ in 0..upgrades {
            assert_eq!(answer(&mut peer, "STARTTLS").await, "220 go ahead");
            peer.start_tls(StartTls::client(&tls, "localhost")).await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(answer(&mut peer, "STARTTLS").await, "500 too many layers");
        }
        assert_eq!(answer(&mut peer, "ECHO as before").await, "as before");
        assert_eq!(answer(&mut peer, "STOPTLS").await, "220 going plain");
        peer.stop_tls().await.unwrap();
        assert_eq!(answer(&mut peer, "STARTTLS").await, "220 go ahead");
        peer.start_tls(StartTls::client(&tls, "localhost")).await.unwrap();
        assert_eq!(answer(&mut peer, "QUIT").await, "221 bye");
        peer.close().await;
    }
    for conn in [1, 2] {
        assert_eq!(console.lost(conn).1["reason"], "closed");
    }
}

/// Sends a command, if there is one, and reads a line.
async fn answer(peer: &mut (impl AsyncBufRead + AsyncWrite + Unpin), command: &str) -> String {
    if !command.is_empty() {
        peer.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    }
    let mut line = String::new();
    peer.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}
