//! A directory of identities.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::identities::Identity;
use super::volume::{DATA, Volumes};
use super::{ConfigWarning, WarningKind, fail};
use crate::error::{ConfigError, ConfigProblem, Error};

/// The files of one identity.
#[derive(Debug)]
pub(super) struct Files {
    chain: PathBuf,
    key: PathBuf,
    ocsp: Option<PathBuf>,
}

/// The identities of a directory by their names, and the files that belong to no identity.
#[derive(Debug, Default)]
pub(super) struct Directory {
    found: BTreeMap<String, Files>,
    without_key: Vec<PathBuf>,
}

impl Directory {
    /// Lists the directory (rule: identity-5). At least one identity is in it.
    pub(super) fn list(dir: &Path, volumes: &mut Volumes) -> Result<Self, Error> {
        let mut listed = Self::default();
        for (name, path) in entries(dir, volumes)? {
            if path.is_dir() {
                let inner = revision(&path, volumes)?;
                let (chain, key) = (inner.join("tls.crt"), inner.join("tls.key"));
                match (chain.exists(), key.exists()) {
                    (false, false) => {}
                    (true, _) => listed.add(dir, name, chain, key)?,
                    (false, true) => return Err(missing(chain, "tls.key is there, and its certificate is missing")),
                }
            } else if name == "tls.crt" {
                listed.add(dir, "tls".into(), path.clone(), path.with_file_name("tls.key"))?;
            } else if let Some(stem) = name.strip_suffix(".pem") {
                let key = path.with_file_name(format!("{stem}.key"));
                match key.exists() {
                    true => listed.add(dir, stem.to_owned(), path, key)?,
                    false => listed.without_key.push(path),
                }
            }
        }
        match listed.found.is_empty() {
            false => Ok(listed),
            true => {
                let wanted = "there is neither NAME.pem with NAME.key beside it, nor a folder with tls.crt and tls.key";
                Err(ConfigError::new(Some(dir.into()), ConfigProblem::NoIdentity).found(Some(wanted.into())).into())
            }
        }
    }

    fn add(&mut self, dir: &Path, name: String, chain: PathBuf, key: PathBuf) -> Result<(), Error> {
        if !key.exists() {
            return Err(missing(key, "its certificate is there, and the private key is missing"));
        }
        let ocsp = Some(key.with_extension("ocsp")).filter(|path| path.exists());
        let files = Files { chain, key, ocsp };
        match self.found.get(&name) {
            Some(other) => {
                let (first, second) = (other.chain.display(), files.chain.display());
                let why = format!("{first} and {second} are both the identity {name:?}");
                Err(fail(Some(dir.into()), ConfigProblem::Contradiction(why)))
            }
            None => {
                self.found.insert(name, files);
                Ok(())
            }
        }
    }

    /// The identities, in the order of their names.
    pub(super) fn identities(&self) -> impl Iterator<Item = Identity> + use<'_> {
        self.found.iter().map(|(name, files)| {
            let identity = Identity::pem_files(&files.chain, &files.key).label(name);
            match &files.ocsp {
                Some(ocsp) => identity.ocsp_file(ocsp),
                None => identity,
            }
        })
    }

    /// A file without a key may be a CA's, or a mistake.
    pub(super) fn warnings(&self) -> impl Iterator<Item = ConfigWarning> + use<'_> {
        self.without_key.iter().map(|path| {
            let key = path.with_extension("key");
            let key = key.file_name().unwrap_or_default().to_string_lossy();
            let detail = format!("it is no identity, because there is no {key} beside it");
            ConfigWarning { file: Some(path.clone()), kind: WarningKind::NotAnIdentity, detail }
        })
    }
}

/// The names in a directory and the path of each, all in one revision. Names that begin with a dot are left out.
fn entries(dir: &Path, volumes: &mut Volumes) -> Result<BTreeMap<String, PathBuf>, Error> {
    let current = revision(dir, volumes)?;
    let mut all = names(&current)?;
    if dir.join(DATA).symlink_metadata().is_ok() {
        // A volume of Kubernetes may hold other mounts beside its revision: these are added. Links through `..data` are
        // left out, because they belong to a revision, which may no longer be the current one.
        let is_beside = |path: &Path| !fs::read_link(path).is_ok_and(|target| target.starts_with(DATA));
        for (name, path) in names(dir)?.into_iter().filter(|(_, path)| is_beside(path)) {
            all.entry(name).or_insert(path);
        }
    }
    Ok(all)
}

fn names(dir: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let unreadable = |error: io::Error| fail(Some(dir.into()), ConfigProblem::Unreadable(Arc::new(error)));
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let path = dir.join(&name);
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with('.') {
            all.insert(name, path);
        }
    }
    Ok(all)
}

/// The directory that holds the files at this moment. Kubernetes replaces all files of a volume at once, by changing
/// the link `..data`. A reader that follows the link for each file may get the certificate of one revision and the key
/// of another (rule: identity-6).
fn revision(dir: &Path, volumes: &mut Volumes) -> Result<PathBuf, Error> {
    volumes.revision_of(dir).map_err(|error| fail(Some(dir.into()), ConfigProblem::Unreadable(Arc::new(error))))
}

fn missing(file: PathBuf, why: &str) -> Error {
    let error = io::Error::new(io::ErrorKind::NotFound, why.to_owned());
    fail(Some(file), ConfigProblem::Unreadable(Arc::new(error)))
}
