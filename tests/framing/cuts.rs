//! The messages are the same however the bytes are split.

use std::time::Duration;

use bowline::Transport as _;
use bowline::testing::{BoxTransport, Kind};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio_util::bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

use crate::common::{over, over_all, read_all};
use crate::script::{Event, Script, Segments, lines, run};

/// A codec that the test implements: `5:hello,`, with one state for each part.
#[derive(Default)]
pub struct Netstrings {
    length: Option<usize>,
}

impl Decoder for Netstrings {
    type Item = Bytes;
    type Error = std::io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, Self::Error> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(colon) = bytes.iter().position(|byte| *byte == b':') else { return Ok(None) };
                let digits = bytes.split_to(colon + 1);
                let length = std::str::from_utf8(&digits[..colon]).ok().and_then(|digits| digits.parse().ok());
                *self.length.insert(length.ok_or(std::io::ErrorKind::InvalidData)?)
            }
        };
        if bytes.len() <= length {
            return Ok(None);
        }
        self.length = None;
        let message = bytes.split_to(length).freeze();
        bytes.advance(1);
        Ok(Some(message))
    }
}

impl Encoder<&str> for Netstrings {
    type Error = std::io::Error;

    fn encode(&mut self, message: &str, to: &mut BytesMut) -> Result<(), Self::Error> {
        to.extend_from_slice(format!("{}:{message},", message.len()).as_bytes());
        Ok(())
    }
}

fn encoded<'a, C: Encoder<I>, I>(mut codec: C, messages: &'a [String], of: impl Fn(&'a str) -> I) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for message in messages {
        assert!(codec.encode(of(message), &mut bytes).is_ok());
    }
    bytes.to_vec()
}

/// Runs a protocol and returns its events. With `pauses`, the protocol pauses after each message, and another task
/// resumes it.
async fn received<C>(make: fn() -> C, bytes: &[u8], cuts: &[usize], pauses: bool) -> Vec<Event>
where
    Script<C>: bowline::protocol::MessageProtocol<Codec = C>,
    C: Send + 'static,
{
    let (stream, _) = Segments::cut(bytes, cuts);
    let script = Script::on_message(make, move |_, transport| {
        if pauses {
            transport.pause_reading();
            let handle = transport.handle();
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                handle.resume_reading();
            });
        }
        Ok(())
    });
    let running = run(script, stream);
    let told = running.told.clone();
    assert_eq!(running.reason().await.name(), "closed");
    told.all()
}

fn expected(messages: &[String]) -> Vec<Event> {
    let mut events = vec![Event::Made];
    events.extend(messages.iter().cloned().map(Event::Message));
    events.extend([Event::ReadClosed(bowline::End::Clean), Event::Lost("closed")]);
    events
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// rule: write-1, flow-4
#[tokio::test]
async fn every_split_point_gives_the_same_messages() {
    let messages = words(&["EHLO there", "", "x", "STARTTLS", "naïve", "QUIT"]);
    let conversations = [
        (0, encoded(lines(), &messages, |text| text)),
        (1, encoded(LengthDelimitedCodec::new(), &messages, |text| Bytes::from(text.to_owned()))),
        (2, encoded(Netstrings::default(), &messages, |text| text)),
    ];
    for (codec, bytes) in conversations {
        let every: Vec<usize> = (0..bytes.len()).collect();
        let cuts = every.iter().map(|place| vec![*place]).chain([every.clone(), Vec::new()]);
        for cuts in cuts {
            for pauses in [false, true] {
                let got = match codec {
                    0 => received(lines, &bytes, &cuts, pauses).await,
                    1 => received(LengthDelimitedCodec::new, &bytes, &cuts, pauses).await,
                    _ => received(Netstrings::default, &bytes, &cuts, pauses).await,
                };
                assert_eq!(got, expected(&messages), "codec {codec}, cut at {cuts:?}, pauses: {pauses}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// rule: write-1, flow-4
    #[test]
    fn any_cut_of_any_messages_gives_the_same(
        messages in proptest::collection::vec("[a-z:,]{0,60}", 0..12),
        cuts in proptest::collection::vec(0_usize..600, 0..20),
        codec in 0..3,
        pauses: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let got = runtime.block_on(async {
            match codec {
                0 => received(lines, &encoded(lines(), &messages, |text| text), &cuts, pauses).await,
                1 => {
                    let bytes = encoded(LengthDelimitedCodec::new(), &messages, |text| Bytes::from(text.to_owned()));
                    received(LengthDelimitedCodec::new, &bytes, &cuts, pauses).await
                }
                _ => {
                    let bytes = encoded(Netstrings::default(), &messages, |text| text);
                    received(Netstrings::default, &bytes, &cuts, pauses).await
                }
            }
        });
        prop_assert_eq!(got, expected(&messages));
    }
}

/// rule: write-1, write-7
#[tokio::test]
async fn bytes_sent_one_by_one_are_answered_over_every_transport() {
    over_all(|_, a, mut b: BoxTransport| async move {
        let echo = Script::on_message(lines, |text, transport| transport.send(format!("<{text}>")));
        let running = run(echo, a);
        for byte in b"one\r\ntwo\nthree\r\n" {
            b.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        b.close_write().await.unwrap();
        let (answers, end) = read_all(&mut b).await;
        assert_eq!((String::from_utf8(answers).unwrap().as_str(), end.is_ok()), ("<one>\n<two>\n<three>\n", true));
        assert_eq!(running.told.messages(), ["one", "two", "three"]);
        b.close().await;
        assert_eq!(running.reason().await.name(), "closed");
    })
    .await;
}

/// rule: flow-4
#[tokio::test]
async fn paused_messages_stay_in_order_over_every_transport() {
    over_all(|_, a, mut b: BoxTransport| async move {
        let mut script = Script::on_message(lines, |text, transport| {
            if text == "PAUSE" {
                // A pause by the handle, from within a callback, already holds back the next message.
                transport.handle().pause_reading();
            }
            Ok(())
        });
        // Bytes that wait during a pause do not count as a message that is too long.
        script.max_unread = 200;
        let running = run(script, a);
        let numbered: Vec<String> = (0..3000).map(|n| format!("message {n}")).collect();
        let bytes = format!("PAUSE\n{}\n", numbered.join("\n"));
        b.write_all(bytes.as_bytes()).await.unwrap();
        b.close_write().await.unwrap();
        running.told.until(|told| !told.messages().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(running.told.messages(), ["PAUSE"]);
        running.handle.resume_reading();
        running.told.until(|told| told.has(&Event::ReadClosed(bowline::End::Clean))).await;
        assert_eq!(running.told.messages()[1..], numbered);
        b.close().await;
        assert_eq!(running.reason().await.name(), "closed");
    })
    .await;
}

/// rule: write-1
#[tokio::test]
async fn types_are_sent_in_call_order_and_unencodable_messages_are_not_sent() {
    struct Picky;
    impl Decoder for Picky {
        type Item = String;
        type Error = std::io::Error;
        fn decode(&mut self, _: &mut BytesMut) -> Result<Option<String>, Self::Error> {
            Ok(None)
        }
    }
    impl Encoder<&str> for Picky {
        type Error = tokio_util::codec::LinesCodecError;
        fn encode(&mut self, text: &str, to: &mut BytesMut) -> Result<(), Self::Error> {
            LinesCodec::new().encode(text, to)
        }
    }
    impl Encoder<u8> for Picky {
        type Error = std::io::Error;
        fn encode(&mut self, number: u8, to: &mut BytesMut) -> Result<(), Self::Error> {
            to.extend_from_slice(b"half");
            if number > 9 {
                return Err(std::io::Error::other("too high"));
            }
            to.extend_from_slice(&[b'0' + number]);
            Ok(())
        }
    }
    over(&[Kind::Tcp, Kind::Tls13], bowline::Policy::default(), |_, a, mut b: BoxTransport| async move {
        let script = Script::new(
            || Picky,
            |event, transport| {
                if *event == Event::Made {
                    transport.send("one")?;
                    transport.write(b"raw ");
                    transport.send(7)?;
                    assert_eq!(transport.send(10).unwrap_err().to_string(), "too high");
                    transport.send("last")?;
                    transport.close();
                }
                Ok(0)
            },
        );
        let running = run(script, a);
        assert_eq!(read_all(&mut b).await.0, b"one\nraw half7last\n");
        b.close().await;
        assert_eq!(running.reason().await.name(), "closed");
    })
    .await;
}
