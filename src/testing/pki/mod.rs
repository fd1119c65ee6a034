//! A public key infrastructure for tests and for development: a CA, an intermediate, and certificates of every kind,
//! good and bad, made when they are needed.
//!
//! ```
//! use bowline::testing::pki::{KeyKind, Pki, Profile};
//!
//! let pki = Pki::new();
//! // Two configurations that work together ...
//! let (server, client) = (pki.server_tls(), pki.client_tls());
//! // ... a server for mutual TLS, and a client that has a certificate for it ...
//! let server = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).build()?;
//! let alice = pki.client("alice");
//! let client = pki.client_tls_builder().identity(alice.chain_der(), alice.key_der()).build()?;
//! // ... and a certificate that every client must refuse.
//! let expired = pki.issue(Profile::server(&["localhost"]).key(KeyKind::Rsa2048).expired());
//! # assert!(client.own_certificates().is_some());
//! # assert_eq!(expired.chain_der().len(), 2);
//! # Ok::<(), bowline::Error>(())
//! ```
//!
//! Only a peer that gets [`Pki::ca_pem`] trusts these certificates. The keys of the CAs stay in memory and are never
//! written to a file, not even by [`Pki::load_or_create`].

mod files;
mod identity;
mod profile;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::certificate::Certificate;
use crate::config::{ClientTls, ClientTlsBuilder, ServerTls, ServerTlsBuilder};

pub use files::PkiFiles;
pub use identity::Identity;
pub use profile::{KeyKind, Profile};

use profile::Signer;

/// The organisation in the name of every certificate that is made here. [`Pki::load_or_create`] recognises its own
/// files by it.
const ORGANISATION: &str = "bowline test PKI";
const CA_LIFE: Duration = Duration::days(10 * 365);

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A CA, an intermediate CA that it has issued, and another, unrelated CA. See the [module](self).
///
/// Certificates are issued by the intermediate unless their [`Profile`] says otherwise.
pub struct Pki {
    ca: Authority,
    intermediate: Authority,
    other: Authority,
    revoked: Mutex<Vec<SerialNumber>>,
}

impl fmt::Debug for Pki {
    /// Shows nothing, because it holds the keys of the CAs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// Makes the CAs, with keys on P-256. Takes about a millisecond.
    pub fn new() -> Self {
        let ca = root("test CA");
        let intermediate = Authority::signed_by(authority("test intermediate", Some(0)), new_key(), &ca).expect(MADE);
        Self { ca, intermediate, other: root("other test CA"), revoked: Mutex::default() }
    }

    /// A valid server for these DNS names and IP addresses. Without names: `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Panics
    /// Panics if a name is not ASCII.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(Profile::server(names))
    }

    /// A valid client with this common name.
    pub fn client(&self, name: &str) -> Identity {
        self.issue(Profile::client(name))
    }

    /// A server for `localhost` whose certificate expired yesterday.
    pub fn expired(&self) -> Identity {
        self.issue(Profile::server(&[]).expired())
    }

    /// A server for `localhost` whose certificate is valid from tomorrow.
    pub fn not_yet_valid(&self) -> Identity {
        self.issue(Profile::server(&[]).not_yet_valid())
    }

    /// A server for `wrong-name.invalid`, a name to which no client connects.
    pub fn wrong_name(&self) -> Identity {
        self.server(&["wrong-name.invalid"])
    }

    /// A server for `localhost` whose certificate is revoked by [`crl_pem`](Self::crl_pem).
    pub fn revoked(&self) -> Identity {
        self.issue(Profile::server(&[]).revoked())
    }

    /// A server for `localhost` whose certificate the other CA has issued.
    pub fn from_other_ca(&self) -> Identity {
        self.issue(Profile::server(&[]).other_ca())
    }

    /// A server for `localhost` with a self-signed certificate.
    pub fn self_signed(&self) -> Identity {
        self.issue(Profile::server(&[]).self_signed())
    }

    /// Issues a certificate according to the profile.
    ///
    /// # Panics
    /// Panics if a name is not ASCII.
    pub fn issue(&self, profile: Profile) -> Identity {
        let key = profile.key.generate();
        let params = profile.params();
        let leaf = match profile.signer {
            Signer::Intermediate => params.signed_by(&key, &self.intermediate),
            Signer::OtherCa => params.signed_by(&key, &self.other),
            Signer::Itself => params.self_signed(&key),
        };
        let mut chain = vec![leaf.expect("rcgen signs what it has made the parameters and the key of")];
        if profile.signer == Signer::Intermediate && !profile.without_intermediate {
            chain.push(self.intermediate.as_ref().clone());
        }
        let identity = Identity::issued(profile.stem(), &chain, &key);
        if profile.revoked {
            self.revoke(&identity);
        }
        identity
    }

    /// Adds a certificate to the revocation list.
    pub fn revoke(&self, identity: &Identity) {
        let leaf = identity.cert_der();
        let parsed = Certificate::from_der(&leaf).expect("an identity begins with a certificate");
        let serial = SerialNumber::from_slice(parsed.serial);
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).push(serial);
    }

    /// The certificate of the CA, for the other side to trust.
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The certificate of the CA as DER.
    pub fn ca_der(&self) -> CertificateDer<'static> {
        self.ca.der().clone()
    }

    /// The lists of revoked certificates of the CA and of the intermediate, issued now and valid for a month. Together
    /// they cover every certificate of a chain, as the strict check of [`ClientTlsBuilder::crl_pem`] requires.
    pub fn crl_pem(&self) -> String {
        [&self.ca, &self.intermediate].map(|issuer| self.crl_of(issuer)).concat()
    }

    /// A server for `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Panics
    /// Panics without one of the features `aws-lc-rs` and `ring`.
    pub fn server_tls(&self) -> ServerTls {
        self.server_tls_builder().build().expect("a good identity and the provider of a feature make a configuration")
    }

    /// A client that trusts the CA.
    ///
    /// # Panics
    /// Panics without one of the features `aws-lc-rs` and `ring`.
    pub fn client_tls(&self) -> ClientTls {
        self.client_tls_builder().build().expect("a good root and the provider of a feature make a configuration")
    }

    /// The builder that [`server_tls`](Self::server_tls) uses, for more settings.
    pub fn server_tls_builder(&self) -> ServerTlsBuilder {
        let server = self.server(&[]);
        server_tls_builder().identity(server.chain_der(), server.key_der())
    }

    /// The builder that [`client_tls`](Self::client_tls) uses, for more settings.
    pub fn client_tls_builder(&self) -> ClientTlsBuilder {
        client_tls_builder().root(self.ca_der())
    }

    fn crl_of(&self, issuer: &Authority) -> String {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = OffsetDateTime::now_utc();
        let entry = |serial: &SerialNumber| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: now - Duration::DAY,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::DAY,
            next_update: now + Duration::days(30),
            crl_number: SerialNumber::from(revoked.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(issuer).and_then(|list| list.pem()).expect(MADE)
    }
}

const MADE: &str = "rcgen takes these parameters: they are the same each time";

fn root(name: &str) -> Authority {
    Authority::self_signed(authority(name, None), new_key()).expect(MADE)
}

fn new_key() -> KeyPair {
    KeyKind::default().generate()
}

/// The parameters of a CA, with at most this many CAs below it.
fn authority(name: &str, below: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - Duration::DAY;
    params.not_after = OffsetDateTime::now_utc() + CA_LIFE;
    params.distinguished_name = distinguished_name(name);
    params.is_ca = IsCa::Ca(below.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANISATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// With the feature `express`, this environment variable makes every configuration of the test PKI use the express
/// engine, so that the whole test suite runs over it.
#[cfg(feature = "express")]
fn is_express() -> bool {
    std::env::var_os("BOWLINE_EXPRESS").is_some_and(|value| value == "1")
}

fn server_tls_builder() -> ServerTlsBuilder {
    let builder = ServerTls::builder();
    #[cfg(feature = "express")]
    let builder = if is_express() { builder.express() } else { builder };
    builder
}

fn client_tls_builder() -> ClientTlsBuilder {
    let builder = ClientTls::builder();
    #[cfg(feature = "express")]
    let builder = if is_express() { builder.express() } else { builder };
    builder
}
