//! Names the kind of a private key that a crypto provider does not accept, for the error message.

use der::{Tag, TagNumber};
use rustls::pki_types::PrivateKeyDer;

use crate::certificate::{first, id_text, inside};

/// The kind in words (`an Ed448 key`); `None` if the key cannot be parsed.
pub(super) fn told(key: &PrivateKeyDer<'_>) -> Option<String> {
    match key {
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Sec1(key) => sec1(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        _ => None,
    }
}

/// The parameters of an EC key, if the key contains them.
const PARAMETERS: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };

/// RFC 5958: version, algorithm, key.
fn pkcs8(der: &[u8]) -> Option<String> {
    let (body, _) = element(der, Tag::Sequence)?;
    let (_, rest) = element(body, Tag::Integer)?;
    let (algorithm, rest) = element(rest, Tag::Sequence)?;
    let (id, parameters) = element(algorithm, Tag::ObjectIdentifier)?;
    match ALGORITHMS.iter().find(|(known, _)| *known == id) {
        Some((_, "RSA")) => rsa(element(rest, Tag::OctetString)?.0),
        Some((_, "EC")) => Some(ec(parameters)),
        Some((_, name)) => Some(format!("{} key", with_article(name))),
        None => Some(format!("a key of the algorithm {}", id_text(id))),
    }
}

/// RFC 5915: version, key, curve.
fn sec1(der: &[u8]) -> Option<String> {
    let (body, _) = element(der, Tag::Sequence)?;
    let (_, rest) = element(body, Tag::Integer)?;
    let (_, rest) = element(rest, Tag::OctetString)?;
    Some(element(rest, PARAMETERS).map_or_else(|| "an EC key without its curve".into(), |(curve, _)| ec(curve)))
}

/// RFC 8017, appendix A.1.2: version, modulus.
fn rsa(der: &[u8]) -> Option<String> {
    let (body, _) = element(der, Tag::Sequence)?;
    let (_, rest) = element(body, Tag::Integer)?;
    let (modulus, _) = element(rest, Tag::Integer)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let unused = modulus.first()?.leading_zeros();
    Some(format!("an RSA key of {} bits", modulus.len() * 8 - usize::try_from(unused).ok()?))
}

fn ec(parameters: &[u8]) -> String {
    let Some((id, _)) = element(parameters, Tag::ObjectIdentifier) else {
        return "an EC key with its curve written out, not named".into();
    };
    match CURVES.iter().find(|(known, _)| *known == id) {
        Some((_, name)) => format!("an EC key on {name}"),
        None => format!("an EC key on the curve {}", id_text(id)),
    }
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['E', 'M', 'R', 'X', 'S']) { "an" } else { "a" };
    format!("{article} {name}")
}

const ALGORITHMS: [(&[u8], &str); 13] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], "RSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA-PSS"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 3, 1], "Diffie-Hellman"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], "EC"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2b, 0x65, 0x6e], "X25519"),
    (&[0x2b, 0x65, 0x6f], "X448"),
    (&[0x2b, 0x65, 0x70], "Ed25519"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d], "SM2"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17], "ML-DSA-44"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18], "ML-DSA-65"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19], "ML-DSA-87"),
];

const CURVES: [(&[u8], &str); 8] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
    (&[0x2b, 0x81, 4, 0, 33], "P-224"),
    (&[0x2b, 0x81, 4, 0, 34], "P-384"),
    (&[0x2b, 0x81, 4, 0, 35], "P-521"),
    (&[0x2b, 0x81, 4, 0, 10], "secp256k1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7], "brainpoolP256r1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 11], "brainpoolP384r1"),
    (&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 13], "brainpoolP512r1"),
];

/// The content of an element of this type, and the bytes after it.
fn element(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (element, rest) = first(der)?;
    Some((inside(element, tag)?, rest))
}
