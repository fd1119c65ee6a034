//! Changes from one codec to another, to raw bytes, and back.

use std::time::Duration;

use bowline::testing::{BoxTransport, Kind};
use bowline::{Policy, Transport as _};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{AnyDelimiterCodec, LengthDelimitedCodec, LinesCodec};

use crate::common::over;
use crate::script::{Event, Script, Segments, Watched, lines, run};

/// After the line `RAW n`, `n` raw bytes follow, and then lines again.
fn raw() -> Script<LinesCodec> {
    let mut left = 0;
    Script::new(lines, move |event, transport| match event {
        Event::Message(text) => {
            if let Some(n) = text.strip_prefix("RAW ") {
                left = n.parse().unwrap();
                transport.set_raw();
            }
            Ok(0)
        }
        Event::Raw(data) => {
            assert!(transport.is_raw());
            let n = data.len().min(left);
            left -= n;
            if left == 0 {
                transport.set_codec(lines());
            }
            Ok(n)
        }
        _ => Ok(0),
    })
}

/// rule: write-1
#[tokio::test]
async fn raw_bytes_between_lines_are_delivered_once_at_every_cut() {
    let bytes = b"first\nRAW 8\nab\ncd\r\n!between\nRAW 1\nxlast\n";
    let every: Vec<usize> = (0..bytes.len()).collect();
    for cuts in every.iter().map(|place| vec![*place]).chain([every.clone()]) {
        let (stream, _) = Segments::cut(bytes, &cuts);
        let running = run(raw(), stream);
        let told = running.told.clone();
        assert_eq!(running.reason().await.name(), "closed");
        assert_eq!(told.messages(), ["first", "RAW 8", "between", "RAW 1", "last"], "cut at {cuts:?}");
        assert_eq!(told.raw(), b"ab\ncd\r\n!x", "cut at {cuts:?}");
    }
}

/// rule: flow-4
#[tokio::test]
async fn raw_bytes_that_are_left_are_delivered_again_with_later_ones() {
    // The protocol processes three bytes at a time.
    let script = Script::new(lines, |event, transport| match event {
        Event::Made => {
            transport.set_raw();
            Ok(0)
        }
        Event::Raw(data) => Ok(data.len() / 3 * 3),
        _ => Ok(0),
    });
    let (stream, _) = Segments::cut(b"abcdefghijk", &[1, 2, 4, 5, 9]);
    let running = run(script, stream);
    let told = running.told.clone();
    running.reason().await;
    assert_eq!(told.raw(), b"abcdefghi");
}

/// rule: write-1
#[tokio::test]
async fn another_codec_continues_after_the_message_that_set_it() {
    let script = || {
        Script::on_message(
            || AnyDelimiterCodec::new(b"\n".into(), b"\n".into()),
            |text, transport| {
                if let Some(delimiter) = text.strip_prefix("END IS ") {
                    transport.set_codec(AnyDelimiterCodec::new(delimiter.into(), b"\n".into()));
                }
                Ok(())
            },
        )
    };
    let bytes = b"a b\nEND IS ;\nc\nd;e;END IS \n;f;g\n";
    for place in 0..bytes.len() {
        let (stream, _) = Segments::cut(bytes, &[place]);
        let running = run(script(), stream);
        let told = running.told.clone();
        assert_eq!(running.reason().await.name(), "closed");
        assert_eq!(told.messages(), ["a b", "END IS ;", "c\nd", "e", "END IS \n", "f;g"], "cut at {place}");
    }
}

/// rule: write-1, flow-4
#[tokio::test]
async fn unread_bytes_are_decoded_again_after_a_change_of_codec_without_data() {
    over(&[Kind::Tcp, Kind::Tls13], Policy::default(), |_, a, mut b: BoxTransport| async move {
        // The first codec interprets the four bytes as a length, and waits forever.
        let codec = Watched::new(LengthDelimitedCodec::new());
        let made = codec.clone();
        let make = move || made.clone();
        let script = Script::new(make, |event, transport| match event {
            Event::Timer if transport.is_raw() => {
                transport.set_codec(Watched::new(LengthDelimitedCodec::builder().length_field_length(1).new_codec()));
                Ok(0)
            }
            Event::Timer => {
                transport.set_raw();
                transport.set_timer(Some(Duration::from_millis(1)));
                Ok(0)
            }
            Event::Raw(data) if data.len() == 6 => Ok(1),
            _ => Ok(0),
        });
        let running = run(script, a);
        b.write_all(b"\0\x02hi\x01!").await.unwrap();
        codec.shown(6).await;
        running.handle.set_timer(Some(Duration::ZERO));
        running.told.until(|told| told.messages().len() == 2).await;
        assert_eq!(
            (running.told.raw().as_slice(), running.told.messages()),
            (&b"\0"[..], vec!["hi".into(), "!".into()])
        );
        b.close().await;
        assert_eq!(running.reason().await.name(), "closed");
    })
    .await;
}
