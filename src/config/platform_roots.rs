//! The roots that the operating system trusts.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::{ConfigWarning, WarningKind};

/// The roots of the platform at one moment, in an order that does not depend on the order of the files.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct PlatformRoots {
    roots: Vec<CertificateDer<'static>>,
    /// The errors of the files that could not be read.
    problems: Vec<String>,
}

impl PlatformRoots {
    #[cfg(feature = "platform-roots")]
    pub(super) fn read() -> Self {
        use super::pem::Source;
        use crate::error::chain;
        let found = rustls_native_certs::load_native_certs();
        let mut all = Self { roots: found.certs, problems: found.errors.iter().map(ToString::to_string).collect() };
        // rustls's parser skips a section that begins in the middle of a line, so our own parser reads the file too
        // (rule: secure-12).
        if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
            match Source::File(file.into()).certificates() {
                Ok(certs) => all.roots.extend(certs.into_iter().map(|cert| cert.item)),
                Err(error) => all.problems.push(chain(&error).to_string()),
            }
        }
        all.roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        all.roots.dedup();
        all
    }

    #[cfg(not(feature = "platform-roots"))]
    pub(super) fn read() -> Self {
        Self::default()
    }

    pub(super) fn add_to(&self, roots: &mut RootCertStore, warnings: &mut Vec<ConfigWarning>) {
        let (_, unusable) = roots.add_parsable_certificates(self.roots.iter().cloned());
        let unusable = (unusable > 0).then(|| format!("{unusable} root certificates of the platform cannot be parsed"));
        let details = self.problems.iter().cloned().chain(unusable);
        let kind = WarningKind::PlatformRoots;
        warnings.extend(details.map(|detail| ConfigWarning { file: None, kind, detail }));
    }
}
