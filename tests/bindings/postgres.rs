//! SCRAM-SHA-256-PLUS with PostgreSQL on the other side: its server, and its client.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bowline::testing::pki::{KeyKind, Profile};
use bowline::testing::shared_pki;
use bowline::{
    ChannelBinding, Policy, ServerTls, StartTls, TcpConnection, TlsTransport, TlsVersion, Transport,
    UpgradableConnection, escaped,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::postgres_server::{Postgres, programs};
use crate::{SOON, VERSIONS, client, scram, server};

const PASSWORD: &str = "correct horse";
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

type Connection = UpgradableConnection<TcpConnection>;

async fn send(connection: &mut Connection, kind: u8, body: &[u8]) {
    let mut message = if kind == 0 { Vec::new() } else { vec![kind] };
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    connection.write_all(&message).await.unwrap();
}

async fn receive_body(connection: &mut Connection) -> Vec<u8> {
    let length = connection.read_u32().await.unwrap() as usize - 4;
    assert!(length < 100_000);
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    body
}

async fn receive(connection: &mut Connection) -> (u8, Vec<u8>) {
    let kind = connection.read_u8().await.unwrap();
    (kind, receive_body(connection).await)
}

/// The content of an authentication message of this kind; the error of the server if it sends one.
async fn authentication(connection: &mut Connection, kind: u32) -> Result<String, String> {
    let (message, body) = receive(connection).await;
    match (message, body.split_first_chunk::<4>()) {
        (b'R', Some((of, rest))) if u32::from_be_bytes(*of) == kind => Ok(String::from_utf8(rest.to_vec()).unwrap()),
        _ => Err(escaped(&body).to_string()),
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Logs in to a server by its channel binding, which `change` may change, and asks it for its version of TLS.
async fn log_in(
    addr: SocketAddr,
    version: TlsVersion,
    express: bool,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<String, String> {
    let tcp = TcpConnection::new(TcpStream::connect(addr).await.unwrap(), Policy::default()).unwrap();
    let mut connection = UpgradableConnection::new(tcp);
    connection.write_all(&TLS_REQUEST).await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'S');
    let tls = client(shared_pki(), version, express);
    connection.start_tls(StartTls::client(&tls, "localhost")).await.unwrap();
    let mut binding = connection.tls().unwrap().channel_binding(ChannelBinding::TlsServerEndPoint).unwrap();
    change(&mut binding);
    let mut scram = scram::Client::new(PASSWORD, binding);

    send(&mut connection, 0, b"\0\x03\0\0user\0postgres\0database\0postgres\0\0").await;
    let mechanisms = authentication(&mut connection, 10).await?;
    assert!(mechanisms.split('\0').any(|name| name == "SCRAM-SHA-256-PLUS"), "{mechanisms:?}");
    let first = scram.first();
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    let initial = [b"SCRAM-SHA-256-PLUS\0", &length[..], first.as_bytes()].concat();
    send(&mut connection, b'p', &initial).await;
    let server_first = authentication(&mut connection, 11).await?;
    send(&mut connection, b'p', scram.last(&server_first).as_bytes()).await;
    let server_last = authentication(&mut connection, 12).await?;
    assert!(scram.accepts(&server_last));
    authentication(&mut connection, 0).await?;

    send(&mut connection, b'Q', b"SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()\0").await;
    let row = loop {
        if let (b'D', row) = receive(&mut connection).await {
            break row;
        }
    };
    send(&mut connection, b'X', b"").await;
    connection.close().await;
    // The row begins with the number of columns and the length of the first one: six bytes.
    Ok(text(&row[6..]).to_owned())
}

/// rule: secure-15
#[tokio::test]
async fn our_client_logs_in_to_postgresql_by_its_channel_binding() {
    let Some(bin) = programs() else {
        return eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    };
    let pki = shared_pki();
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let postgres = Postgres::start(&bin, &pki.issue(Profile::server(&[]).key(kind)), PASSWORD).await;
        for version in VERSIONS {
            for express in [false, true] {
                let log_in = |change: fn(&mut Vec<u8>)| timeout(SOON, log_in(postgres.addr, version, express, change));
                let told = log_in(|_| {}).await.unwrap();
                let expected = if version == TlsVersion::V1_3 { "TLSv1.3" } else { "TLSv1.2" };
                assert_eq!(told.as_deref(), Ok(expected), "{}", postgres.log());
                let refused = log_in(|binding| binding[0] ^= 1).await.unwrap().unwrap_err();
                assert!(refused.contains("channel binding check failed"), "{refused}");
            }
        }
    }
}

/// The server's side of one login, for psql. Returns whether the client had our channel binding.
async fn admit(tcp: TcpConnection, tls: &ServerTls, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut connection = UpgradableConnection::new(tcp);
    let mut request = [0; 8];
    connection.read_exact(&mut request).await.unwrap();
    assert_eq!(request, TLS_REQUEST);
    connection.write_all(b"S").await.unwrap();
    connection.start_tls(StartTls::server(tls)).await.unwrap();
    let mut binding = connection.tls().unwrap().channel_binding(ChannelBinding::TlsServerEndPoint).unwrap();
    change(&mut binding);
    let mut scram = scram::Server::new(PASSWORD, binding);

    let _startup = receive_body(&mut connection).await;
    send(&mut connection, b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").await;
    let (_, initial) = receive(&mut connection).await;
    let initial = initial.strip_prefix(b"SCRAM-SHA-256-PLUS\0").expect("psql chooses the mechanism with a binding");
    let first = scram.first(text(&initial[4..]));
    send(&mut connection, b'R', &[b"\0\0\0\x0b", first.as_bytes()].concat()).await;
    let (_, last) = receive(&mut connection).await;
    let Some(last) = scram.last(text(&last)) else {
        send(&mut connection, b'E', b"SFATAL\0VFATAL\0C28000\0Manother channel binding\0\0").await;
        connection.close().await;
        return false;
    };
    send(&mut connection, b'R', &[b"\0\0\0\x0c", last.as_bytes()].concat()).await;
    send(&mut connection, b'R', &[0; 4]).await;
    send(&mut connection, b'Z', b"I").await;
    while let (b'Q', _) = receive(&mut connection).await {
        send(&mut connection, b'C', b"BEGIN\0").await;
        send(&mut connection, b'Z', b"T").await;
    }
    connection.close().await;
    true
}

/// rule: secure-15
#[tokio::test]
async fn psql_logs_in_to_our_server_and_requires_channel_binding() {
    if Command::new("psql").arg("--version").stdout(Stdio::null()).status().is_err() {
        return eprintln!("skipped: psql is not installed (Debian: postgresql-client)");
    }
    let identity = shared_pki().server(&[]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, shared_pki().ca_pem()).unwrap();
    for version in ["TLSv1.2", "TLSv1.3"] {
        for express in [false, true] {
            for is_ours in [true, false] {
                let tls = server(&identity, express);
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let address = format!(
                    "host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres gssencmode=disable \
                     sslmode=verify-full sslrootcert={} channel_binding=require ssl_max_protocol_version={version}",
                    ca.display()
                );
                let mut psql = Command::new("psql");
                psql.args(["--no-psqlrc", "--no-password", "-c", "BEGIN", &address]).env("PGPASSWORD", PASSWORD);
                let psql = tokio::task::spawn_blocking(move || psql.stdin(Stdio::null()).output().unwrap());
                let serve = async {
                    let (stream, _) = listener.accept().await.unwrap();
                    let tcp = TcpConnection::new(stream, Policy::default()).unwrap();
                    admit(tcp, &tls, |binding| binding[0] ^= u8::from(!is_ours)).await
                };
                assert_eq!(timeout(SOON, serve).await.unwrap(), is_ours);
                let out = psql.await.unwrap();
                let said = text(&out.stdout).to_owned() + text(&out.stderr);
                let expected = if is_ours { "BEGIN" } else { "another channel binding" };
                assert!(said.contains(expected) && out.status.success() == is_ours, "{said}");
            }
        }
    }
}
