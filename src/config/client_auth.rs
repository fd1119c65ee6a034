//! Whether a server asks for certificates of clients, and which it accepts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};

use super::ConfigWarning;
use super::bound::Tag;
use super::common::{Revocation, RootSource, contradiction, unused_lists};
use super::pem::Source;
use super::volume::Volumes;
use crate::error::Error;

/// Decides which certificates of clients a server accepts, for the whole server
/// ([`ServerTlsBuilder::client_ca_pem_file`](super::ServerTlsBuilder::client_ca_pem_file) and the methods next to it)
/// or for one identity ([`Identity::client_auth`](super::Identity::client_auth)).
///
/// ```
/// use bowline::config::ClientAuth;
///
/// let staff_only = ClientAuth::none().ca_pem_file("staff-ca.pem");
/// let nobody_is_asked = ClientAuth::none();
/// # let _ = (staff_only, nobody_is_asked);
/// ```
#[doc(alias = "verify_mode")]
#[derive(Debug, Clone, Default, Hash)]
#[must_use = "it does nothing until it is given to an identity"]
pub struct ClientAuth {
    roots: Vec<RootSource>,
    /// Accepts clients without a certificate too.
    optional: bool,
    revocation: Revocation,
}

impl ClientAuth {
    /// The server does not ask clients for a certificate, until a CA is added.
    pub fn none() -> Self {
        Self::default()
    }

    /// Requires from every client a certificate that one of the CAs in this PEM file has issued. May be called several
    /// times.
    pub fn ca_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(RootSource::Pem(Source::File(path.into())));
        self
    }

    /// As [`ca_pem_file`](Self::ca_pem_file), from PEM text in memory.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(RootSource::Pem(Source::Bytes(pem.into())));
        self
    }

    /// Also accepts clients that present no certificate. A certificate that a client does present must still be valid.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Lists of revoked client certificates, from a PEM file. May be called several times. See
    /// [`ServerTlsBuilder::client_crl_pem_file`](super::ServerTlsBuilder::client_crl_pem_file).
    pub fn crl_pem_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.revocation.lists.push(Source::File(path.into()));
        self
    }

    /// As [`crl_pem_file`](Self::crl_pem_file), from PEM text in memory.
    pub fn crl_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.revocation.lists.push(Source::Bytes(pem.into()));
        self
    }

    /// Checks only the client's own certificate against the lists, not the certificates of its issuers.
    pub fn crl_leaf_only(mut self) -> Self {
        self.revocation.leaf_only = true;
        self
    }

    /// Accepts a certificate whose issuer has no list, or only a list for other certificates.
    pub fn crl_tolerate_unknown_status(mut self) -> Self {
        self.revocation.tolerate_unknown = true;
        self
    }

    /// Reads the files now.
    pub(super) fn read_files(&mut self, volumes: &mut Volumes) {
        self.roots.iter_mut().for_each(|source| source.read_file(volumes));
        self.revocation.read_files(volumes);
    }

    /// Reads and checks everything.
    pub(super) fn load(&self, provider: &Arc<CryptoProvider>) -> Result<LoadedAuth, Error> {
        let warnings = unused_lists(&self.roots, &self.revocation).collect();
        if self.roots.is_empty() {
            return match (self.optional, self.revocation.is_set()) {
                (false, false) => Ok(LoadedAuth { verifier: Arc::new(NoClientAuth), tag: Tag::default(), warnings }),
                (true, _) => Err(contradiction("optional client certificates need a client CA")),
                (_, true) => Err(contradiction("a list of revoked client certificates needs a client CA")),
            };
        }
        let mut roots = RootCertStore::empty();
        let mut policy = Vec::new();
        for source in &self.roots {
            let certs = source.load()?;
            policy.extend(certs.iter().flat_map(|cert| cert.to_vec()));
            roots.add_parsable_certificates(certs);
        }
        let roots = Arc::new(roots);
        let lists = self.revocation.load(&roots, provider)?;
        policy.extend(lists.iter().flat_map(|list| list.to_vec()));
        let Revocation { leaf_only, tolerate_unknown, .. } = self.revocation;
        policy.extend([self.optional, leaf_only, tolerate_unknown].map(u8::from));
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists)
            .enforce_revocation_expiration();
        if self.optional {
            verifier = verifier.allow_unauthenticated();
        }
        if leaf_only {
            verifier = verifier.only_check_end_entity_revocation();
        }
        if tolerate_unknown {
            verifier = verifier.allow_unknown_revocation_status();
        }
        let verifier = verifier.build().map_err(|error| contradiction(error.to_string()))?;
        Ok(LoadedAuth { verifier, tag: Tag::of(&policy, provider), warnings })
    }
}

/// A policy that can be used.
pub(super) struct LoadedAuth {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) tag: Tag,
    pub(super) warnings: Vec<ConfigWarning>,
}
