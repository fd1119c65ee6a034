//! The workloads whose instructions are counted.

use std::sync::Arc;

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
use bowline::{Address, ClientTls, Policy, ServerTls, Stream, TlsConnection, Transport};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::pipe::{Pipe, pipe};
use crate::{Result, counted};

/// The name, and the number of counted units: MiB in bulk, otherwise writes, or requests with their responses. Each
/// workload exists for both engines.
pub const ALL: &[(&str, f64)] = &[
    ("bulk-64k", 4.0),
    ("bulk-16k", 4.0),
    ("small-eager", 10_000.0),
    ("small-corked", 10_000.0),
    ("request-1k", 1_000.0),
    ("request-1k-callback", 1_000.0),
    ("bulk-64k-express", 4.0),
    ("bulk-16k-express", 4.0),
    ("small-eager-express", 10_000.0),
    ("small-corked-express", 10_000.0),
    ("request-1k-express", 1_000.0),
    ("request-1k-callback-express", 1_000.0),
];

type Connection = TlsConnection<Stream<Pipe>>;

/// Runs a workload: first its preparation, then the counted part.
pub fn run(name: &str) -> Result<()> {
    let units = ALL.iter().find(|(known, _)| *known == name).ok_or("there is no such workload")?.1 as usize;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (workload, is_express) = name.strip_suffix("-express").map_or((name, false), |workload| (workload, true));
    let (client, server) = runtime.block_on(pair(is_express))?;
    match workload {
        "bulk-64k" => bulk(&runtime, client, server, 64 << 10, units << 4, false),
        "bulk-16k" => bulk(&runtime, client, server, 16 << 10, units << 6, false),
        "small-eager" => bulk(&runtime, client, server, 100, units, false),
        "small-corked" => bulk(&runtime, client, server, 100, units, true),
        "request-1k" => {
            runtime.spawn(echo(server));
            requests(&runtime, client, units)
        }
        _ => {
            runtime.spawn(Runner::new(Echo, server).run());
            requests(&runtime, client, units)
        }
    }
}

fn bulk(runtime: &Runtime, from: Connection, to: Connection, size: usize, count: usize, cork: bool) -> Result<()> {
    // A quarter of the amount is transferred as a warm-up, after which the buffers have their final sizes.
    let (from, to) = transfer(runtime, from, to, size, count / 4, cork)?;
    counted(|| transfer(runtime, from, to, size, count, cork))?;
    Ok(())
}

fn transfer(
    runtime: &Runtime,
    mut from: Connection,
    mut to: Connection,
    size: usize,
    count: usize,
    cork: bool,
) -> Result<(Connection, Connection)> {
    let writer = runtime.spawn(async move {
        let chunk = vec![0x5a; size];
        if cork {
            let mut corked = from.cork();
            for _ in 0..count {
                corked.write_all(&chunk).await?;
            }
        } else {
            for _ in 0..count {
                from.write_all(&chunk).await?;
            }
        }
        from.flush().await?;
        Ok::<_, std::io::Error>(from)
    });
    let reader = runtime.spawn(async move {
        let mut buf = vec![0; 64 << 10];
        let mut left = size * count;
        while left > 0 {
            left -= to.read(&mut buf).await?;
        }
        Ok::<_, std::io::Error>(to)
    });
    runtime.block_on(async { Ok((writer.await??, reader.await??)) })
}

fn requests(runtime: &Runtime, client: Connection, count: usize) -> Result<()> {
    let client = ask(runtime, client, count / 4)?;
    counted(|| ask(runtime, client, count))?;
    Ok(())
}

fn ask(runtime: &Runtime, mut client: Connection, count: usize) -> Result<Connection> {
    let asking = runtime.spawn(async move {
        let mut buf = [0x5a; 1024];
        for _ in 0..count {
            client.write_all(&buf).await?;
            client.read_exact(&mut buf).await?;
        }
        Ok::<_, std::io::Error>(client)
    });
    Ok(runtime.block_on(asking)??)
}

async fn echo(mut server: Connection) -> std::io::Result<()> {
    let mut buf = [0; 1024];
    loop {
        server.read_exact(&mut buf).await?;
        server.write_all(&buf).await?;
    }
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }
}

/// Two ends of a connection, after the handshake.
async fn pair(is_express: bool) -> Result<(Connection, Connection)> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![kx_group::X25519];
    let provider = Arc::new(provider);
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der())?)?;
    server.send_tls13_tickets = 0;
    let (near, far) = pipe();
    let over = |pipe| {
        let address = || Address::Other("memory".to_owned());
        Stream::with(pipe, address(), address(), Policy::default()).wakes_unlocked().delivers_at_once()
    };
    let (mut client, mut server) = (ClientTls::from(Arc::new(client)), ServerTls::from(Arc::new(server)));
    if is_express {
        (client, server) = (client.express()?, server.express()?);
    }
    Ok(tokio::try_join!(
        TlsConnection::connect(over(near), &client, "localhost"),
        TlsConnection::accept(over(far), &server)
    )?)
}
