//! Whether a root that a server presents as its own certificate is revoked.
//!
//! webpki checks the revocation lists for every certificate of a path that it builds. It builds no path for a root that is marked
//! as a CA ([`verify`](super::verify)), so the root is checked here, equally strictly: a list is required, signed by the root and
//! not past its next update. A list for only some of the certificates (an issuing distribution point) does not count.

use std::time::Duration;

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, UnixTime};
use x509_parser::asn1_rs::{Any, BitString};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Revocation lists, and the accepted signature algorithms.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Lists {
    /// Checks a self-issued root against the lists. Without lists, nothing is checked.
    pub(super) fn check(&self, root: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
        if self.lists.is_empty() {
            return Ok(());
        }
        let Ok((_, parsed)) = X509Certificate::from_der(root) else { return Err(CertificateError::BadEncoding) };
        let of_root: Vec<_> = self.lists.iter().filter_map(|list| self.list_of(&parsed, list)).collect();
        let serial = parsed.raw_serial();
        if of_root.iter().any(|list| list.iter_revoked_certificates().any(|entry| entry.raw_serial() == serial)) {
            return Err(CertificateError::Revoked);
        }
        let ends = of_root.iter().filter_map(|list| u64::try_from(list.next_update()?.timestamp()).ok());
        match ends.max() {
            None => Err(CertificateError::UnknownRevocationStatus),
            Some(end) if now.as_secs() < end => Ok(()),
            Some(end) => Err(CertificateError::ExpiredRevocationListContext {
                time: now,
                next_update: UnixTime::since_unix_epoch(Duration::from_secs(end)),
            }),
        }
    }

    /// The list, if this root has issued it for all of its certificates.
    fn list_of<'a>(
        &self,
        root: &X509Certificate<'_>,
        list: &'a CertificateRevocationListDer<'_>,
    ) -> Option<CertificateRevocationList<'a>> {
        let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
        let may_sign = root.key_usage().ok()?.is_none_or(|usage| usage.value.crl_sign());
        let is_of_all = parsed.extensions().iter().all(|it| it.oid != OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let is_of_root = parsed.issuer().as_raw() == root.subject().as_raw();
        (may_sign && is_of_all && is_of_root && self.is_signed(root, list)?).then_some(parsed)
    }

    /// Whether the key of this root has signed the list.
    fn is_signed(&self, root: &X509Certificate<'_>, list: &[u8]) -> Option<bool> {
        let (_, list) = Any::from_der(list).ok()?;
        let (behind, _) = Any::from_der(list.data).ok()?;
        let message = &list.data[..list.data.len() - behind.len()];
        let (behind, algorithm) = Any::from_der(behind).ok()?;
        let (_, signature) = BitString::from_der(behind).ok()?;
        let key = root.public_key();
        let (_, info) = Any::from_der(key.raw).ok()?;
        let (_, of_key) = Any::from_der(info.data).ok()?;
        let fits = |candidate: &&&dyn SignatureVerificationAlgorithm| {
            candidate.signature_alg_id().as_ref() == algorithm.data
                && candidate.public_key_alg_id().as_ref() == of_key.data
        };
        let public = key.subject_public_key.data.as_ref();
        let verifies = |candidate: &&dyn SignatureVerificationAlgorithm| {
            candidate.verify_signature(public, message, signature.data.as_ref()).is_ok()
        };
        Some(self.algorithms.all.iter().filter(fits).any(verifies))
    }
}
