//! Session tickets: only bytes that were sealed as a ticket can be opened.

use std::sync::{Arc, LazyLock};

use bowline::config::{TicketKey, TicketKeySet, TicketKeys};
use bowline::rustls::server::ProducesTickets;
use bowline::testing::shared_pki;

static TICKETER: LazyLock<Arc<dyn ProducesTickets>> = LazyLock::new(|| {
    let key = TicketKey::new(*b"name of this key", *b"a secret of 32 bytes, for a test").expect("it is long enough");
    let keys = TicketKeys::new(TicketKeySet::new([key]).expect("there is one"));
    let tls = shared_pki().server_tls_builder().ticket_keys(&keys).build().expect("the test PKI is valid");
    Arc::clone(&tls.config().ticketer)
});

pub fn run(input: &[u8]) {
    let (change, plain) = input.split_at(input.len().min(3));
    assert_eq!(TICKETER.decrypt(input), None, "a forged ticket");
    let Some(mut sealed) = TICKETER.encrypt(plain) else { return };
    assert_eq!(TICKETER.decrypt(&sealed).as_deref(), Some(plain));
    let [low, high, bits] = change else { return };
    let place = (usize::from(*low) | usize::from(*high) << 8) % sealed.len();
    if *bits == 0 {
        sealed.truncate(place);
    } else {
        sealed[place] ^= bits;
    }
    assert_eq!(TICKETER.decrypt(&sealed), None, "a changed ticket");
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![b"\0\0\x01ticket".to_vec(), [&b"name of this key"[..], &[0; 60]].concat(), vec![9, 0, 0, 1, 2, 3]]
}
