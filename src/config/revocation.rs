//! Checks whether a root that a server presents as its own certificate is revoked.
//!
//! webpki checks the revocation lists for every certificate of a path that it builds. It builds no path for a root that
//! is marked as a CA ([`verify`](super::verify)), so the root is checked here, equally strictly: a list is required,
//! signed by the root and not past its next update. A list for only some of the certificates (an issuing distribution
//! point) does not count.

use std::time::Duration;

use der::asn1::BitStringRef;
use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, UnixTime};

use crate::certificate::{Certificate, RevocationList, elements};

/// Revocation lists, and the accepted signature algorithms.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether a root without a list is accepted.
    pub(super) tolerate_unknown: bool,
}

impl Lists {
    /// Checks a self-issued root against the lists. Without lists, nothing is checked.
    pub(super) fn check(&self, root: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
        if self.lists.is_empty() {
            return Ok(());
        }
        let Some(parsed) = Certificate::from_der(root) else { return Err(CertificateError::BadEncoding) };
        let of_root: Vec<_> = self.lists.iter().filter_map(|list| self.list_of(&parsed, list)).collect();
        if of_root.iter().any(|list| list.revoked.contains(&parsed.serial)) {
            return Err(CertificateError::Revoked);
        }
        match of_root.iter().filter_map(|list| list.next_update).max() {
            None if self.tolerate_unknown => Ok(()),
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
        root: &Certificate<'_>,
        list: &'a CertificateRevocationListDer<'_>,
    ) -> Option<RevocationList<'a>> {
        let parsed = RevocationList::from_der(list)?;
        let is_of_root = root.may_sign_lists() && !parsed.is_partial() && parsed.issuer == root.subject;
        (is_of_root && self.is_signed(root, &parsed)?).then_some(parsed)
    }

    /// Whether this root's key has signed the list.
    fn is_signed(&self, root: &Certificate<'_>, list: &RevocationList<'_>) -> Option<bool> {
        let [of_key, public] = elements(root.key)?[..] else { return None };
        let public = public.decode_as::<BitStringRef<'_>>().ok()?.as_bytes()?;
        let fits = |candidate: &&&dyn SignatureVerificationAlgorithm| {
            candidate.signature_alg_id().as_ref() == list.algorithm
                && candidate.public_key_alg_id().as_ref() == of_key.value()
        };
        let verifies = |candidate: &&dyn SignatureVerificationAlgorithm| {
            candidate.verify_signature(public, list.signed, list.signature).is_ok()
        };
        Some(self.algorithms.all.iter().filter(fits).any(verifies))
    }
}
