//! Chooses an identity by the name that the client asks for (SNI, RFC 6066 section 3).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureAlgorithm;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identities::{IdentityInfo, Loaded};
use super::{ConfigWarning, WarningKind};
use crate::core::session::{Chosen, note_chosen};

/// The identities, and the names for which each is used (rule: identity-1).
pub(super) struct ByName {
    identities: Vec<Usable>,
    names: HashMap<String, Vec<usize>>,
    /// The names with a wildcard, without the `*`: `.example.com`.
    wildcards: HashMap<String, Vec<usize>>,
    /// The default identity, and the identities with the same names and another kind of key.
    default: Vec<usize>,
}

struct Usable {
    certified: Arc<CertifiedKey>,
    chosen: Chosen,
}

impl ByName {
    /// `default` is the index of the default identity.
    pub(super) fn new(all: &[Loaded], infos: &[IdentityInfo], default: usize) -> (Self, Vec<ConfigWarning>) {
        let usable = |(loaded, info): (&Loaded, &IdentityInfo)| Usable {
            certified: Arc::clone(&loaded.certified),
            chosen: Chosen { chain: Arc::clone(&info.chain), name: Some(Arc::clone(&info.name)) },
        };
        let mut by_name = Self {
            identities: all.iter().zip(infos).map(usable).collect(),
            names: HashMap::new(),
            wildcards: HashMap::new(),
            default: vec![default],
        };
        let mut warnings = Vec::new();
        for (number, loaded) in all.iter().enumerate() {
            for name in &loaded.names {
                if let Some(first) = by_name.add(name, number) {
                    let detail =
                        format!("{name} is a name of the identity {:?} too, which is used for it", infos[first].name);
                    warnings.push(ConfigWarning { file: loaded.file.clone(), kind: WarningKind::SharedName, detail });
                }
            }
            if loaded.names.is_empty() && number != default {
                let detail = format!(
                    "the identity {:?} has no DNS name and is not the default one, so no client gets it",
                    infos[number].name
                );
                warnings.push(ConfigWarning { file: loaded.file.clone(), kind: WarningKind::NeverUsed, detail });
            }
        }
        let is_twin = |number: &usize| *number != default && all[*number].names == all[default].names;
        by_name.default.extend((0..all.len()).filter(is_twin));
        (by_name, warnings)
    }

    /// Adds a name. If another identity with the same kind of key already has the name, it keeps the name and is
    /// returned.
    fn add(&mut self, name: &str, number: usize) -> Option<usize> {
        let algorithm = |number: usize| -> SignatureAlgorithm { self.identities[number].certified.key.algorithm() };
        let of_name = match name.strip_prefix('*') {
            Some(rest) => self.wildcards.entry(rest.to_owned()).or_default(),
            None => self.names.entry(name.to_owned()).or_default(),
        };
        let first = of_name.iter().copied().find(|other| algorithm(*other) == algorithm(number));
        of_name.push(number);
        first.filter(|first| *first != number)
    }

    /// The index of the first identity with this name.
    pub(super) fn first_with(&self, name: &str) -> Option<usize> {
        self.find(name).and_then(|found| found.first().copied())
    }

    /// The index of the default identity.
    pub(super) fn first_default(&self) -> usize {
        self.default[0]
    }

    /// The identities for a name, the preferred one first. `None` for an unknown name.
    fn find(&self, name: &str) -> Option<&[usize]> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let wildcard = || self.wildcards.get(&name[name.find('.')?..]);
        self.names.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    /// The first identity for the name whose key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has converted the name to lower case.
        let found = hello.server_name().and_then(|name| self.find(name)).unwrap_or(&self.default);
        let can_sign = |number: &&usize| {
            self.identities[**number].certified.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let number = found.iter().find(can_sign).or(found.first())?;
        let Usable { certified, chosen } = &self.identities[*number];
        note_chosen(chosen);
        Some(Arc::clone(certified))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.identities.iter().map(|identity| &identity.chosen.name);
        f.debug_list().entries(names).finish()
    }
}
