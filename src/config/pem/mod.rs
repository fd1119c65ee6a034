//! Reads PEM files as they occur in practice, and describes what is wrong with them.

mod kind;
mod sections;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use self::kind::{Kind, Wanted, found_instead, unread};
use self::sections::{Section, sections};
use super::fail;
use super::passphrase::Passphrase;
use super::volume::Volumes;
use crate::error::{ConfigError, ConfigProblem, Error};

/// The source of PEM text. It is read when the configuration is built.
#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
    /// A file, after it was read.
    Read {
        path: PathBuf,
        bytes: Result<Arc<[u8]>, Arc<io::Error>>,
    },
}

impl Hash for Source {
    /// Two sources with the same contents are equal, even if they come from different files.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.bytes() {
            Ok(bytes) => bytes.hash(state),
            Err(error) => error.to_string().hash(state),
        }
    }
}

impl fmt::Debug for Source {
    /// The bytes may be a private key: they are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Read { path, .. } => path.fmt(f),
            Self::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
        }
    }
}

impl Source {
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) | Self::Read { path, .. } => Some(path.clone()),
            Self::Bytes(_) => None,
        }
    }

    /// Reads the file now. A failure is reported by the method that needs the contents.
    pub(super) fn read(&mut self, volumes: &mut Volumes) {
        let Self::File(path) = self else { return };
        let place = volumes.place(path);
        let bytes = volumes.check(&place).and_then(|()| read(&place)).map(Arc::from).map_err(Arc::new);
        if bytes.is_err() {
            volumes.note_failure();
        }
        *self = Self::Read { path: std::mem::take(path), bytes };
    }

    pub(super) fn fail(&self, problem: ConfigProblem) -> Error {
        fail(self.file(), problem)
    }

    /// A mistake in this line.
    pub(super) fn fail_at(&self, line: usize, problem: ConfigProblem) -> Error {
        ConfigError::new(self.file(), problem).in_line(Some(line)).into()
    }

    /// All certificates, in order; at least one (rule: secure-12).
    pub(super) fn certificates(&self) -> Result<Vec<Located<CertificateDer<'static>>>, Error> {
        self.all(Wanted::Certificates, Kind::Certificate, "CERTIFICATE", || ConfigProblem::NoCertificate)
    }

    /// All lists of revoked certificates; at least one.
    pub(super) fn revocation_lists(&self) -> Result<Vec<Located<CertificateRevocationListDer<'static>>>, Error> {
        let none = || ConfigProblem::BadRevocationList("there is no `X509 CRL` section".into());
        self.all(Wanted::RevocationLists, Kind::RevocationList, "X509 CRL", none)
    }

    /// The line of the first revocation list, if the text contains one.
    pub(super) fn stray_list(&self) -> Option<usize> {
        let text = self.bytes().ok()?;
        let lists = sections(&text).ok()?;
        lists.iter().find(|section| Kind::of(section) == Kind::RevocationList).map(|section| section.line)
    }

    /// The private key. There must be exactly one.
    pub(super) fn private_key(&self, passphrase: &Passphrase) -> Result<Located<PrivateKeyDer<'static>>, Error> {
        let text = self.bytes()?;
        let sections = self.cut(&text)?;
        let keys: Vec<&Section<'_>> = sections.iter().filter(|section| Kind::of(section) == Kind::PrivateKey).collect();
        let read =
            |section: &Section<'_>| key(section, passphrase).map_err(|(line, problem)| self.fail_at(line, problem));
        let [first, others @ ..] = &keys[..] else {
            return Err(self.none(ConfigProblem::NoKey, &text, &sections, Wanted::Key));
        };
        let item = read(first)?;
        for other in others {
            // The same key twice is harmless.
            if !matches!(key(other, passphrase), Ok(other) if other == item) {
                return Err(self.fail_at(other.line, ConfigProblem::SeveralKeys { first: first.line }));
            }
        }
        Ok(Located { item, line: first.line })
    }

    fn all<T: PemObject>(
        &self,
        wanted: Wanted,
        kind: Kind,
        label: &str,
        none: impl FnOnce() -> ConfigProblem,
    ) -> Result<Vec<Located<T>>, Error> {
        let text = self.bytes()?;
        let sections = self.cut(&text)?;
        let mut items = Vec::new();
        for section in sections.iter().filter(|section| Kind::of(section) == kind) {
            let item = decode(section, label).map_err(|(line, problem)| self.fail_at(line, problem))?;
            items.push(Located { item, line: section.line });
        }
        if items.is_empty() {
            return Err(self.none(none(), &text, &sections, wanted));
        }
        match sections.iter().find_map(|section| Some((section.line, unread(section, wanted)?))) {
            Some((line, what)) => Err(self.fail_at(line, ConfigProblem::BadPem(what))),
            None => Ok(items),
        }
    }

    fn cut<'a>(&self, text: &'a [u8]) -> Result<Vec<Section<'a>>, Error> {
        if let Some(what) = no_text(text) {
            return Err(self.fail(ConfigProblem::BadPem(what.into())));
        }
        sections(text).map_err(|(line, what)| self.fail_at(line, ConfigProblem::BadPem(what)))
    }

    fn none(&self, problem: ConfigProblem, text: &[u8], sections: &[Section<'_>], wanted: Wanted) -> Error {
        let found = Some(found_instead(text, sections, wanted));
        ConfigError::new(self.file(), problem).found(found).into()
    }

    /// The bytes, which need not be PEM.
    pub(super) fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Read { bytes: Ok(bytes), .. } => Ok(Cow::Borrowed(bytes)),
            Self::Read { bytes: Err(error), .. } => Err(self.fail(ConfigProblem::Unreadable(Arc::clone(error)))),
            Self::File(path) => match read(path) {
                Ok(bytes) => Ok(Cow::Owned(bytes)),
                Err(error) => Err(self.fail(ConfigProblem::Unreadable(Arc::new(error)))),
            },
        }
    }
}

/// More than the size of any real list of certificates. Limits the read of a device file, which may never end.
const MAX_SIZE: u64 = 64 << 20;

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).is_ok_and(|size| size <= MAX_SIZE) {
        true => Ok(bytes),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 64 MiB")),
    }
}

/// A parsed section, and the number of its first line.
pub(super) struct Located<T> {
    pub(super) item: T,
    pub(super) line: usize,
}

type Broken = (usize, ConfigProblem);

/// rustls's parser, whose base64 decoder runs in constant time.
fn decode<T: PemObject>(section: &Section<'_>, label: &str) -> Result<T, Broken> {
    T::from_pem_slice(&section.rewritten(label)).map_err(|error| {
        let (line, what) = match error {
            PemError::Base64Decode(_) => (section.broken_line(), "is not valid base64".to_owned()),
            other => (section.line, format!("cannot be read: {other}")),
        };
        let begins = if line == section.line { "here".to_owned() } else { format!("in line {}", section.line) };
        (line, ConfigProblem::BadPem(format!("the {} that begins {begins} {what}", section.label)))
    })
}

const KEY_LABELS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

fn key(section: &Section<'_>, passphrase: &Passphrase) -> Result<PrivateKeyDer<'static>, Broken> {
    if section.is_encrypted() {
        return decrypt(section, passphrase);
    }
    let Some(label) = KEY_LABELS.into_iter().find(|label| *label == section.label) else {
        let why = format!("{:?} is not a supported format", section.label);
        return Err((section.line, ConfigProblem::UnusableKey(why)));
    };
    let (kind, der) = decode::<(SectionKind, Vec<u8>)>(section, label)?;
    PrivateKeyDer::from_pem(kind, der).ok_or((section.line, ConfigProblem::NoKey))
}

fn decrypt(section: &Section<'_>, passphrase: &Passphrase) -> Result<PrivateKeyDer<'static>, Broken> {
    let problem = match (passphrase.is_some(), section.label.as_str()) {
        (false, _) => ConfigProblem::EncryptedKey,
        (true, "ENCRYPTED PRIVATE KEY") => {
            let (_, der) = decode::<(SectionKind, Vec<u8>)>(section, KEY_LABELS[0])?;
            return passphrase.decrypt(&der).map(PrivateKeyDer::Pkcs8).map_err(|problem| (section.line, problem));
        }
        (true, _) => {
            let convert = "convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc`";
            ConfigProblem::UnusableKey(format!("it is encrypted in the old format of OpenSSL: {convert}"))
        }
    };
    Err((section.line, problem))
}

/// Why the bytes are not a text.
fn no_text(text: &[u8]) -> Option<&'static str> {
    // In UTF-16, every second byte of ASCII text is zero.
    let is_utf16 = |text: &[u8]| {
        matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'-', 0, b'-', 0, ..] | [0, b'-', 0, b'-', ..])
    };
    match text {
        // The tag of a SEQUENCE, with a length of more than one byte. No line of text starts with these bytes.
        [0x30, 0x80..=0xff, ..] => Some("it is binary (DER or PKCS#12); convert it with openssl"),
        text if is_utf16(text) => Some("it is UTF-16; save it as UTF-8"),
        _ => None,
    }
}
