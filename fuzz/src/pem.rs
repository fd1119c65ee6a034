//! Certificates, keys and lists from a file that an operator has written.

use std::sync::LazyLock;

use bowline::testing::pki::{Identity, Pki};
use bowline::{ClientTls, ServerTls};

use super::bytes::Bytes;
use super::text;

static PKI: LazyLock<(Pki, Identity)> = LazyLock::new(|| {
    let pki = Pki::new();
    let identity = pki.server(&["localhost"]);
    (pki, identity)
});

pub fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let (pki, identity) = &*PKI;
    let result = match input.below(5) {
        0 => ClientTls::builder().roots_pem(input.rest()).build().map(drop),
        1 => ServerTls::builder().identity_pem(input.rest(), identity.key_pem()).build().map(drop),
        2 => ServerTls::builder().identity_pem(identity.chain_pem(), input.rest()).build().map(drop),
        3 => pki.server_tls_builder().client_ca_pem(input.rest()).build().map(drop),
        _ => pki.server_tls_builder().client_ca_pem(pki.ca_pem()).client_crl_pem(input.rest()).build().map(drop),
    };
    if let Err(error) = result {
        text::check(&error);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let (pki, identity) = &*PKI;
    let texts = [pki.ca_pem(), identity.chain_pem().into(), identity.key_pem().into(), pki.ca_pem(), pki.crl_pem()];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (which, text) in texts.iter().enumerate() {
        seeds.push([&[which as u8][..], text.as_bytes()].concat());
        seeds.push([&[which as u8][..], text.replace('\n', "\r\n").as_bytes()].concat());
        seeds.push([&[which as u8][..], b"subject=/CN=x\n\n", text.as_bytes(), text.as_bytes()].concat());
    }
    seeds
}
