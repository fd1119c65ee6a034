//! Messages around the end of a connection.

use bowline::protocol::MessageConn;
use bowline::testing::BoxTransport;
use bowline::{End, Policy, Transport as _};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

use crate::common::{bounded, over_all, read_all, reset_on_drop, server_and_tokio_rustls};
use crate::script::{Event, Script, Segments, lines, run};

type Ending = fn(&mut MessageConn<'_, LinesCodec>);

/// rule: close-10, abort-3, life-3
#[tokio::test]
async fn nothing_is_delivered_after_the_end_that_a_message_requested() {
    let ends: [(Ending, &str); 6] = [
        (|transport| transport.close(), "closed"),
        (|transport| transport.abort(), "aborted"),
        (|transport| transport.handle().close(), "closed"),
        (|transport| transport.handle().abort(), "aborted"),
        (|transport| transport.control().abort(), "aborted"),
        (|transport| transport.handle().fail("enough"), "protocol"),
    ];
    for (end, reason) in ends {
        over_all(move |_, a, mut b: BoxTransport| async move {
            let script = Script::on_message(lines, move |text, transport| {
                if text == "END" {
                    end(transport);
                }
                Ok(())
            });
            let running = run(script, a);
            b.write_all(b"first\nEND\nlate\nlater\nhalf").await.unwrap();
            let _ = read_all(&mut b).await;
            b.close().await;
            let told = running.told.clone();
            assert_eq!(running.reason().await.name(), reason);
            assert_eq!(told.messages(), ["first", "END"]);
            assert_eq!(told.all().last().unwrap(), &Event::Lost(reason));
        })
        .await;
    }
}

/// rule: life-3
#[tokio::test]
async fn nothing_is_delivered_after_a_message_whose_callback_failed() {
    let script = Script::on_message(lines, |text, _| if text == "END" { Err("enough".into()) } else { Ok(()) });
    let (stream, _) = Segments::cut(b"first\nEND\nlate\n", &[]);
    let running = run(script, stream);
    let told = running.told.clone();
    assert_eq!(running.reason().await.to_string(), "enough");
    assert_eq!(told.messages(), ["first", "END"]);
}

/// rule: half-1
#[tokio::test]
async fn messages_arrive_after_close_write() {
    over_all(|_, a, mut b: BoxTransport| async move {
        let script = Script::on_message(lines, |_, transport| {
            transport.close_write();
            Ok(())
        });
        let running = run(script, a);
        b.write_all(b"first\nsecond\nthi").await.unwrap();
        assert!(read_all(&mut b).await.0.is_empty());
        b.write_all(b"rd\n").await.unwrap();
        b.close().await;
        let told = running.told.clone();
        running.reason().await;
        assert_eq!(told.messages(), ["first", "second", "third"]);
    })
    .await;
}

/// rule: half-6
#[tokio::test]
async fn the_codec_decides_about_a_last_line_without_an_end() {
    for place in 0..12 {
        let (stream, _) = Segments::cut(b"first\r\nlast", &[place]);
        let running = run(Script::on_message(lines, |_, _| Ok(())), stream);
        let told = running.told.clone();
        assert_eq!(running.reason().await.name(), "closed");
        assert_eq!(told.messages(), ["first", "last"]);
        let (stream, _) = Segments::cut(b"\0\0\0\x02hi\0\0\0\x02h", &[place]);
        let running = run(Script::on_message(LengthDelimitedCodec::new, |_, _| Ok(())), stream);
        let told = running.told.clone();
        let reason = running.reason().await;
        assert_eq!((reason.name(), reason.to_string().as_str()), ("protocol", "bytes remaining on stream"));
        assert_eq!(told.messages(), ["hi"]);
    }
}

/// rule: end-2
#[tokio::test]
async fn half_a_line_before_a_truncation_is_not_a_message() {
    for reset in [false, true] {
        bounded("tls", async move {
            let (server, mut client) = server_and_tokio_rustls(Policy::default()).await;
            let running = run(Script::on_message(lines, |_, _| Ok(())), server);
            client.write_all(b"whole\nDELETE /tmp").await.unwrap();
            client.flush().await.unwrap();
            running.told.until(|told| !told.messages().is_empty()).await;
            let (mut socket, _) = client.into_inner();
            // The end is FIN or RST, without close_notify.
            let socket = if reset {
                reset_on_drop(&socket);
                drop(socket);
                None
            } else {
                socket.shutdown().await.unwrap();
                Some(socket)
            };
            let told = running.told.clone();
            let reason = running.reason().await;
            assert_eq!(reason.name(), if reset { "reset" } else { "truncated" });
            assert_eq!(told.messages(), ["whole"]);
            assert_eq!(told.has(&Event::ReadClosed(End::Truncated)), !reset);
            drop(socket);
        })
        .await;
    }
}
