//! The TLS configuration, and its reload.

use std::path::PathBuf;
use std::sync::Arc;

use bowline::testing::pki::Pki;
use bowline::{Error, ServerTls};

use crate::args::{Args, Identity};
use crate::common::args::Usage;
use crate::reload::{self, Reloaded, Watched, first_end};
use crate::signals::Hangups;
use crate::state::Web;

/// The files of the configuration.
#[derive(Clone)]
pub(crate) struct Files {
    identity: Source,
    client_ca: Option<String>,
    client_optional: bool,
    crl: Option<String>,
    ticket_keys: Vec<String>,
    alpn: Vec<String>,
}

#[derive(Clone)]
enum Source {
    Files(PathBuf, PathBuf),
    Directory(PathBuf),
}

impl Files {
    /// Makes the development certificates, if the service uses them and they are missing.
    pub(crate) fn of(args: &Args) -> Result<Self, Usage> {
        let identity = match &args.identity {
            Identity::Files(cert, key) => Source::Files(cert.into(), key.into()),
            Identity::Several(dir) => Source::Directory(dir.into()),
            Identity::Made(dir) => {
                let (cert, key) = Pki::load_or_create(dir).map_err(Usage::of)?.server_paths();
                Source::Files(cert, key)
            }
        };
        let (client_ca, crl, alpn) = (args.client_ca.clone(), args.crl.clone(), args.alpn.clone());
        let (client_optional, ticket_keys) = (args.client_optional, args.ticket_keys.clone());
        Ok(Self { identity, client_ca, client_optional, crl, ticket_keys, alpn })
    }

    /// Reads and checks all files.
    pub(crate) fn load(&self) -> Result<ServerTls, Error> {
        let mut builder = match &self.identity {
            Source::Files(cert, key) => ServerTls::builder().identity_pem_files(cert, key),
            Source::Directory(dir) => ServerTls::builder().identities_dir(dir),
        };
        if let Some(ca) = &self.client_ca {
            builder = builder.client_ca_pem_file(ca);
        }
        if self.client_optional {
            builder = builder.client_auth_optional();
        }
        if let Some(crl) = &self.crl {
            builder = builder.client_crl_pem_file(crl);
        }
        if !self.ticket_keys.is_empty() {
            builder = builder.ticket_key_files(&self.ticket_keys);
        }
        let tls = builder.alpn(&self.alpn).build()?;
        tls.warnings().iter().for_each(|warning| eprintln!("web: {warning}"));
        Ok(tls)
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths = match &self.identity {
            Source::Files(cert, key) => vec![cert.clone(), key.clone()],
            Source::Directory(dir) => vec![dir.clone()],
        };
        paths.extend([&self.client_ca, &self.crl].into_iter().flatten().chain(&self.ticket_keys).map(PathBuf::from));
        paths
    }
}

/// Loads the files again when they have changed, or on SIGHUP.
pub(crate) async fn watch(files: Files, args: Arc<Args>, hangups: Hangups, web: Arc<Web>) {
    web.note_identities();
    let paths = files.paths();
    let watched = Watched { tls: web.tls.clone(), files: paths, every: args.reload_every, load: move || files.load() };
    reload::watch(watched, hangups, |reloaded| {
        metrics::counter!("bowline_reloads_total", "outcome" => reloaded.name()).increment(1);
        web.note_identities();
        match reloaded {
            Reloaded::Changed | Reloaded::Unchanged => web.log.reloaded(web.tls.generation(), first_end(&web.tls)),
            Reloaded::Failed(error) => web.log.reload_failed(&error),
        }
    })
    .await;
}
