//! The format of a ticket.
//!
//! ```text
//! version (1) | name of the key (16) | salt (32) | encrypted: time of sealing (8), session | tag (16)
//! ```
//!
//! The salt is random, and each ticket is encrypted with a key that is derived from the salt and the shared secret. The
//! time is in seconds since 1970, big-endian. Everything before the encrypted part is authenticated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::SecureRandom;
use zeroize::Zeroizing;

use super::crypto::{OneUse, Purpose, SALT, TAG};
use super::key::NAME;
use super::set::TicketKeySet;
use crate::core::engine::library::Library;

const VERSION: u8 = 1;
const HEADER: usize = 1 + NAME + SALT;
const TIME: usize = 8;
/// The longest ticket. Sessions with client certificates are the longest ones: they contain the chain. A longer ticket
/// would leave little space in a ClientHello, which has at most 64 KiB.
const MAX: usize = 32 << 10;
/// The clocks of servers may differ by this much.
const SKEW: u64 = 300;

/// The cryptography of a configuration.
#[derive(Clone, Copy)]
pub(super) struct Crypto {
    pub(super) library: Library,
    pub(super) random: &'static dyn SecureRandom,
}

/// `None` if no key may seal now, or the session is too long.
pub(super) fn seal(set: &TicketKeySet, now: SystemTime, crypto: Crypto, session: &[u8]) -> Option<Vec<u8>> {
    let length = HEADER + TIME + session.len() + TAG;
    let key = set.sealing(now).filter(|_| length <= MAX)?;
    let mut salt = [0; SALT];
    crypto.random.fill(&mut salt).ok()?;
    let mut ticket = Vec::with_capacity(length);
    ticket.push(VERSION);
    ticket.extend_from_slice(&key.name());
    ticket.extend_from_slice(&salt);
    ticket.extend_from_slice(&seconds(now).to_be_bytes());
    ticket.extend_from_slice(session);
    let one = OneUse { library: crypto.library, secret: key.secret(), salt: &salt, purpose: Purpose::Ticket };
    let (header, body) = ticket.split_at_mut(HEADER);
    let tag = one.seal(header, body)?;
    ticket.extend_from_slice(&tag);
    Some(ticket)
}

/// Opens a ticket and returns its session. `None` if no key of the set has sealed these bytes, or if the ticket is older
/// than `lifetime` (rule: ticket-3).
pub(super) fn open(
    set: &TicketKeySet,
    now: SystemTime,
    lifetime: Duration,
    library: Library,
    ticket: &[u8],
) -> Option<Vec<u8>> {
    if ticket.len() > MAX {
        return None;
    }
    let (header, sealed) = ticket.split_at_checked(HEADER)?;
    let ([VERSION], rest) = header.split_first_chunk()? else { return None };
    let (name, salt) = rest.split_first_chunk()?;
    let key = set.by_name(name).filter(|key| key.may_open(now))?;
    let one = OneUse { library, secret: key.secret(), salt: salt.try_into().ok()?, purpose: Purpose::Ticket };
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length = one.open(header, &mut plain)?;
    let (sealed_at, session) = plain[..length].split_first_chunk::<TIME>()?;
    is_fresh(u64::from_be_bytes(*sealed_at), seconds(now), lifetime).then(|| session.to_vec())
}

/// rule: ticket-4
fn is_fresh(sealed_at: u64, now: u64, lifetime: Duration) -> bool {
    sealed_at <= now.saturating_add(SKEW) && now.saturating_sub(sealed_at) < lifetime.as_secs()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
