//! Messages around a change between plaintext and TLS.

use bowline::protocol::MessageConn;
use bowline::testing::{Kind, memory_pair, shared_pki, tcp_pair};
use bowline::{Leftover, Reason, StartTls, Transport, UpgradableConnection, UpgradeError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

use crate::common::{bounded, over};
use crate::script::{Event, Running, Script, Segments, Watched, lines, run};

/// Starts TLS on the line `STARTTLS`, by the transport or by a handle.
fn upgrades(leftover: Leftover, by_handle: bool) -> Script<LinesCodec> {
    Script::on_message(lines, move |text, transport| {
        match text {
            "STARTTLS" => {
                transport.send("220 go ahead")?;
                start(transport, leftover, by_handle)?;
            }
            text => transport.send(format!("did {text}"))?,
        }
        Ok(())
    })
}

fn start<C>(transport: &mut MessageConn<'_, C>, leftover: Leftover, by_handle: bool) -> Result<(), bowline::Error> {
    let how = StartTls::server(&shared_pki().server_tls()).leftover(leftover);
    if by_handle {
        drop(transport.handle().start_tls(how));
        return Ok(());
    }
    transport.start_tls(how)
}

fn refused(reason: &Reason) -> Option<usize> {
    let Reason::Protocol(error) = reason else { return None };
    match error.downcast_ref::<bowline::Error>() {
        Some(bowline::Error::Upgrade(UpgradeError::Leftover { count })) => Some(*count),
        _ => None,
    }
}

/// rule: upgrade-2, upgrade-3
#[tokio::test]
async fn a_line_injected_after_starttls_is_never_delivered_at_any_cut() {
    for injected in ["DELETE everything\r\n", "DELETE everyth", "\r\n", "D"] {
        let bytes = format!("NOOP\r\nSTARTTLS\r\n{injected}");
        let border = bytes.len() - injected.len();
        for place in 0..=bytes.len() {
            for leftover in [Leftover::Refuse, Leftover::Feed] {
                for by_handle in [false, true] {
                    let (stream, written) = Segments::cut(bytes.as_bytes(), &[place]);
                    let running = run(upgrades(leftover, by_handle), UpgradableConnection::new(stream));
                    let told = running.told.clone();
                    let reason = running.reason().await;
                    let what = format!("{injected:?} cut at {place}, {leftover:?}, by handle: {by_handle}: {reason}");
                    assert_eq!(told.messages(), ["NOOP", "STARTTLS"], "{what}");
                    let written = written.lock().unwrap().clone();
                    assert!(!String::from_utf8_lossy(&written).contains("did DELETE"), "{what}");
                    let in_time = if place < border { injected.len() } else { place - border };
                    match refused(&reason) {
                        Some(count) => assert_eq!(count, in_time, "{what}"),
                        // If no injected byte came before the change, the bytes reach TLS, which fails, because they
                        // are no handshake.
                        None => assert!(in_time == 0 && reason.name() != "closed", "{what}"),
                    }
                }
            }
        }
    }
}

/// The client's side: requests TLS, and starts the handshake without waiting for the answer.
async fn glued<T: Transport>(plain: T, running: impl FnOnce() -> Running) -> (Running, UpgradableConnection<T>) {
    let mut client = UpgradableConnection::new(plain);
    let tls = shared_pki().client_tls();
    client.write_all(b"NOOP\r\nSTARTTLS\r\n").await.unwrap();
    let mut answers = String::new();
    let running = running();
    for _ in 0..2 {
        client.read_line(&mut answers).await.unwrap();
    }
    assert_eq!(answers, "did NOOP\n220 go ahead\n");
    client.start_tls(StartTls::client(&tls, "localhost")).await.unwrap();
    (running, client)
}

/// rule: upgrade-1, upgrade-2
#[tokio::test]
async fn messages_continue_in_tls_after_an_upgrade() {
    for by_handle in [false, true] {
        bounded("tcp", async move {
            let (client, server) = tcp_pair().await.unwrap();
            let server = UpgradableConnection::new(server);
            let (running, mut client) = glued(client, || run(upgrades(Leftover::Refuse, by_handle), server)).await;
            client.write_all(b"SECRET\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_line(&mut answer).await.unwrap();
            assert_eq!(answer, "did SECRET\n");
            assert!(client.close().await.is_clean());
            let told = running.told.clone();
            running.reason().await;
            let place = told.all().iter().position(|event| *event == Event::Secured).unwrap();
            assert_eq!(told.all()[place + 1], Event::Message("SECRET".into()));
        })
        .await;
    }
}

/// rule: upgrade-2
#[tokio::test]
async fn a_client_hello_glued_to_the_line_is_fed_to_tls() {
    bounded("memory", async {
        let (client, server) = memory_pair();
        let mut client = UpgradableConnection::new(client);
        let (tls, server) = (shared_pki().client_tls(), UpgradableConnection::new(server));
        client.write_all(b"STARTTLS\r\n").await.unwrap();
        // The command and the ClientHello are in the pipe before the server runs for the first time. The server sends
        // no answer in plaintext, because the client expects TLS and its handshake would fail.
        let silent = Script::on_message(lines, |text, transport| match text {
            "STARTTLS" => Ok(start(transport, Leftover::Feed, false)?),
            text => transport.send(text),
        });
        let serving = async { run(silent, server) };
        let (upgraded, running) = tokio::join!(biased; client.start_tls(StartTls::client(&tls, "localhost")), serving);
        upgraded.unwrap();
        client.write_all(b"hello\n").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello\n");
        client.close().await;
        assert_eq!(running.told.messages(), ["STARTTLS", "hello"]);
        running.reason().await;
    })
    .await;
}

/// rule: upgrade-2
#[tokio::test]
async fn half_a_message_that_the_decoder_has_taken_is_leftover_too() {
    // The decoder consumes the four bytes of the length, and waits for the rest.
    for (bytes, count) in [(&b"\0\0\0\x05"[..], 4), (b"\0\0\0\x05hel", 7), (b"\0\0", 2)] {
        let (mut client, server) = tcp_pair().await.unwrap();
        let codec = Watched::new(LengthDelimitedCodec::new());
        let made = codec.clone();
        let script = Script::on_message(move || made.clone(), |_, _| Ok(()));
        let running = run(script, UpgradableConnection::new(server));
        client.write_all(bytes).await.unwrap();
        codec.shown(bytes.len()).await;
        let how = StartTls::server(&shared_pki().server_tls()).leftover(Leftover::Refuse);
        assert!(running.handle.start_tls(how).await.is_err());
        assert_eq!(refused(&running.reason().await), Some(count));
    }
}

/// rule: upgrade-2
#[tokio::test]
async fn a_codec_remembers_nothing_of_the_plaintext() {
    bounded("tcp", async {
        // The codec discards a line that is too long, up to its end. If the old codec were still in use in TLS, it
        // would wait for the end of this line there.
        let (client, server) = tcp_pair().await.unwrap();
        let mut client = UpgradableConnection::new(client);
        let script = Script::new(lines, |event, transport| match event {
            Event::Error(_) => {
                transport.set_codec(LinesCodec::new_with_max_length(5000));
                Ok(1)
            }
            Event::Message(text) if text.starts_with("STARTTLS") => {
                transport.write(b"go\n");
                start(transport, Leftover::Refuse, false)?;
                Ok(0)
            }
            _ => Ok(0),
        });
        let running = run(script, UpgradableConnection::new(server));
        client.write_all(format!("STARTTLS{}\n", "x".repeat(300)).as_bytes()).await.unwrap();
        let mut go = String::new();
        client.read_line(&mut go).await.unwrap();
        client.start_tls(StartTls::client(&shared_pki().client_tls(), "localhost")).await.unwrap();
        client.write_all(b"short\n").await.unwrap();
        client.write_all("y".repeat(200).as_bytes()).await.unwrap();
        running
            .told
            .until(|told| told.all().iter().filter(|event| matches!(event, Event::Error(_))).count() == 2)
            .await;
        // The limit of a hundred bytes applies again.
        assert_eq!(running.told.messages().last().unwrap(), "short");
    })
    .await;
}

/// rule: upgrade-2
#[tokio::test]
async fn a_codec_that_is_chosen_with_the_upgrade_is_kept() {
    bounded("tcp", async {
        let (client, server) = tcp_pair().await.unwrap();
        let script = Script::on_message(lines, |text, transport| {
            transport.send(if text == "STARTTLS" { "220 go ahead".into() } else { format!("did {text}") })?;
            if text == "STARTTLS" {
                transport.set_codec(LinesCodec::new_with_max_length(5000));
                start(transport, Leftover::Refuse, false)?;
            }
            Ok(())
        });
        let (running, mut client) = glued(client, || run(script, UpgradableConnection::new(server))).await;
        client.write_all(format!("{}\n", "x".repeat(4000)).as_bytes()).await.unwrap();
        running.told.until(|told| told.messages().last().is_some_and(|last| last.len() == 4000)).await;
        client.close().await;
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn messages_after_the_one_that_stops_tls_arrive_in_plaintext() {
    over(&[Kind::Upgraded], bowline::Policy::default(), |_, a, mut b| async move {
        let script = Script::on_message(lines, |text, transport| {
            if text == "STOPTLS" {
                transport.stop_tls()?;
            }
            Ok(())
        });
        let running = run(script, a);
        b.write_all(b"STOPTLS\r\nstill in TLS\r\nha").await.unwrap();
        let mut buf = [0; 1];
        // `a` sends its close_notify first, and `b` answers it with its own.
        assert_eq!(b.read(&mut buf).await.unwrap(), 0);
        b.close_write().await.unwrap();
        running.told.until(|told| told.has(&Event::Plain)).await;
        running.told.until(|told| told.messages().len() == 3).await;
        assert_eq!(running.told.messages(), ["STOPTLS", "still in TLS", "ha"]);
        let events = running.told.all();
        let at = |event: &Event| events.iter().position(|told| told == event).unwrap();
        assert!(at(&Event::Plain) < at(&Event::Message("still in TLS".into())));
        b.close().await;
    })
    .await;
}
