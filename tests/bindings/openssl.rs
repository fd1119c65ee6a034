//! The exporter against OpenSSL, and TLS 1.2 without the extended master secret against Python's ssl.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bowline::testing::shared_pki;
use bowline::{
    ChannelBinding, Policy, SessionError, TcpConnection, TlsConnection, TlsTransport, TlsVersion, Transport,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{SOON, VERSIONS, client, hex, server, session_error};

const LABEL: &str = "EXPERIMENTAL-bowline";

/// Accepts one connection, while a program runs that connects to the given address, and returns what the program
/// printed.
async fn served(
    express: bool,
    program: impl FnOnce(SocketAddr) -> String + Send + 'static,
    look: impl FnOnce(&TlsConnection<TcpConnection>),
) -> String {
    let tls = server(&shared_pki().server(&[]), express);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let printed = tokio::task::spawn_blocking(move || program(addr));
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let tcp = TcpConnection::new(stream, Policy::default()).unwrap();
        let mut ours = TlsConnection::accept(tcp, &tls).await.unwrap();
        look(&ours);
        ours.close().await;
    };
    tokio::time::timeout(SOON, serve).await.unwrap();
    printed.await.unwrap()
}

fn output(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// rule: secure-15
#[tokio::test]
async fn openssl_exports_the_same_bytes() {
    for version in VERSIONS {
        for express in [false, true] {
            let mut ours = [0; 32];
            let printed = served(
                express,
                move |addr| {
                    let version = if version == TlsVersion::V1_3 { "-tls1_3" } else { "-tls1_2" };
                    let args = ["s_client", "-connect", &addr.to_string(), version];
                    output(Command::new("openssl").args(args).args(["-keymatexport", LABEL, "-keymatexportlen", "32"]))
                },
                |server| server.export_keying_material(&mut ours, LABEL.as_bytes(), None).unwrap(),
            );
            let printed = printed.await;
            let expected = format!("Keying material: {}", hex(&ours));
            assert!(printed.contains(&expected), "{version} {express}: {expected} is not in {printed}");
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn openssl_as_the_server_exports_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let files = shared_pki().server(&[]);
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, files.chain_pem()).unwrap();
    std::fs::write(&key, files.key_pem()).unwrap();
    for version in VERSIONS {
        for express in [false, true] {
            // s_server prints the port that it has chosen.
            let mut child = Command::new("openssl")
                .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-cert", chain.to_str().unwrap()])
                .args(["-cert_chain", chain.to_str().unwrap(), "-key", key.to_str().unwrap()])
                .args(["-keymatexport", LABEL, "-keymatexportlen", "32"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let stdout = child.stdout.take().unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok);
            let addr = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
            let tcp = TcpConnection::new(TcpStream::connect(&*addr).await.unwrap(), Policy::default()).unwrap();
            let tls = client(shared_pki(), version, express);
            let connect = TlsConnection::connect(tcp, &tls, "localhost");
            let mut ours = tokio::time::timeout(SOON, connect).await.unwrap().unwrap();
            let mut exported = [0; 32];
            ours.export_keying_material(&mut exported, LABEL.as_bytes(), None).unwrap();
            child.stdin.take().unwrap().write_all(b"Q\n").unwrap();
            ours.close().await;
            let printed: Vec<String> = lines.collect();
            let _ = child.kill();
            let _ = child.wait();
            let expected = format!("Keying material: {}", hex(&exported));
            assert!(printed.iter().any(|line| line.trim() == expected), "{version} {express}: {expected}: {printed:?}");
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn nothing_is_exported_without_the_extended_master_secret() {
    // Python has no name for SSL_OP_NO_EXTENDED_MASTER_SECRET, so the script gets its number (1) as an argument.
    let peer = "import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion.TLSv1_2
context.options |= int(sys.argv[2])
with context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1])))) as tls:
    print(tls.version(), tls.recv(1))
";
    for express in [false, true] {
        for without in [false, true] {
            let printed = served(
                express,
                move |addr| {
                    let option = if without { "1" } else { "0" };
                    output(Command::new("python3").args(["-c", peer, &addr.port().to_string(), option]))
                },
                |server| {
                    let facts = server.tls().unwrap();
                    assert_eq!(facts.channel_binding(ChannelBinding::TlsServerEndPoint).unwrap().len(), 32);
                    let binding = facts.channel_binding(ChannelBinding::TlsExporter);
                    let exported = server.export_keying_material(&mut [0; 32], LABEL.as_bytes(), None);
                    match without {
                        true => {
                            assert_eq!(session_error(binding), SessionError::NoExtendedMasterSecret);
                            assert_eq!(session_error(exported), SessionError::NoExtendedMasterSecret);
                        }
                        false => assert!(binding.is_ok() && exported.is_ok()),
                    }
                },
            );
            assert_eq!(printed.await.trim(), "TLSv1.2 b''");
        }
    }
}
