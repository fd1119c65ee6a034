//! Messages that are too long, and bytes that are not a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bowline::Reason;
use bowline::protocol::{CallbackResult, Conn, Framed, MessageConn, MessageProtocol, Protocol, Reading, Unread};
use bowline::testing::BoxTransport;
use bowline::{SocketOptions as _, Transport as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec, LinesCodecError};

use crate::common::{over_all, read_all};
use crate::script::{Event, Script, Segments, lines, run};

fn failure<E: std::error::Error + 'static>(reason: &Reason) -> &E {
    let Reason::Protocol(error) = reason else { panic!("{reason}") };
    error.downcast_ref().unwrap_or_else(|| panic!("{error}"))
}

/// rule: life-3
#[tokio::test]
async fn a_line_that_is_too_long_ends_the_connection_with_the_codecs_error() {
    over_all(|_, a, mut b: BoxTransport| async move {
        let running = run(Script::on_message(lines, |_, _| Ok(())), a);
        b.write_all(format!("short\n{}", "x".repeat(101)).as_bytes()).await.unwrap();
        let told = running.told.clone();
        let reason = running.reason().await;
        assert!(matches!(failure(&reason), LinesCodecError::MaxLineLengthExceeded));
        assert_eq!(told.messages(), ["short"]);
        drop(b);
    })
    .await;
}

/// rule: life-3, close-1
#[tokio::test]
async fn a_protocol_may_answer_a_message_that_is_too_long_and_close() {
    over_all(|_, a, mut b: BoxTransport| async move {
        let script = Script::new(lines, |event, transport| match event {
            Event::Error(_) => {
                transport.send("500 line too long")?;
                transport.close();
                Ok(1)
            }
            _ => Ok(0),
        });
        let running = run(script, a);
        b.write_all(format!("{}\nNOOP\n", "x".repeat(4000)).as_bytes()).await.unwrap();
        let (answer, end) = read_all(&mut b).await;
        assert_eq!((answer.as_slice(), end.is_ok()), (&b"500 line too long\n"[..], true));
        b.close().await;
        let told = running.told.clone();
        assert_eq!(running.reason().await.name(), "closed");
        assert!(told.messages().is_empty());
    })
    .await;
}

/// rule: flow-4
#[tokio::test]
async fn a_protocol_may_continue_after_a_message_that_is_too_long_at_every_cut() {
    let bytes = format!("first\n{}\nnext\n{}\nlast\n", "x".repeat(350), "y".repeat(101));
    for place in 0..bytes.len() {
        let script = Script::new(lines, |event, _| Ok(usize::from(matches!(event, Event::Error(_)))));
        let (stream, _) = Segments::cut(bytes.as_bytes(), &[place]);
        let running = run(script, stream);
        let told = running.told.clone();
        assert_eq!(running.reason().await.name(), "closed", "cut at {place}");
        assert_eq!(told.messages(), ["first", "next", "last"], "cut at {place}");
    }
}

/// rule: life-3
#[tokio::test]
async fn memory_is_bounded_if_the_codec_has_no_limit_or_discards_without_end() {
    let codecs: [fn() -> LinesCodec; 2] = [LinesCodec::new, lines];
    for make in codecs {
        let mut script = Script::new(make, |event, _| Ok(usize::from(matches!(event, Event::Error(_)))));
        script.max_unread = 50_000;
        let (stream, _) = Segments::cut(&vec![b'x'; 1_000_000], &[]);
        let running = run(script, stream);
        let reason = running.reason().await;
        let unread: &Unread = failure(&reason);
        assert!(unread.limit == 50_000 && unread.bytes < 70_000, "{unread}");
    }
}

/// Makes endless messages from no bytes: while the peer sends, or at its end.
struct Endless {
    of_the_end: bool,
}

impl Decoder for Endless {
    type Item = &'static str;
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<&'static str>, std::io::Error> {
        Ok((!self.of_the_end && !bytes.is_empty()).then_some("x"))
    }

    fn decode_eof(&mut self, _: &mut BytesMut) -> Result<Option<&'static str>, std::io::Error> {
        Ok(Some("x"))
    }
}

/// rule: life-6
#[tokio::test]
async fn a_codec_that_makes_endless_messages_from_no_bytes_is_an_error() {
    for of_the_end in [false, true] {
        let script = Script::on_message(move || Endless { of_the_end }, |_, _| Ok(()));
        let (stream, _) = Segments::cut(b"ab", &[]);
        let reason = run(script, stream).reason().await;
        assert_eq!(reason.name(), "protocol", "{reason}");
        assert!(reason.to_string().contains("without end"), "{reason}");
    }
}

/// Consumes all bytes at once, and returns them one by one.
#[derive(Default)]
struct ByteByByte(std::collections::VecDeque<u8>);

impl Decoder for ByteByByte {
    type Item = [u8; 1];
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<[u8; 1]>, std::io::Error> {
        self.0.extend(bytes.split());
        Ok(self.0.pop_front().map(|byte| [byte]))
    }
}

/// rule: life-6
#[tokio::test]
async fn a_codec_may_return_many_messages_from_one_chunk() {
    let (stream, _) = Segments::cut(&[b'x'; 100_000], &[]);
    let running = run(Script::on_message(ByteByByte::default, |_, _| Ok(())), stream);
    let told = running.told.clone();
    assert_eq!(running.reason().await.name(), "closed");
    assert_eq!(told.messages().len(), 100_000);
}

/// rule: write-10
#[tokio::test]
async fn messages_wait_one_by_one_while_their_answers_are_not_read() {
    let high = bowline::Watermarks::default().high();
    over_all(move |kind, a, mut b: BoxTransport| async move {
        for end in [&a, &b] {
            if let Some(tcp) = end.as_tcp() {
                tcp.set_send_buffer_size(64 << 10).unwrap();
                tcp.set_recv_buffer_size(64 << 10).unwrap();
            }
        }
        let most = Arc::new(AtomicUsize::new(0));
        let queued = Arc::clone(&most);
        let script = Script::on_message(lines, move |_, transport| {
            transport.send("y".repeat(3_999))?;
            queued.fetch_max(transport.queued(), Ordering::SeqCst);
            Ok(())
        });
        let running = run(script, a);
        b.write_all("HELP\n".repeat(1_000).as_bytes()).await.unwrap();
        let mut answers = vec![0; 4_000_000];
        b.read_exact(&mut answers).await.unwrap();
        let most = most.load(Ordering::SeqCst);
        assert!((high..high + 4_000 + 3_000).contains(&most), "{kind}: {most} bytes of answers queued");
        assert_eq!(running.told.messages().len(), 1_000);
        b.close().await;
        assert_eq!(running.reason().await.name(), "closed");
    })
    .await;
}

/// rule: life-3
#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    let make = || LengthDelimitedCodec::builder().max_frame_length(100).new_codec();
    let (stream, _) = Segments::cut(b"\0\0\0\x02hi\xff\xff\xff\xff", &[3, 8]);
    let running = run(Script::on_message(make, |_, _| Ok(())), stream);
    let told = running.told.clone();
    assert_eq!(running.reason().await.name(), "protocol");
    assert_eq!(told.all()[..2], [Event::Made, Event::Message("hi".into())]);
}

/// rule: life-3
#[tokio::test]
async fn a_codec_that_fails_twice_at_one_place_ends_the_connection() {
    struct Never;
    impl Decoder for Never {
        type Item = String;
        type Error = std::io::Error;
        fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, Self::Error> {
            if bytes.is_empty() { Ok(None) } else { Err(std::io::Error::other("never")) }
        }
    }
    let (stream, _) = Segments::cut(b"anything", &[]);
    let script = Script::new(
        || Never,
        |event, transport| {
            if matches!(event, Event::Error(_)) {
                transport.set_codec(Never);
            }
            Ok(1)
        },
    );
    let running = run(script, stream);
    let told = running.told.clone();
    assert_eq!(running.reason().await.to_string(), "never");
    assert_eq!(told.all(), [Event::Made, Event::Error("never".into()), Event::Lost("protocol")]);
}

/// rule: life-3
#[tokio::test]
async fn a_codec_that_panics_ends_its_connection_only() {
    struct Panics;
    impl Decoder for Panics {
        type Item = String;
        type Error = std::io::Error;
        fn decode(&mut self, _: &mut BytesMut) -> Result<Option<String>, Self::Error> {
            panic!("on purpose")
        }
    }
    let (stream, _) = Segments::cut(b"anything", &[]);
    let running = run(Script::on_message(|| Panics, |_, _| Ok(())), stream);
    assert_eq!(running.reason().await.to_string(), "a callback panicked: on purpose");
}

/// The test calls the protocol by hand, over a transport that only records. The bytes after the line that closes stay
/// unprocessed.
#[test]
fn a_framed_protocol_is_played_by_hand() {
    let script = Script::on_message(lines, |text, transport| {
        transport.send(format!("did {text}"))?;
        if text == "STOP" {
            transport.handle().close();
        }
        Ok(())
    });
    let mut transport = bowline::testing::Recorder::new();
    let mut framed = Framed::new(script);
    assert_eq!(framed.data_received(&mut transport, b"a\nb\nSTO").unwrap(), 4);
    assert_eq!(framed.data_received(&mut transport, b"STOP\nlate\n").unwrap(), 5);
    assert_eq!(transport.written(), b"did a\ndid b\ndid STOP\n");
    assert_eq!(transport.reading(), Reading::Over);
}

/// A protocol of messages does not have to override anything, and stays accessible inside `Framed`.
#[test]
fn a_framed_protocol_shows_what_is_in_it() {
    struct Quiet(u8);
    impl MessageProtocol for Quiet {
        type Codec = LinesCodec;
        fn codec(&self) -> LinesCodec {
            lines()
        }
        fn message_received(&mut self, _: &mut MessageConn<'_, LinesCodec>, _: String) -> CallbackResult {
            Ok(())
        }
    }
    let framed = Framed::new(Quiet(7));
    assert_eq!((framed.messages().0, framed.max_unread()), (7, 1 << 20));
}
