//! A hostile peer for `bench/adversaries`: as client of a server, or as the service behind a terminator. See `--help`.

mod records;
mod service;

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bowline::testing::peer::RawTls;
use bowline::testing::pki::{Identity, Pki, PkiFiles};
use bowline::{ClientTls, TlsVersion};
use lexopt::Arg::{Long, Value};
use lexopt::ValueExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use self::records::Attack;

const HELP: &str = "\
A hostile TLS peer. bench/adversaries runs it and measures its victims.

Usage: adversary ATTACK (--connect ADDR | --listen ADDR) --certs DIR [OPTIONS]

ATTACK is what the peer sends after a handshake: empty (records without data), tiny (records of one byte), key-updates
(requests for one), warnings (alerts of the level warning), tickets (session tickets, from a server); or, in the
handshake: chain (a certificate chain of 165 kB) and chain-60 (one of 60 kB, which is shorter than a message may be).

  --connect ADDR    attack this server
  --smtp            ask the server for TLS by STARTTLS first
  --listen ADDR     be a server. Each connection begins with a PROXY header of version 1. Clients with the address
                    127.0.0.1 are served: the line ECHO text is answered. All others are attacked
  --certs DIR       the directory that has ca.pem, and a server and a client with a certificate of that CA
  --connections N   how many connections; default 20
  --records N       how many records on each; default 20000
  --tls12           TLS 1.2
  --help

A client prints `done CONNECTIONS RECORDS` when it has sent everything, or when the server has ended all connections. It
keeps the open ones until its standard input ends. A server prints `listening ADDR`, and `done 1 RECORDS` for each attacked
client. It also ends with its input.
";

struct Args {
    attack: Attack,
    connect: Option<SocketAddr>,
    listen: Option<SocketAddr>,
    smtp: bool,
    certs: PathBuf,
    connections: usize,
    records: usize,
    tls12: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn args() -> Result<Args, Failure> {
    let (mut attack, mut connect, mut listen, mut certs) = (None, None, None, None);
    let (mut smtp, mut connections, mut records, mut tls12) = (false, 20, 20_000, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(name) if attack.is_none() => attack = Some(Attack::named(&name.string()?).ok_or("no such attack")?),
            Long("connect") => connect = Some(parser.value()?.parse()?),
            Long("listen") => listen = Some(parser.value()?.parse()?),
            Long("certs") => certs = Some(parser.value()?.into()),
            Long("connections") => connections = parser.value()?.parse()?,
            Long("records") => records = parser.value()?.parse()?,
            Long("smtp") => smtp = true,
            Long("tls12") => tls12 = true,
            Long("help") => {
                print!("{HELP}");
                std::process::exit(0)
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let attack = attack.ok_or("ATTACK is missing; see --help")?;
    let certs = certs.ok_or("--certs is missing")?;
    Ok(Args { attack, connect, listen, smtp, certs, connections, records, tls12 })
}

fn main() -> ExitCode {
    let run = || {
        let args = args()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(run(Arc::new(args)))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adversary: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Arc<Args>) -> Result<(), Failure> {
    let pki = Pki::load_or_create(&args.certs)?;
    match (args.connect, args.listen) {
        (Some(addr), None) => attack_server(&args, &pki, addr).await,
        (None, Some(addr)) => {
            let serving = service::serve(Arc::clone(&args), &pki, addr).await?;
            wait_for_the_end_of_input().await?;
            serving.abort();
            Ok(())
        }
        _ => Err("one of --connect and --listen is needed".into()),
    }
}

/// The chain of this identity, repeated up to a number of bytes.
fn long_chain(identity: &Identity, bytes: usize) -> Vec<bowline::rustls::pki_types::CertificateDer<'static>> {
    let chain = identity.chain_der();
    let length: usize = chain.iter().map(|cert| cert.len()).sum();
    std::iter::repeat_n(chain, bytes.div_ceil(length)).flatten().collect()
}

async fn attack_server(args: &Arc<Args>, pki: &PkiFiles, addr: SocketAddr) -> Result<(), Failure> {
    let version = if args.tls12 { TlsVersion::V1_2 } else { TlsVersion::V1_3 };
    let mut tls = ClientTls::builder().roots_pem(pki.ca_pem()).min_version(version).max_version(version);
    if let Some(bytes) = args.attack.chain() {
        tls = tls.identity(long_chain(pki.client(), bytes), pki.client().key_der());
    }
    let tls = tls.build()?;
    let mut running = JoinSet::new();
    for _ in 0..args.connections {
        let (args, tls) = (Arc::clone(args), tls.clone());
        running.spawn(async move {
            let mut stream = TcpStream::connect(addr).await?;
            if args.smtp {
                ask_for_tls(&mut stream).await?;
            }
            let mut peer = RawTls::client(stream, &tls, "localhost").await?;
            let sent = args.attack.flood(&mut peer, args.records).await;
            Ok::<_, Failure>((peer, sent))
        });
    }
    let (mut open, mut records) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        // A server may refuse the handshake. It then has ended the attack.
        if let Ok(Ok((peer, sent))) = done {
            records += sent;
            open.push(peer);
        }
    }
    println!("done {} {records}", args.connections);
    wait_for_the_end_of_input().await
}

/// The dialogue of SMTP before TLS.
async fn ask_for_tls(stream: &mut TcpStream) -> Result<(), Failure> {
    reply(stream).await?;
    for command in ["EHLO adversary\r\n", "STARTTLS\r\n"] {
        stream.write_all(command.as_bytes()).await?;
        reply(stream).await?;
    }
    Ok(())
}

/// Reads a reply, which may have several lines.
async fn reply(stream: &mut TcpStream) -> Result<(), Failure> {
    while line(stream).await?.get(3) == Some(&b'-') {}
    Ok(())
}

/// Reads a line, and no byte after it.
async fn line(stream: &mut TcpStream) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        if line.len() > 1_000 {
            return Err("the line is too long".into());
        }
        line.push(stream.read_u8().await?);
    }
    Ok(line)
}

async fn wait_for_the_end_of_input() -> Result<(), Failure> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
