//! One certificate for all peers: ECDSA P-256, signed by a CA of the same kind, for `localhost`.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::error::Result;

/// The certificates and the key for both ends of every peer, as PEM.
#[derive(Debug, Clone)]
pub struct Pki {
    /// The CA that clients trust.
    pub ca: String,
    /// The server's certificate.
    pub cert: String,
    /// The server's key, PKCS #8.
    pub key: String,
}

impl Pki {
    /// Makes a new one.
    pub fn new() -> Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "bench CA");
        let ca_cert = ca.self_signed(&ca_key)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.use_authority_key_identifier_extension = true;
        let cert = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
        Ok(Self { ca: ca_cert.pem(), cert: cert.pem(), key: key.serialize_pem() })
    }

    /// The form for passing it to another process.
    pub fn to_json(&self) -> String {
        serde_json::json!([self.ca, self.cert, self.key]).to_string()
    }

    /// Parses what `to_json` has written.
    pub fn from_json(text: &str) -> Result<Self> {
        let [ca, cert, key] = serde_json::from_str(text)?;
        Ok(Self { ca, cert, key })
    }
}
