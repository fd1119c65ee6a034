//! Tickets at chosen times.

use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;

use super::ticket::{Crypto, open, seal};
use super::wrap::WrapKey;
use super::{TicketKey, TicketKeySet, TicketKeys};
use crate::core::engine::library::Library;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn providers() -> Vec<CryptoProvider> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        rustls::crypto::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        rustls::crypto::ring::default_provider(),
    ]
}

fn crypto() -> Vec<Crypto> {
    let of = |provider: CryptoProvider| Crypto {
        library: Library::of_provider(&provider).unwrap(),
        random: provider.secure_random,
    };
    providers().into_iter().map(of).collect()
}

/// A key with a name and a secret that depend on a number.
fn key(number: u8) -> TicketKey {
    let secret: [u8; 32] = std::array::from_fn(|n| (n as u8) ^ number);
    TicketKey::new([number; 16], secret).unwrap()
}

fn set(keys: impl IntoIterator<Item = TicketKey>) -> TicketKeySet {
    TicketKeySet::new(keys).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

/// The number of the key that seals.
fn seals(set: &TicketKeySet, at: SystemTime) -> Option<u8> {
    let ticket = seal(set, at, crypto()[0], b"session")?;
    assert_eq!(ticket[0], 1);
    Some(ticket[1])
}

fn opens(set: &TicketKeySet, at: SystemTime, ticket: &[u8]) -> bool {
    let opened = open(set, at, DAY, crypto()[0].library, ticket);
    assert!(opened.as_deref().is_none_or(|session| session == b"session"));
    opened.is_some()
}

/// rule: ticket-2
#[test]
fn the_first_key_whose_time_has_come_seals_and_all_open_until_their_end() {
    let next = key(3).not_before(now() + HOUR);
    let current = key(2).not_before(now() - HOUR).not_after(now() + 2 * HOUR);
    let old = key(1).not_after(now() + HOUR);
    let all = set([next.clone(), current.clone(), old.clone()]);
    assert_eq!(seals(&all, now()), Some(2));
    assert_eq!(seals(&all, now() + HOUR), Some(3));
    assert_eq!(seals(&set([current.clone(), old.clone()]), now() - 2 * HOUR), Some(1));
    assert_eq!(seals(&set([current.clone(), old.clone()]), now() + 2 * HOUR), None);
    assert_eq!(seals(&TicketKeySet::default(), now()), None);

    // Another server's clock is ahead: its next key is this server's next key too.
    let early = seal(&set([next]), now() + HOUR, crypto()[0], b"session").unwrap();
    assert!(opens(&all, now() + HOUR - Duration::from_secs(200), &early));
    let of_old = seal(&set([old]), now(), crypto()[0], b"session").unwrap();
    assert!(opens(&all, now() + HOUR - Duration::from_secs(1), &of_old));
    assert!(!opens(&all, now() + HOUR, &of_old));
}

/// rule: ticket-3
#[test]
fn what_is_no_ticket_of_these_keys_is_not_opened() {
    for crypto in crypto() {
        let ours = set([key(1), key(2)]);
        let ticket = seal(&ours, now(), crypto, b"session").unwrap();
        let opens = |set: &TicketKeySet, ticket: &[u8]| open(set, now(), DAY, crypto.library, ticket).is_some();
        assert!(opens(&ours, &ticket));
        assert!(!opens(&set([key(2)]), &ticket));
        let same_name = TicketKey::new(key(1).name(), [[7; 31].as_slice(), &[8]].concat()).unwrap();
        assert!(!opens(&set([same_name]), &ticket));
        for length in 0..ticket.len() {
            assert!(!opens(&ours, &ticket[..length]), "{length}");
        }
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(!opens(&ours, &changed), "{at}");
        }
        // Two tickets of one session have only the format's version and the key's name in common.
        let again = seal(&ours, now(), crypto, b"session").unwrap();
        assert!(again[17..49] != ticket[17..49] && again[49..] != ticket[49..]);
    }
}

/// rule: ticket-3
#[test]
fn a_ticket_has_at_most_32_kib() {
    let ours = set([key(1)]);
    let longest = (32 << 10) - 73;
    let ticket = seal(&ours, now(), crypto()[0], &vec![5; longest]).unwrap();
    assert_eq!(ticket.len(), 32 << 10);
    assert_eq!(open(&ours, now(), DAY, crypto()[0].library, &ticket).unwrap().len(), longest);
    assert_eq!(seal(&ours, now(), crypto()[0], &vec![5; longest + 1]), None);
    assert_eq!(open(&ours, now(), DAY, crypto()[0].library, &vec![1; 40 << 10]), None);
}

/// rule: ticket-4
#[test]
fn a_ticket_is_opened_until_its_lifetime_is_over() {
    let ours = set([key(1)]);
    let ticket = seal(&ours, now(), crypto()[0], b"session").unwrap();
    let opens = |at| opens(&ours, at, &ticket);
    assert!(opens(now()) && opens(now() + DAY - Duration::from_secs(1)));
    assert!(!opens(now() + DAY) && !opens(now() + 30 * DAY));
    // The clock of the server that sealed it is ahead.
    assert!(opens(now() - Duration::from_secs(300)));
    assert!(!opens(now() - Duration::from_secs(301)));
}

/// rule: ticket-4
#[test]
fn a_lifetime_is_at_most_seven_days_and_no_longer_than_the_key() {
    let with = |lifetime| TicketKeys::with_lifetime(set([key(1)]), lifetime);
    assert_eq!(TicketKeys::new(set([key(1)])).lifetime(), DAY);
    assert_eq!(with(7 * DAY).unwrap().lifetime(), 7 * DAY);
    let said = with(7 * DAY + Duration::from_secs(1)).unwrap_err().to_string();
    assert!(said.ends_with("tickets are valid for one second to seven days, not for 604801s"), "{said}");
    assert!(with(Duration::ZERO).is_err());

    let hint = |keys: TicketKeys| keys.ticketer(&providers()[0]).unwrap().lifetime();
    assert_eq!(hint(TicketKeys::new(set([key(1)]))), 24 * 3600);
    let ends_soon = key(1).not_after(SystemTime::now() + HOUR);
    assert!((3500..=3600).contains(&hint(TicketKeys::new(set([ends_soon])))));
    assert_eq!(hint(TicketKeys::new(TicketKeySet::default())), 24 * 3600);
}

/// rule: ticket-6
#[test]
fn no_debug_text_and_no_error_shows_a_secret() {
    let secret = *b"a secret that nobody may see 123";
    let key = TicketKey::new(*b"0123456789abcdef", secret).unwrap();
    let keys = TicketKeys::new(set([key.clone()]));
    let builder = crate::ServerTls::builder().ticket_keys(&keys);
    let conflict = TicketKeySet::new([key.clone(), TicketKey::new(key.name(), [&secret[..], b"4"].concat()).unwrap()]);
    let conflict = conflict.unwrap_err();
    let shown = format!("{key:?} {keys:?} {:?} {builder:?} {conflict:?} {conflict}", keys.set());
    let bytes = format!("{:?}", &secret[..4]);
    assert!(!shown.contains("nobody") && !shown.contains(&bytes[1..bytes.len() - 1]), "{shown}");
    assert!(shown.contains("30313233343536373839616263646566"), "{shown}");
}

/// rule: ticket-7
#[test]
fn tickets_of_one_library_are_opened_by_the_other_one() {
    let ours = set([key(1)]);
    for (ours_of, theirs) in crypto().into_iter().flat_map(|one| crypto().into_iter().map(move |other| (one, other))) {
        let ticket = seal(&ours, now(), ours_of, b"session").unwrap();
        assert_eq!(open(&ours, now(), DAY, theirs.library, &ticket).as_deref(), Some(&b"session"[..]));
    }
}

/// rule: ticket-7
#[test]
fn a_provider_with_other_suites_is_refused_by_name() {
    let keys = TicketKeys::new(set([key(1)]));
    for provider in providers() {
        let fewer = CryptoProvider { cipher_suites: provider.cipher_suites[..1].to_vec(), ..provider.clone() };
        assert!(keys.ticketer(&fewer).is_ok());
        let rustls::SupportedCipherSuite::Tls13(suite) = provider.cipher_suites[0] else { panic!("{provider:?}") };
        let own = Box::leak(Box::new(rustls::Tls13CipherSuite {
            common: rustls::crypto::CipherSuiteCommon { ..suite.common },
            ..*suite
        }));
        let mut other = provider.clone();
        other.cipher_suites.push(rustls::SupportedCipherSuite::Tls13(own));
        let said = keys.ticketer(&other).unwrap_err().to_string();
        let name = format!("the crypto provider with the keys of {:?} has others", other.key_provider);
        assert!(said.contains(&name), "{said}");
    }
}

#[test]
fn bad_secrets_and_sets_are_refused() {
    let said = |result: Result<TicketKey, crate::Error>| result.unwrap_err().to_string();
    assert!(said(TicketKey::new([0; 16], [7; 32])).contains("all bytes of its secret are the same"));
    assert!(said(TicketKey::new([0; 16], [7; 31])).contains("a secret has 32 to 256 bytes, not 31"));
    assert!(said(TicketKey::new([0; 16], [7; 257])).contains("not 257"));
    assert_eq!(set([key(1), key(1)]).keys().len(), 1);
    let keys = |count| TicketKeySet::new((0..count).map(key));
    assert_eq!(keys(64).unwrap().keys().len(), 64);
    assert!(keys(65).unwrap_err().to_string().contains("there are more than 64 keys"));
}

#[test]
fn the_age_is_that_of_the_key_that_seals() {
    let ago = |hours: u32| SystemTime::now() - hours * HOUR;
    let keys = TicketKeys::new(set([key(1).not_before(ago(2)), key(2).made(ago(9))]));
    assert_eq!(keys.age().unwrap().as_secs() / 3600, 2);
    assert!(keys.replace(set([key(2).made(ago(9))])));
    assert_eq!(keys.age().unwrap().as_secs() / 3600, 9);
    assert!(!keys.replace(set([key(2).made(ago(1))])));
    assert!(keys.replace(set([key(3)])) && keys.age().is_none());
}

#[test]
fn a_file_of_a_wrap_key_has_32_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrap");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        WrapKey::from_file(&path)
    };
    assert_eq!(format!("{:?}", read(&[7; 32]).unwrap()), "WrapKey");
    for len in [0, 31, 33] {
        let error = read(&vec![7; len]).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        assert!(error.ends_with(&format!("has 32 random bytes (`openssl rand 32`), not {len}")), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = WrapKey::from_file(&path).unwrap_err().to_string();
    assert!(error.starts_with(path.to_str().unwrap()), "{error}");
}
