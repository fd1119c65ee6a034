//! Two certificate verifiers of our own, for cases that rustls's verifier does not cover: a CA certificate that a
//! server presents as its own, and no verification at all.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::revocation::Lists;
use super::x509::is_ca_fit_for_server;

/// The methods of a verifier that check signatures, with the algorithms of the crypto provider.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

/// rustls's verifier, which additionally accepts one case: the server presents a certificate that is marked as a CA and
/// is, byte for byte, one of the given roots.
///
/// webpki accepts a self-signed certificate that is its own root, unless the certificate is marked as a CA
/// (`CaUsedAsEndEntity`). OpenSSL accepts both, and `openssl req -x509` marks its certificates as CA, so many users try
/// this first. The exception adds no trust: the holder of the root's key could have issued a certificate without the
/// mark. Names, dates and purpose are checked as usual (rule: secure-8). If there are revocation lists, the certificate
/// is checked against them as strictly as any other one (rule: secure-12).
#[derive(Debug)]
pub(super) struct RootsAsServers {
    /// The roots that the caller gave. The platform's roots are not included, because they are never server
    /// certificates.
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) lists: Lists,
}

impl RootsAsServers {
    /// rustls has no variant for this webpki error: it arrives as `Other`.
    fn is_only_marked(&self, error: &Error, cert: &CertificateDer<'_>, now: UnixTime) -> bool {
        matches!(error, Error::InvalidCertificate(CertificateError::Other(_)))
            && self.roots.iter().any(|root| root.as_ref() == cert.as_ref())
            && is_ca_fit_for_server(cert, now.as_secs())
    }
}

impl ServerCertVerifier for RootsAsServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if self.is_only_marked(&error, end_entity, now) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                self.lists.check(end_entity, now)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    verify_signatures!();
}

/// Accepts any certificate. The server must still prove that it holds the certificate's key.
#[derive(Debug)]
pub(super) struct AcceptAnyServer {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}
