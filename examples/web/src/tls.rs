//! The TLS configuration.

use bowline::ServerTls;
use bowline::testing::pki::Pki;

use crate::args::{Args, Identity};
use crate::common::args::Usage;

/// Reads and checks all files.
pub(crate) fn load(args: &Args) -> Result<ServerTls, Usage> {
    let mut builder = match &args.identity {
        Identity::Files(cert, key) => ServerTls::builder().identity_pem_files(cert, key),
        Identity::Several(dir) => ServerTls::builder().identities_dir(dir),
        Identity::Made(dir) => {
            let (cert, key) = Pki::load_or_create(dir).map_err(Usage::of)?.server_paths();
            ServerTls::builder().identity_pem_files(cert, key)
        }
    };
    if let Some(ca) = &args.client_ca {
        builder = builder.client_ca_pem_file(ca);
    }
    if args.client_optional {
        builder = builder.client_auth_optional();
    }
    if let Some(crl) = &args.crl {
        builder = builder.client_crl_pem_file(crl);
    }
    let tls = builder.alpn(&args.alpn).build().map_err(Usage::of)?;
    tls.warnings().iter().for_each(|warning| eprintln!("web: {warning}"));
    Ok(tls)
}
