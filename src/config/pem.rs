//! PEM as it is found in the wild: where it comes from, what is in it, and what is wrong with it.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::fail;
use crate::error::{ConfigProblem, Error};

/// Where PEM text comes from. It is read when the configuration is built.
pub(super) enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl fmt::Debug for Source {
    /// The bytes may be a private key: they are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Bytes(bytes) => write!(f, "[{} bytes]", bytes.len()),
        }
    }
}

impl Source {
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Bytes(_) => None,
        }
    }

    pub(super) fn fail(&self, problem: ConfigProblem) -> Error {
        fail(self.file(), problem)
    }

    /// All certificates, in order; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        self.all(&["CERTIFICATE"], ConfigProblem::NoCertificate)
    }

    /// All lists of revoked certificates; at least one.
    pub(super) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        self.all(&["X509 CRL"], ConfigProblem::BadRevocationList("there is no `X509 CRL` section".into()))
    }

    /// The first private key.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let text = self.read()?;
        let first = sections(&text).into_iter().find(|section| section.label.ends_with("PRIVATE KEY"));
        let section = first.ok_or_else(|| self.fail(nothing_in(&text, ConfigProblem::NoKey)))?;
        section.private_key().map_err(|problem| self.fail(problem))
    }

    fn all<T: PemObject>(&self, labels: &[&str], none: ConfigProblem) -> Result<Vec<T>, Error> {
        let text = self.read()?;
        let wanted = sections(&text).into_iter().filter(|section| labels.contains(&section.label.as_str()));
        let items: Vec<T> =
            wanted.map(|section| section.decode()).collect::<Result<_, _>>().map_err(|problem| self.fail(problem))?;
        match items.is_empty() {
            true => Err(self.fail(nothing_in(&text, none))),
            false => Ok(items),
        }
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, Error> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => match fs::read(path) {
                Ok(bytes) => Ok(Cow::Owned(bytes)),
                Err(error) => Err(self.fail(ConfigProblem::Unreadable(Arc::new(error)))),
            },
        }
    }
}

/// One BEGIN line and what follows it up to the next one.
struct Section<'a> {
    label: String,
    /// The number of its BEGIN line, counted from one.
    line: usize,
    text: &'a [u8],
}

impl Section<'_> {
    fn decode<T: PemObject>(&self) -> Result<T, ConfigProblem> {
        T::from_pem_slice(self.text).map_err(|error| self.broken(&error))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigProblem> {
        if self.is_encrypted() {
            return Err(ConfigProblem::EncryptedKey);
        }
        let (kind, der) = match self.decode::<(SectionKind, Vec<u8>)>() {
            // The parser passes over labels that it does not know.
            Err(_) if !KEY_LABELS.contains(&self.label.as_str()) => {
                return Err(ConfigProblem::UnusableKey(format!("{:?} is not a format that is read here", self.label)));
            }
            decoded => decoded?,
        };
        PrivateKeyDer::from_pem(kind, der).ok_or(ConfigProblem::NoKey)
    }

    /// PKCS#8 says it in the label, the older forms say it in a header (RFC 1421, section 4.6.1.1).
    fn is_encrypted(&self) -> bool {
        let header = |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        self.label == "ENCRYPTED PRIVATE KEY"
            || self.text.split(|&byte| is_line_end(byte)).any(|line| header(line.trim_ascii()))
    }

    fn broken(&self, error: &PemError) -> ConfigProblem {
        let Self { label, line, .. } = self;
        ConfigProblem::BadPem(match error {
            PemError::MissingSectionEnd { .. } => format!("the {label} that begins in line {line} has no END line"),
            PemError::IllegalSectionStart { .. } => format!("the BEGIN line {line} is incomplete"),
            PemError::Base64Decode(_) => format!("the {label} that begins in line {line} is not valid base64"),
            other => format!("the {label} that begins in line {line}: {other}"),
        })
    }
}

const KEY_LABELS: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
const BEGIN: &[u8] = b"-----BEGIN ";
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Cuts the text into sections before it is parsed, so that a mistake can be told with its line, and so that a broken
/// section of a kind that nobody asked for does no harm.
fn sections(text: &[u8]) -> Vec<Section<'_>> {
    let text = text.strip_prefix(UTF8_MARK).unwrap_or(text);
    let starts = section_starts(text);
    let ends = starts.iter().skip(1).map(|&(at, _)| at).chain([text.len()]);
    starts.iter().zip(ends).map(|(&(at, line), end)| section(&text[at..end], line)).collect()
}

fn section(text: &[u8], line: usize) -> Section<'_> {
    let first = text[BEGIN.len()..].split(|&byte| is_line_end(byte)).next().unwrap_or_default();
    let label = String::from_utf8_lossy(first).trim_end().trim_end_matches('-').to_owned();
    Section { label, line, text }
}

/// The offset and the number of each BEGIN line, whichever way the lines end.
fn section_starts(text: &[u8]) -> Vec<(usize, usize)> {
    let (mut starts, mut at, mut line) = (Vec::new(), 0, 1);
    loop {
        let rest = &text[at..];
        if rest.starts_with(BEGIN) {
            starts.push((at, line));
        }
        let Some(length) = rest.iter().position(|&byte| is_line_end(byte)) else { return starts };
        at += length + if rest[length..].starts_with(b"\r\n") { 2 } else { 1 };
        line += 1;
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Why a text holds nothing of what was asked for: because it is no PEM at all, or because of `none`.
fn nothing_in(text: &[u8], none: ConfigProblem) -> ConfigProblem {
    match text {
        // The tag of a SEQUENCE, with a length of more than one byte: nothing that a line of text begins with.
        [0x30, 0x80..=0xff, ..] => {
            ConfigProblem::BadPem("it is binary (DER or PKCS#12); convert it with openssl".into())
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ConfigProblem::BadPem("it is UTF-16; save it as UTF-8".into()),
        _ => none,
    }
}
