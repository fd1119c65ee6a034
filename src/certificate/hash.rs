//! The hash function of a certificate's signature, for the channel binding `tls-server-end-point` (RFC 5929, section
//! 4.1).

use der::{Tag, Tagged};

use super::{Certificate, context, elements, first, id_text, inside};

/// A hash function of a certificate's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// The hash function that follows from the signature algorithm of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HashOf {
    /// This hash function. MD5 and SHA-1 are replaced by SHA-256, as RFC 5929 requires.
    One(Digest),
    /// A hash function that no supported crypto provider has.
    Unknown(&'static str),
    /// The algorithm uses no hash function or several, or it is unknown, so RFC 5929 defines no binding. Contains the
    /// name of the algorithm.
    Undefined(String),
}

use Digest::{Sha256, Sha384, Sha512};
use HashOf::{One, Undefined, Unknown};

impl Certificate<'_> {
    /// The hash function of the certificate's signature; `None` if the algorithm cannot be parsed.
    pub(crate) fn hash(&self) -> Option<HashOf> {
        let (id, parameters) = first(self.algorithm)?;
        let id = id_text(inside(id, Tag::ObjectIdentifier)?);
        Some(match id.as_str() {
            RSA_PSS => of_pss(parameters)?,
            id => of_signature(id),
        })
    }
}

const RSA_PSS: &str = "1.2.840.113549.1.1.10";

fn of_signature(id: &str) -> HashOf {
    match id {
        // RSA (RFC 8017, appendix A.2.4). The first two are MD5 and SHA-1, for which RFC 5929 requires SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => One(Sha256),
        "1.2.840.113549.1.1.12" => One(Sha384),
        "1.2.840.113549.1.1.13" => One(Sha512),
        "1.2.840.113549.1.1.14" => Unknown("SHA-224"),
        // ECDSA (RFC 5758, section 3.2). The first one is SHA-1, for which RFC 5929 requires SHA-256.
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => One(Sha256),
        "1.2.840.10045.4.3.3" => One(Sha384),
        "1.2.840.10045.4.3.4" => One(Sha512),
        "1.2.840.10045.4.3.1" => Unknown("SHA-224"),
        // These sign the message itself, so they have no hash function in the sense of RFC 5929.
        "1.3.101.112" => Undefined("Ed25519".into()),
        "1.3.101.113" => Undefined("Ed448".into()),
        other => Undefined(other.into()),
    }
}

/// RFC 4055, section 3.1: RSASSA-PSS names the hash function of the message and that of its mask. Both default to
/// SHA-1.
fn of_pss(parameters: &[u8]) -> Option<HashOf> {
    let fields = match first(parameters) {
        Some((fields, _)) => elements(inside(fields, Tag::Sequence)?)?,
        None => Vec::new(),
    };
    let field = |number| fields.iter().find(|field| field.tag() == context(number)).map(|field| field.value());
    let message = field(0).map_or(Some(SHA1.to_owned()), of_algorithm)?;
    let mask = field(1).map_or(Some(SHA1.to_owned()), |mask| {
        let (mask, _) = first(inside(first(mask)?.0, Tag::Sequence)?).and_then(|(_, rest)| first(rest))?;
        inside(mask, Tag::Sequence).and_then(|of| Some(id_text(inside(first(of)?.0, Tag::ObjectIdentifier)?)))
    })?;
    Some(if message == mask { of_hash(&message) } else { Undefined("RSASSA-PSS with two hash functions".into()) })
}

const SHA1: &str = "1.3.14.3.2.26";

/// The id of an AlgorithmIdentifier.
fn of_algorithm(bytes: &[u8]) -> Option<String> {
    let id = first(inside(first(bytes)?.0, Tag::Sequence)?)?.0;
    Some(id_text(inside(id, Tag::ObjectIdentifier)?))
}

fn of_hash(id: &str) -> HashOf {
    match id {
        "1.2.840.113549.2.5" | SHA1 | "2.16.840.1.101.3.4.2.1" => One(Sha256),
        "2.16.840.1.101.3.4.2.2" => One(Sha384),
        "2.16.840.1.101.3.4.2.3" => One(Sha512),
        "2.16.840.1.101.3.4.2.4" => Unknown("SHA-224"),
        other => Undefined(format!("RSASSA-PSS with the hash function {other}")),
    }
}
