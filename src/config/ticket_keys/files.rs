//! Files of ticket keys, in the forms of nginx and HAProxy.

use std::fmt;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::TicketKeySet;
use super::key::{NAME, TicketKey};
use crate::config::volume::Volumes;
use crate::error::{ConfigError, ConfigProblem, Error};

/// The lengths of a key with its name: with AES-128 and with AES-256 in those programs.
const LENGTHS: [usize; 2] = [48, 80];
/// The longest file. Limits the read of a device file, which may never end.
const MAX_SIZE: u64 = 64 << 10;
/// The smallest number of keys in a file of HAProxy.
const LINES: usize = 3;

/// The files of a server's ticket keys.
#[derive(Debug, Clone, Hash)]
pub(in crate::config) struct KeyFiles(Vec<KeyFile>);

/// A file, and what was read from it.
#[derive(Clone)]
struct KeyFile {
    path: PathBuf,
    contents: Option<Result<Contents, Arc<io::Error>>>,
}

#[derive(Clone)]
pub(super) struct Contents {
    bytes: Arc<Zeroizing<Vec<u8>>>,
    changed: Option<SystemTime>,
}

#[cfg(feature = "tokio")]
impl Contents {
    pub(super) fn into_bytes(self) -> Arc<Zeroizing<Vec<u8>>> {
        self.bytes
    }
}

impl Hash for KeyFile {
    /// Does not compare the modification time, because it is not a part of the key.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.contents {
            None => self.path.hash(state),
            Some(Ok(contents)) => contents.bytes.hash(state),
            Some(Err(error)) => error.to_string().hash(state),
        }
    }
}

impl fmt::Debug for KeyFile {
    /// Shows only the path, because the contents are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl KeyFiles {
    pub(in crate::config) fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self(paths.into_iter().map(|path| KeyFile { path: path.into(), contents: None }).collect())
    }

    /// Reads the files now. A failure is reported by [`set`](Self::set).
    pub(in crate::config) fn read_files(&mut self, volumes: &mut Volumes) {
        for file in &mut self.0 {
            let place = volumes.place(&file.path);
            let contents = volumes.check(&place).and_then(|()| read(&place)).map_err(Arc::new);
            if contents.is_err() {
                volumes.note_failure();
            }
            file.contents = Some(contents);
        }
    }

    /// The keys, in the order of the files.
    pub(in crate::config) fn set(&self) -> Result<TicketKeySet, Error> {
        let mut keys = Vec::new();
        for file in &self.0 {
            keys.extend(file.keys()?);
        }
        if keys.is_empty() {
            return Err(super::unusable("there is no file of ticket keys"));
        }
        TicketKeySet::new(keys)
    }
}

impl KeyFile {
    fn keys(&self) -> Result<Vec<TicketKey>, Error> {
        let fail = |problem| ConfigError::new(Some(self.path.clone()), problem);
        let read_now;
        let contents = match &self.contents {
            Some(contents) => contents,
            None => {
                read_now = read(&self.path).map_err(Arc::new);
                &read_now
            }
        };
        let contents = contents.as_ref().map_err(|error| fail(ConfigProblem::Unreadable(Arc::clone(error))))?;
        let keys = parse(&contents.bytes)
            .map_err(|Mistake { line, what }| fail(ConfigProblem::BadTicketKeys(what)).in_line(line))?;
        Ok(keys.into_iter().map(|key| contents.changed.map_or(key.clone(), |time| key.made(time))).collect())
    }
}

pub(super) fn read(path: &Path) -> io::Result<Contents> {
    // The vector never grows: growing would leave a copy of the keys in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity((MAX_SIZE as usize) + 2));
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 64 KiB"));
    }
    let changed = fs::metadata(path).and_then(|facts| facts.modified()).ok();
    Ok(Contents { bytes: Arc::new(Zeroizing::new(bytes.to_vec())), changed })
}

/// A mistake in a file, and its line.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    line: Option<usize>,
    what: String,
}

impl Mistake {
    fn new(line: impl Into<Option<usize>>, what: impl Into<String>) -> Self {
        Self { line: line.into(), what: what.into() }
    }
}

const EXPECTED: &str = "a file for nginx is one key of 48 or 80 random bytes, and a file for HAProxy has one such key in \
                        base64 on each line";

/// The keys of a file, the one that seals first.
fn parse(bytes: &[u8]) -> Result<Vec<TicketKey>, Mistake> {
    if LENGTHS.contains(&bytes.len()) {
        return Ok(vec![key(bytes, None)?]);
    }
    let Some(text) = text(bytes) else {
        return Err(Mistake::new(None, format!("it has {} bytes, and {EXPECTED}", bytes.len())));
    };
    if text.contains("-----BEGIN") {
        return Err(Mistake::new(None, format!("it is PEM, and {EXPECTED}")));
    }
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            keys.push(line_key(line, number + 1)?);
        }
    }
    if keys.len() < LINES {
        let what = format!("it has {} of the {LINES} keys that a file for HAProxy needs: {ROLES}", keys.len());
        return Err(Mistake::new(None, if keys.is_empty() { format!("it is empty, and {EXPECTED}") } else { what }));
    }
    // The resulting order: the key that seals, the next key, then the old keys from the newest to the oldest.
    keys.reverse();
    keys.swap(0, 1);
    Ok(keys)
}

const ROLES: &str = "the last but one seals, the last one will seal next, and the others only open";

fn text(bytes: &[u8]) -> Option<&str> {
    let is_text = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    std::str::from_utf8(bytes).ok().filter(|_| is_text)
}

/// The key of a line for HAProxy.
fn line_key(line: &str, number: usize) -> Result<TicketKey, Mistake> {
    let decoded = base64(line).map_err(|what| Mistake::new(number, what))?;
    if LENGTHS.contains(&decoded.len()) {
        return key(&decoded, Some(number));
    }
    let what = format!("the line is base64 of {} bytes, and a key has 48 or 80", decoded.len());
    Err(Mistake::new(number, what))
}

/// A key that begins with its name.
fn key(bytes: &[u8], line: Option<usize>) -> Result<TicketKey, Mistake> {
    let (name, secret) = bytes.split_first_chunk::<NAME>().expect("a key is longer than its name");
    TicketKey::new(*name, secret).map_err(|_| {
        Mistake::new(line, "all bytes of the secret are the same, and a secret is random, as in `openssl rand 80`")
    })
}

/// Decodes base64 (RFC 4648, section 4). A mistake is described without the characters, because they are secret.
fn base64(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let data = text.trim_end_matches('=');
    if text.len() - data.len() > 2 || text.len() % 4 != 0 {
        return Err(format!("the line is not complete base64: it has {} characters", text.len()));
    }
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut buffer, mut bits) = (0u32, 0);
    for (at, byte) in data.bytes().enumerate() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(format!("the line is not base64: character {} does not belong to it", at + 1)),
        };
        (buffer, bits) = (buffer << 6 | u32::from(value), bits + 6);
        if bits >= 8 {
            bits -= 8;
            decoded.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals_first(number: u8) -> Vec<u8> {
        (0..80).map(|n| if n < 16 { number } else { n ^ number }).collect()
    }

    fn encoded(bytes: &[u8]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let chunk = |chunk: &[u8]| {
            let number = (0..3).fold(0, |all, n| all << 8 | usize::from(*chunk.get(n).unwrap_or(&0)));
            let letter = |n: usize| {
                if n <= chunk.len() { char::from(ALPHABET[number >> (18 - 6 * n) & 63]) } else { '=' }
            };
            (0..4).map(letter).collect::<String>()
        };
        bytes.chunks(3).map(chunk).collect()
    }

    fn names(bytes: &[u8]) -> Vec<u8> {
        parse(bytes).unwrap().iter().map(|key| key.name()[0]).collect()
    }

    fn said(bytes: impl AsRef<[u8]>) -> (Option<usize>, String) {
        let Mistake { line, what } = parse(bytes.as_ref()).unwrap_err();
        (line, what)
    }

    /// rule: ticket-8
    #[test]
    fn the_forms_of_nginx_and_haproxy_are_read() {
        assert_eq!(names(&seals_first(7)), [7]);
        assert_eq!(names(&seals_first(7)[..48]), [7]);
        assert_eq!(parse(&seals_first(7)).unwrap()[0].secret(), &seals_first(7)[16..]);
        let line = |number: u8| encoded(&seals_first(number)[..if number % 2 == 0 { 48 } else { 80 }]);
        let four = format!("{}\n{}\r\n\n{}\n{}", line(1), line(2), line(3), line(4));
        assert_eq!(names(four.as_bytes()), [3, 4, 2, 1]);
        let three = format!("{}\n{}\n{}\n", line(1), line(2), line(3));
        assert_eq!(names(three.as_bytes()), [2, 3, 1]);
        assert_eq!(parse(three.as_bytes()).unwrap()[1].secret(), &seals_first(3)[16..]);
    }

    /// rule: ticket-8
    #[test]
    fn a_mistake_says_what_was_found_and_what_would_be_right() {
        let line = encoded(&seals_first(1));
        let has = |found: (Option<usize>, String), line: Option<usize>, text: &str| {
            assert!(found.0 == line && found.1.contains(text), "{found:?}");
        };
        has(said(""), None, "it is empty, and a file for nginx is one key of 48 or 80 random bytes");
        has(said([0xff; 47]), None, "it has 47 bytes, and a file for nginx");
        has(said([9; 80]), None, "all bytes of the secret are the same");
        has(said("-----BEGIN PRIVATE KEY-----\n"), None, "it is PEM, and a file for nginx");
        has(said(format!("{line}\n{line}\n")), None, "it has 2 of the 3 keys that a file for HAProxy needs");
        has(said(format!("{line}\n{}\n", &line[1..])), Some(2), "not complete base64: it has 107 characters");
        has(said(format!("{line}\n{}*{}\n", &line[..5], &line[6..])), Some(2), "character 6 does not belong to it");
        has(said(format!("{line}\n\nAAAA\n")), Some(3), "base64 of 3 bytes, and a key has 48 or 80");
        has(said(format!("{line}\n===\n")), Some(2), "not complete base64");
    }
}
