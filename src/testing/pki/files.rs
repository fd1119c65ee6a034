//! A PKI that is kept in a directory between runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::{Identity, ORGANISATION, Pki};
use crate::config::{ClientTlsBuilder, ServerTlsBuilder, WarningKind, subject};

/// The certificates that [`Pki::load_or_create`] keeps in a directory: `ca.pem`, and a server and a client with a
/// certificate of that CA, `server.pem`, `server.key`, `client.pem` and `client.key`.
#[derive(Debug)]
pub struct PkiFiles {
    dir: PathBuf,
    ca_pem: String,
    server: Identity,
    client: Identity,
    created: bool,
}

impl Pki {
    /// Loads the certificates in this directory, or makes them (and the directory) if they are missing. **For
    /// development only**: a service on this machine then has a certificate when it is started for the first time.
    ///
    /// The server's certificate is for `localhost`, `127.0.0.1` and `::1`. Private keys have mode 0600. The key of the
    /// CA is discarded after the others are made, so nobody can issue more certificates with it: trusting `ca.pem`
    /// means trusting only these two. All files are made again if one is missing or cannot be parsed, if they do not
    /// belong together, or if a certificate has expired or will expire within a week.
    ///
    /// # Errors
    /// The system's error with the file. [`io::ErrorKind::AlreadyExists`] with the file if a file would have to be
    /// replaced but contains a certificate that was not made here.
    pub fn load_or_create(dir: impl AsRef<Path>) -> io::Result<PkiFiles> {
        let dir = dir.as_ref();
        match PkiFiles::load(dir)? {
            Some(files) if files.hold() => Ok(files),
            _ => PkiFiles::create(dir),
        }
    }
}

impl PkiFiles {
    /// The CA's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// The server's chain and the server's private key.
    pub fn server_paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.join(SERVER_CHAIN), self.dir.join(SERVER_KEY))
    }

    /// The client's chain and the client's private key.
    pub fn client_paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.join(CLIENT_CHAIN), self.dir.join(CLIENT_KEY))
    }

    /// Whether this call made the certificates.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The CA's certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The identity of the server.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// The identity of the client.
    pub fn client(&self) -> &Identity {
        &self.client
    }

    /// A builder for a configuration with the server's identity.
    pub fn server_tls_builder(&self) -> ServerTlsBuilder {
        super::server_tls_builder().identity(self.server.chain_der(), self.server.key_der())
    }

    /// A builder for a configuration that trusts the CA.
    pub fn client_tls_builder(&self) -> ClientTlsBuilder {
        super::client_tls_builder().roots_pem(self.ca_pem.as_str())
    }

    /// `None` if a file is missing or unusable.
    fn load(dir: &Path) -> io::Result<Option<Self>> {
        let mut texts = Vec::new();
        for name in [CA, SERVER_CHAIN, SERVER_KEY, CLIENT_CHAIN, CLIENT_KEY] {
            match fs::read(dir.join(name)) {
                Ok(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(named(&dir.join(name), &error)),
            }
        }
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap_or_default();
        let ca_pem = next();
        let server = Identity::from_pem("server", next(), next());
        let client = Identity::from_pem("client", next(), next());
        let files =
            server.zip(client).map(|(server, client)| Self { dir: dir.into(), ca_pem, server, client, created: false });
        Ok(files)
    }

    /// Whether the files belong together and stay valid for some time.
    fn hold(&self) -> bool {
        self.check().is_some()
    }

    /// Checks the parts as a peer would: the builders check the keys, and the verifiers of a handshake check the rest.
    fn check(&self) -> Option<()> {
        let server = self.server_tls_builder().build().ok()?;
        let client = self.client_tls_builder().identity(self.client.chain_der(), self.client.key_der()).build().ok()?;
        let warnings = [server.warnings(), client.warnings()];
        if warnings.iter().flat_map(|of_side| of_side.iter()).any(|warning| warning.kind == WarningKind::ExpiresSoon) {
            return None;
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).ok()?).ok()?;
        let (roots, provider) = (Arc::new(roots), client.config().crypto_provider().clone());
        let localhost = ServerName::try_from("localhost").ok()?;
        let (chain, now) = (self.server.chain_der(), UnixTime::now());
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().ok()?;
        servers.verify_server_cert(&chain[0], &chain[1..], &localhost, &[], now).ok()?;
        let chain = self.client.chain_der();
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build().ok()?;
        clients.verify_client_cert(&chain[0], &chain[1..], now).ok()?;
        Some(())
    }

    fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
        for name in [CA, SERVER_CHAIN, CLIENT_CHAIN] {
            refuse_foreign(&dir.join(name))?;
        }
        let pki = Pki::new();
        let (server, client) = (pki.server(&[]), pki.client("development client"));
        write_file(&dir.join(CA), &pki.ca_pem(), false)?;
        server.write_to(dir)?;
        client.write_to(dir)?;
        Ok(Self { dir: dir.into(), ca_pem: pki.ca_pem(), server, client, created: true })
    }
}

const CA: &str = "ca.pem";
const SERVER_CHAIN: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const CLIENT_CHAIN: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";

/// The user may have put their own certificates in place of ours. We cannot make those again, so we do not replace
/// them.
fn refuse_foreign(path: &Path) -> io::Result<()> {
    let Ok(cert) = CertificateDer::from_pem_file(path) else { return Ok(()) };
    match subject(&cert) {
        Some(subject) if subject.contains(ORGANISATION) => Ok(()),
        _ => {
            let why = "does not fit the other files, was not made here, and is not replaced; move it away";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: {why}", path.display())))
        }
    }
}

/// Replaces the file atomically, so that no reader sees half a file.
pub(super) fn write_file(path: &Path, text: &str, private: bool) -> io::Result<()> {
    let (temporary, mut file) = new_beside(path, private).map_err(|error| named(path, &error))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // If this fails too, the first error is still the one to report.
        let _ = fs::remove_file(&temporary);
        named(path, &error)
    })
}

/// A new file next to this one. Only a newly created file gets the requested mode.
fn new_beside(path: &Path, private: bool) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = private;
    let mut attempt = 0;
    loop {
        let temporary = path.with_file_name(format!(".{name}.{}.{attempt}.tmp", std::process::id()));
        match options.open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            opened => return opened.map(|file| (temporary, file)),
        }
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
