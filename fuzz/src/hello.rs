//! The ClientHello. The result must not depend on the pieces in which it arrives, and its text must not contain a
//! control character.

use std::sync::OnceLock;

use bowline::Watermarks;
use bowline::core::client_hello::ClientHelloReader;
use bowline::testing::shared_pki;

use super::bytes::Bytes;
use super::text;

pub fn run(input: &[u8]) {
    let mut cuts = Bytes::new(input);
    let step = 1 + cuts.size();
    let bytes = cuts.rest();
    let whole = ClientHelloReader::default().read(bytes);
    let mut reader = ClientHelloReader::default();
    let mut end = 0;
    let pieces = loop {
        end = (end + step).min(bytes.len());
        match reader.read(&bytes[..end]) {
            Ok(None) if end < bytes.len() => {}
            result => break result,
        }
    };
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(format!("{whole:?}"), format!("{pieces:?}")),
        (Err(whole), Err(pieces)) => assert_eq!(whole.error, pieces.error),
        _ => panic!("{whole:?} at once, {pieces:?} in pieces of {step}"),
    }
    match whole {
        Ok(Some(hello)) => {
            let text = format!("{hello:?}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        Ok(None) => {}
        Err(error) => text::check(&error),
    }
}

fn hello(name: &str) -> Vec<u8> {
    let tls = shared_pki().client_tls_builder().alpn(["h2", "http/1.1"]).build().unwrap();
    let mut session = tls.session(bowline::config::server_name(name).unwrap(), Watermarks::default()).unwrap();
    session.transmit().to_vec()
}

pub fn seeds() -> Vec<Vec<u8>> {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let make = || {
        let all =
            [hello("localhost"), hello("192.0.2.1"), b"GET / HTTP/1.1\r\n".to_vec(), vec![22, 3, 1, 0, 4, 1, 0, 0, 0]];
        let mut seeds: Vec<Vec<u8>> = all.iter().map(|hello| [&[0][..], hello].concat()).collect();
        // This seed has the message in two records.
        let (body, half) = (&all[0][5..], (all[0].len() - 5) / 2);
        let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        seeds.push([vec![3], record(&body[..half]), record(&body[half..])].concat());
        seeds
    };
    SEEDS.get_or_init(make).clone()
}
