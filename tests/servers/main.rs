//! The dialogues before TLS against the servers that Debian has, and against OpenSSL's client.
//!
//! Each test starts a server on a free port of the loopback interface, with a temporary directory, and ends it. A
//! server that is not installed is skipped, and a line on standard error says so; with `BOWLINE_SERVERS=all` it is a
//! failure.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod between;
mod clients;
mod mail;
mod others;
mod postfix;
mod server;

use std::time::Duration;

use bowline::starttls;
use bowline::testing::shared_pki;
use bowline::{ClientTls, Connector, Error, TlsTransport, TlsVersion, Transport, UpgradableConnection, UpgradeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::between::{GoAhead, Place, between};

const PATIENCE: Duration = Duration::from_secs(30);
const VERSIONS: [(TlsVersion, &str); 2] = [(TlsVersion::V1_2, "TLSv1.2"), (TlsVersion::V1_3, "TLSv1.3")];

/// A dialogue with a real server.
struct Check {
    dialogue: &'static str,
    go_ahead: GoAhead,
    /// The message to send in TLS.
    question: Vec<u8>,
    /// Bytes that the answer must contain.
    answer: &'static [u8],
}

fn client_tls(version: TlsVersion) -> ClientTls {
    let builder = ClientTls::builder().roots_pem(shared_pki().ca_pem());
    builder.min_version(version).max_version(version).build().unwrap()
}

/// Upgrades, and sends a question in TLS. Returns the name of the version, and the answer.
async fn converse(port: u16, check: &Check, version: TlsVersion) -> Result<(String, Vec<u8>), Error> {
    let tcp = Connector::new().connect("127.0.0.1", port).await?;
    let mut connection = UpgradableConnection::new(tcp);
    let dialogue = check.dialogue.parse().unwrap();
    starttls::client(&mut connection, dialogue, &client_tls(version), "localhost").await?;
    let name = connection.tls().unwrap().version_name().to_owned();
    connection.write_all(&check.question).await?;
    let mut answer = Vec::new();
    while !answer.windows(check.answer.len()).any(|part| part == check.answer) {
        if connection.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    connection.abort();
    Ok((name, answer))
}

/// Upgrades with both versions succeed. A byte that is injected before, inside or after the go-ahead, in one segment or
/// in two, never gets into TLS.
async fn check(server: &server::Server, check: Check) {
    let dialogue = check.dialogue;
    for (version, name) in VERSIONS {
        let conversed = timeout(PATIENCE, converse(server.port(dialogue), &check, version)).await;
        let (spoken, answer) = conversed.unwrap().unwrap_or_else(|error| panic!("{dialogue} {name}: {error}"));
        assert_eq!(spoken, name, "{dialogue}");
        let is_answered = answer.windows(check.answer.len()).any(|part| part == check.answer);
        assert!(is_answered, "{dialogue} {name}: {}", answer.escape_ascii());
        for place in Place::ALL.into_iter().filter(|place| *place != Place::Inside || check.go_ahead.has_inside()) {
            for is_cut in [false, true] {
                let port = between(server.port(dialogue), check.go_ahead, place, is_cut).await;
                let conversed = timeout(PATIENCE, converse(port, &check, version)).await.unwrap();
                let what = format!("{dialogue} {name}, {place:?}, in two segments: {is_cut}");
                let error = conversed.map(|_| ()).expect_err(&what);
                let is_refused = matches!(
                    &error,
                    Error::Upgrade(UpgradeError::Dialogue(error)) if !error.may_go_on()
                ) || matches!(&error, Error::Upgrade(UpgradeError::Leftover { .. }));
                // In a separate segment, the byte may arrive after the client's last read before TLS. Then TLS refuses
                // it.
                let is_late = place == Place::After && is_cut;
                assert!(is_refused || is_late, "{what}: {error}");
            }
        }
    }
    server::note(&format!("{dialogue}: {}: TLS 1.2 and 1.3; an injected byte is refused", server.version()));
}
