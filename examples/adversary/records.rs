//! The records of an attack.

use std::time::Duration;

use bowline::rustls::ContentType;
use bowline::testing::peer::RawTls;

/// An attack of a hostile peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    Empty,
    Tiny,
    KeyUpdates,
    Warnings,
    Tickets,
    /// A certificate chain of this many bytes.
    Chain(usize),
}

/// The number of records that are sent together.
const BATCH: usize = 200;

/// The level of a warning, and `user_canceled`, the only warning that TLS 1.3 has.
const USER_CANCELED: [u8; 2] = [1, 90];

impl Attack {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "empty" => Self::Empty,
            "tiny" => Self::Tiny,
            "key-updates" => Self::KeyUpdates,
            "warnings" => Self::Warnings,
            "tickets" => Self::Tickets,
            "chain" => Self::Chain(165_000),
            "chain-60" => Self::Chain(60_000),
            _ => return None,
        })
    }

    /// The bytes of the certificate chain, if the attack is one.
    pub(crate) fn chain(self) -> Option<usize> {
        match self {
            Self::Chain(bytes) => Some(bytes),
            Self::Empty | Self::Tiny | Self::KeyUpdates | Self::Warnings | Self::Tickets => None,
        }
    }

    /// Sends this many records, or as many as the victim accepts, and reads nothing. Returns how many.
    pub(crate) async fn flood(self, peer: &mut RawTls, records: usize) -> usize {
        let mut sent = 0;
        while sent < records && self.chain().is_none() {
            let batch = BATCH.min(records - sent);
            for number in sent..sent + batch {
                self.queue(peer, number);
            }
            if peer.send().await.is_err() {
                break;
            }
            sent += batch;
            // Other attackers send too.
            tokio::time::sleep(Duration::ZERO).await;
        }
        sent
    }

    fn queue(self, peer: &mut RawTls, number: usize) {
        match self {
            Self::Empty => peer.record(ContentType::ApplicationData, &[]),
            Self::Tiny => peer.record(ContentType::ApplicationData, b"x"),
            Self::KeyUpdates => peer.key_update(true),
            Self::Warnings => peer.record(ContentType::Alert, &USER_CANCELED),
            Self::Tickets => peer.record(ContentType::Handshake, &ticket(number)),
            Self::Chain(_) => peer,
        };
    }
}

/// A session ticket of about a kilobyte, as TLS 1.3 has it.
fn ticket(number: usize) -> Vec<u8> {
    const TICKET: usize = 1_000;
    let mut body = Vec::new();
    // A lifetime of two hours, the number that hides the age, and a nonce that no other ticket has.
    body.extend(7_200_u32.to_be_bytes());
    body.extend([0; 4]);
    body.push(8);
    body.extend((number as u64).to_be_bytes());
    body.extend((TICKET as u16).to_be_bytes());
    body.extend([b't'; TICKET]);
    // No extensions.
    body.extend([0, 0]);
    let length = (body.len() as u32).to_be_bytes();
    [&[4], &length[1..], &body].concat()
}
