//! The TLS configuration, and its reload.

use std::path::PathBuf;
use std::sync::Arc;

use bowline::config::ServerTlsBuilder;
use bowline::testing::pki::Pki;
use bowline::{Error, Observer, ReloadEvents, Reloader, ServerTls};

use crate::args::{Args, Identity};
use crate::common::args::Usage;
use crate::state::Web;
use crate::ticket_keys::KeySource;

/// The files of the configuration.
#[derive(Clone)]
pub(crate) struct Files {
    identity: Source,
    client_ca: Option<String>,
    client_optional: bool,
    crl: Option<String>,
    ticket_keys: Keys,
    alpn: Vec<String>,
}

/// The ticket keys.
#[derive(Clone)]
enum Keys {
    Own,
    Files(Vec<String>),
    #[cfg(feature = "redis")]
    Rotated(bowline::config::TicketKeys),
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
        let client_optional = args.client_optional;
        let ticket_keys = match &args.ticket_keys {
            KeySource::Own => Keys::Own,
            KeySource::Files(files) => Keys::Files(files.split(',').map(str::to_owned).collect()),
            #[cfg(feature = "redis")]
            KeySource::Redis(redis) => Keys::Rotated(redis.keys().clone()),
        };
        Ok(Self { identity, client_ca, client_optional, crl, ticket_keys, alpn })
    }

    /// Reads and checks all files.
    pub(crate) fn load(&self) -> Result<ServerTls, Error> {
        let tls = self.builder().build()?;
        print_warnings(&tls);
        Ok(tls)
    }

    /// Loads the files again when their contents have changed, and on request.
    pub(crate) fn reloader(&self, args: &Args, web: &Web) -> Reloader {
        Reloader::builder()
            .server(&web.tls, self.builder())
            .every(args.reload_every)
            .observer(Arc::clone(&web.metrics) as Arc<dyn Observer>)
            .start()
    }

    fn builder(&self) -> ServerTlsBuilder {
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
        builder = match &self.ticket_keys {
            Keys::Own => builder,
            Keys::Files(files) => builder.ticket_key_files(files),
            #[cfg(feature = "redis")]
            Keys::Rotated(keys) => builder.ticket_keys(keys),
        };
        builder.alpn(&self.alpn)
    }
}

/// Logs the results of the reloader, until it is dropped.
pub(crate) async fn log_reloads(mut events: ReloadEvents, web: Arc<Web>) {
    while let Some(event) = events.next().await {
        match event {
            Ok(reloaded) => {
                if reloaded.is_new {
                    print_warnings(&web.tls);
                }
                web.log.reloaded(reloaded.generation, reloaded.not_after);
            }
            Err(error) => web.log.reload_failed(&error),
        }
    }
}

fn print_warnings(tls: &ServerTls) {
    tls.warnings().iter().for_each(|warning| eprintln!("web: {warning}"));
}
