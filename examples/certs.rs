//! Makes a CA and certificates for development, as mkcert does.
//!
//! ```text
//! cargo run --example certs -- --dir certs/dev localhost '*.shop.test' 192.0.2.1 --client alice
//! ```
//!
//! For each name it writes `NAME.pem` (the chain) and `NAME.key`, with `_` instead of an asterisk, and for each client
//! `client-NAME.pem` and `client-NAME.key`. The other side has to trust `ca.pem`. The key of the CA is discarded, so
//! nobody can issue more certificates with it. A second run makes a new CA and new certificates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bowline::testing::pki::{Identity, Pki};
use lexopt::{Arg, ValueExt};

#[path = "common/args.rs"]
#[allow(dead_code)]
mod args;

use args::{Usage, text};

const HELP: &str = "\
usage: certs [--dir DIR] [--client NAME]... NAME...

  NAME           a DNS name, *.NAME or an IP address of a server
  --client NAME  a client certificate with this common name
  --dir DIR      where the files are written; default: certs/dev

Only clients that trust ca.pem accept these certificates.";

fn main() -> ExitCode {
    run().unwrap_or_else(|usage| usage.exit("certs"))
}

fn run() -> Result<ExitCode, Usage> {
    let (mut dir, mut servers, mut clients) = (PathBuf::from("certs/dev"), Vec::new(), Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("dir") => dir = text(&mut parser)?.into(),
            Arg::Long("client") => clients.push(text(&mut parser)?),
            Arg::Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            Arg::Value(name) => servers.push(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let names: Vec<&String> = servers.iter().chain(&clients).collect();
    if names.is_empty() {
        return Err(Usage::new("no name was given; see certs --help"));
    }
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return Err(Usage::new(format!(
            "{name:?} is not a name: it may have letters, digits, '-', '.', '_', ':', and '*.' at its start"
        )));
    }
    let pki = Pki::new();
    std::fs::create_dir_all(&dir).map_err(|error| Usage::new(format!("{}: {error}", dir.display())))?;
    write(&dir.join("ca.pem"), &pki.ca_pem())?;
    for name in &servers {
        keep(&dir, name, &pki.server(&[name]))?;
    }
    for name in &clients {
        keep(&dir, &format!("client-{name}"), &pki.client(name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the name can be in a certificate, and in the name of a file.
fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    !rest.is_empty() && !rest.starts_with('.') && rest.bytes().all(may)
}

/// Writes the chain and the key.
fn keep(dir: &Path, name: &str, identity: &Identity) -> Result<(), Usage> {
    let stem = name.replace('*', "_");
    let written = identity.write_as(dir, &stem);
    let (chain, key) = written.map_err(|error| Usage::new(error.to_string()))?;
    println!("{} {}", chain.display(), key.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Usage> {
    std::fs::write(path, text).map_err(|error| Usage::new(format!("{}: {error}", path.display())))?;
    println!("{}", path.display());
    Ok(())
}
