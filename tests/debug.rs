//! `{:?}` never shows data or a key, not even those of another connection.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bowline::core::buffer::Buffer;
use bowline::core::inbox::Inbox;
use bowline::core::outbox::{Due, Outbox};
use bowline::protocol::{CallbackResult, Conn, Framed, MessageConn, MessageProtocol, Protocol, Runner};
use bowline::rustls::pki_types::PrivateKeyDer;
use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::{ClientConfig, KeyLog, ServerConfig};
use bowline::testing::peer::{Cut, CutEnd, Meddler, RawTcp, RawTls};
use bowline::testing::pki::{Pki, PkiFiles, Profile};
use bowline::testing::{Kind, Recorder, pair, raw_tcp_pair, shared_pki, tcp_pair};
use bowline::{
    ClientEndpoint, ClientTls, Error, Leftover, Listener, OwnedReadHalf, OwnedWriteHalf, Policy, Reason,
    ServerEndpoint, ServerTls, Split, StartTls, TlsConnection, TlsTransport, TlsVersion, Transport,
    UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::LinesCodec;

const PLAINTEXT: &[u8] = b"Attack at dawn, by the northern gate! Tell nobody of it.";

/// The bytes that must not appear.
struct Secrets(Mutex<Vec<Vec<u8>>>);

impl Secrets {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![PLAINTEXT.to_vec()])))
    }

    fn add(&self, secret: &[u8]) {
        self.0.lock().unwrap().push(secret.to_vec());
    }

    /// The private part of a P-256 key in PKCS#8. The public part, which follows, is also in the certificate.
    fn add_key(&self, pem: &str) {
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        self.add(&base64.as_bytes()[48..88]);
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        self.add(&key.secret_der()[36..68]);
    }

    /// Formats a value, and searches for each piece of eight secret bytes: as text, in hexadecimal, and as a list of
    /// numbers.
    #[track_caller]
    fn check(&self, value: &dyn Debug) {
        let (line, pretty) = (format!("{value:?}"), format!("{value:#?}"));
        for text in [&line, &pretty] {
            let dense: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let lower = dense.to_ascii_lowercase();
            for secret in self.0.lock().unwrap().iter() {
                for piece in secret.chunks_exact(8) {
                    let list = |form: fn(&u8) -> String| piece.iter().map(form).collect::<Vec<_>>().join(",");
                    let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
                    let words: String = String::from_utf8_lossy(piece).split_whitespace().collect();
                    let forms = [words, list(u8::to_string), list(|byte| format!("0x{byte:02x}"))];
                    let found = forms.iter().find(|form| dense.contains(*form));
                    assert!(found.is_none() && !lower.contains(&hex), "{found:?} of {secret:02x?} is seen in {line}");
                }
            }
        }
    }
}

impl KeyLog for Secrets {
    fn log(&self, _: &str, client_random: &[u8], secret: &[u8]) {
        let _ = client_random;
        self.add(secret);
    }
}

impl Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Both roles, with each engine and each version. The keys of their sessions are recorded.
fn configurations(secrets: &Arc<Secrets>) -> Vec<(ClientTls, ServerTls)> {
    let mut all = Vec::new();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for express in [false, true] {
            let client = shared_pki().client_tls_builder().min_version(version).max_version(version).build().unwrap();
            let mut client = ClientConfig::clone(&client.config());
            let mut server = ServerConfig::clone(&shared_pki().server_tls().config());
            (client.key_log, server.key_log) = (Arc::clone(secrets) as _, Arc::clone(secrets) as _);
            let (client, server) = (ClientTls::from(Arc::new(client)), ServerTls::from(Arc::new(server)));
            all.push(match express {
                true => (client.express().unwrap(), server.express().unwrap()),
                false => (client, server),
            });
        }
    }
    all
}

/// Sends the plaintext to `b`, which reads a part of it: the rest stays in the memory of both.
async fn converse(a: &mut impl Transport, b: &mut impl Transport) {
    a.write_all(PLAINTEXT).await.unwrap();
    a.flush().await.unwrap();
    b.read_exact(&mut [0; 5]).await.unwrap();
    b.fill_buf().await.unwrap();
    // The bytes stay in the memory of `b`, because its cork is not released.
    let mut corked = b.cork();
    let _ = corked.write(PLAINTEXT).await.unwrap();
    std::mem::forget(corked);
}

/// rule: tcp-11
#[tokio::test]
async fn no_transport_shows_what_passes_through_it() {
    let secrets = Secrets::new();
    for kind in Kind::ALL {
        let (mut a, mut b) = pair(kind).await.unwrap();
        converse(&mut a, &mut b).await;
        for side in [&a, &b] {
            secrets.check(&side.status());
            secrets.check(&side.control());
            secrets.check(&side.control().traffic());
        }
        let (left, right) = tokio::join!(a.close(), b.close());
        secrets.check(&left);
        secrets.check(&right);
    }
}

/// rule: tcp-11
#[tokio::test]
async fn no_session_shows_its_keys_and_no_half_its_data() {
    let secrets = Secrets::new();
    for (client, server) in configurations(&secrets) {
        let (a, b) = tcp_pair().await.unwrap();
        let (mut a, mut b) = (UpgradableConnection::new(a), UpgradableConnection::new(b));
        secrets.check(&a);
        let accepting = b.start_tls(StartTls::server(&server).leftover(Leftover::Feed));
        let (x, y) = tokio::join!(a.start_tls(StartTls::client(&client, "localhost")), accepting);
        x.unwrap();
        y.unwrap();
        assert!(secrets.0.lock().unwrap().len() > 1, "the keys are known");
        converse(&mut a, &mut b).await;
        secrets.check(&(&a, &b, &client, &server));
        secrets.check(&a.tls().unwrap());
        let (read, write) = b.into_split();
        secrets.check(&(&read, &write));
        a.abort();
        secrets.check(&(a.status(), read.status(), write.status()));

        let (a, b) = tcp_pair().await.unwrap();
        let connecting = TlsConnection::connect(a, &client, "localhost");
        let (a, b) = tokio::join!(connecting, TlsConnection::accept(b, &server));
        let (mut a, mut b) = (a.unwrap(), b.unwrap());
        converse(&mut a, &mut b).await;
        secrets.check(&(&a, &b));
        let (read, write) = b.into_split();
        secrets.check(&(&read, &write));

        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let (raw, served) = tokio::join!(RawTls::client(ours, &client, "localhost"), async {
            let tcp = bowline::TcpConnection::new(theirs, Policy::default()).unwrap();
            TlsConnection::accept(tcp, &server).await.unwrap()
        });
        secrets.check(&(raw.unwrap(), served));
    }
}

/// rule: tcp-11
#[tokio::test]
async fn the_doors_to_a_connection_show_neither_data_nor_keys() {
    let secrets = Secrets::new();
    let pki = Pki::new();
    let me = pki.server(&[]);
    secrets.add_key(me.key_pem());
    let dir = tempfile::tempdir().unwrap();
    me.write_to(&dir).unwrap();
    std::fs::write(dir.path().join("ca.pem"), pki.ca_pem()).unwrap();
    let at = dir.path().display();
    let files: PkiFiles = Pki::load_or_create(dir.path().join("made")).unwrap();
    secrets.add_key(&std::fs::read_to_string(dir.path().join("made/server.key")).unwrap());
    secrets.check(&(&pki, &me, &files, Profile::server(&[])));

    let servers = [
        ServerTls::builder().identity_pem(me.chain_pem(), me.key_pem()),
        ServerTls::builder().identity(me.chain_der(), me.key_der()),
        ServerTls::builder().identity_pem_files(dir.path().join("server.pem"), dir.path().join("server.key")),
    ];
    for builder in servers {
        secrets.check(&builder);
        secrets.check(&builder.build().unwrap());
    }
    let client = pki.client_tls_builder().identity_pem(me.chain_pem(), me.key_pem());
    secrets.check(&client);
    secrets.check(&client.build().unwrap());
    let mistaken = ServerTls::builder().identity_pem(me.key_pem(), me.key_pem()).build().unwrap_err();
    secrets.check(&mistaken);
    let mistaken =
        ServerTls::builder().identity_pem(me.chain_pem(), me.key_pem().repeat(2).replace("\nM", "\n")).build();
    secrets.check(&mistaken.unwrap_err());

    let server: ServerEndpoint = format!("tls:127.0.0.1:0:cert={at}/server.pem:key={at}/server.key").parse().unwrap();
    let listener = server.listen(Policy::default()).await.unwrap();
    let client: ClientEndpoint = format!("tls:{}:ca={at}/ca.pem", listener.local_addr()).parse().unwrap();
    let connector = client.connector(Policy::default()).unwrap();
    secrets.check(&(&server, &listener, listener.status(), &client, &connector));
    let accepting = async {
        let incoming = listener.accept().await.unwrap();
        secrets.check(&incoming);
        incoming.begin().await.unwrap()
    };
    let (ours, mut theirs) = tokio::join!(connector.connect(), accepting);
    let mut ours = ours.unwrap();
    converse(&mut ours, &mut theirs).await;
    secrets.check(&(&ours, &theirs));

    let plain = Listener::bind("127.0.0.1:0").await.unwrap();
    let mut raw = RawTcp::connect(plain.local_addr().as_inet().unwrap()).await.unwrap();
    let incoming = plain.accept().await.unwrap();
    secrets.check(&(&plain, &incoming));
    let mut peer = incoming.into_tcp();
    peer.write_all(PLAINTEXT).await.unwrap();
    let _ = peer.close_write().await;
    raw.observe().await;
    secrets.check(&(&raw, &peer));
}

struct Lines;

impl MessageProtocol for Lines {
    type Codec = LinesCodec;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new()
    }

    fn message_received(&mut self, _: &mut MessageConn<'_, LinesCodec>, _: String) -> CallbackResult {
        Ok(())
    }
}

/// Reads nothing, and writes.
struct Hoarder;

impl Protocol for Hoarder {
    fn data_received(&mut self, transport: &mut dyn Conn, _: &[u8]) -> CallbackResult<usize> {
        transport.write(PLAINTEXT);
        Ok(0)
    }
}

/// rule: tcp-11
#[tokio::test]
async fn queues_and_protocols_show_lengths_only() {
    let secrets = Secrets::new();
    // `Debug` must not show the spare capacity of a queue either, which may hold bytes of an earlier use.
    let mut buffer = Buffer::default();
    buffer.push(&PLAINTEXT.repeat(40));
    secrets.check(&buffer);
    buffer.consume(PLAINTEXT.len() * 40);
    secrets.check(&buffer);
    buffer.push(b"x");
    secrets.check(&buffer);
    let mut inbox = Inbox::default();
    inbox.push(PLAINTEXT);
    secrets.check(&inbox);
    let mut outbox = Outbox::<&str>::default();
    outbox.write(PLAINTEXT);
    secrets.check(&outbox);
    secrets.check(&Due::Bytes(PLAINTEXT));

    let (mut framed, mut recorder) = (Framed::new(Lines), Recorder::new());
    framed.data_received(&mut recorder, PLAINTEXT).unwrap();
    bowline::protocol::Conn::write(&mut recorder, PLAINTEXT);
    secrets.check(&(&framed, &recorder));

    let (a, b) = tcp_pair().await.unwrap();
    let runner = Runner::new(Hoarder, UpgradableConnection::new(a));
    let handle = runner.handle();
    let running = tokio::spawn(runner.run());
    let mut b = b;
    b.write_all(PLAINTEXT).await.unwrap();
    b.read_exact(&mut [0; 3]).await.unwrap();
    handle.write(PLAINTEXT);
    secrets.check(&(&handle, handle.reason()));
    b.abort();
    secrets.check(&running.await.unwrap());

    let (near, far) = tokio::io::duplex(1 << 10);
    let mut far = far;
    far.write_all(PLAINTEXT).await.unwrap();
    secrets.check(&Cut::after(near, 7, CutEnd::Fin));
    let meddler = Meddler::to("127.0.0.1:9".parse().unwrap()).await.unwrap();
    meddler.to_server().inject(0, PLAINTEXT);
    secrets.check(&(&meddler, meddler.to_server()));
}

/// rule: tcp-11
#[tokio::test]
async fn errors_show_no_data() {
    let secrets = Secrets::new();
    let (mut a, mut b) = pair(Kind::Upgraded).await.unwrap();
    converse(&mut a, &mut b).await;
    b.abort();
    let error = loop {
        if let Err(error) = a.read(&mut [0; 16]).await {
            break error;
        }
    };
    secrets.check(&error);
    secrets.check(&Error::from(error));
    let (a, mut b) = tcp_pair().await.unwrap();
    let mut a = UpgradableConnection::new(a);
    b.write_all(PLAINTEXT).await.unwrap();
    a.fill_buf().await.unwrap();
    let refused = a.start_tls(StartTls::client(&shared_pki().client_tls(), "localhost")).await.unwrap_err();
    secrets.check(&refused);
    secrets.check(&Reason::from(refused));
}

/// Types with `Debug` that hold only numbers, names, places, states and errors, or data from a test itself (`Call`), or
/// the words of a refusal, which it quotes (`PeerWords`), or a client's words, which it escapes (`ClientHello`, tested
/// beside it), or keys that it does not show (`TicketKey`, tested beside it), or sessions that it does not show
/// (`ClientSessions`, which prints only its limits). All other types are formatted above.
const PLAIN: &str = "
    AcceptFailure Chosen ClientAuth ClientHello HeaderGate ConfigChoice Connect HttpConnection HttpConnector IdentityInfo Io MakeTls
    Metrics PostgresStream Service Tracing
    Close CloseWrite Corked Duet FileProducer Pipe RelayLeg Runner Server Session StartTls WriteSequence
    Address AlternativeName Answers Client Dialogue DialogueError LineCommand PeerWords UnknownDialogue AttemptFailure Backoff BindError Call CloseReport ConfigError ConfigProblem ConfigWarning
    Handover Offer OpenOffer PrivateSocket SocketFile FileId EndpointParts ProxyText ReloadEvents Reloaded Reloader ReloaderBuilder RequestBody
    ClientSessions OfConfiguration SessionsOf
    TicketKey TicketKeySet TicketKeys TicketKeyError WrapKey TicketRotation RotationEvent RotationError
    ConnectAttempt ConnectError Connector Discard DrainGroup DrainReport CutEnd EndpointError EndpointIncoming
    Decoded NetworkError ProxyError ProxyHeader ProxyHeaderError ProxyProtocol ProxyTls Tlv Tlvs TrustedNetworks
    LayerReport GaveUp HandshakeFailed Leg ListenerBuilder ListenerStatus NotTls LegEnd MessageConn Panicked PeerCounts Producer
    Reconnector RecvHalf Refusal RelayReport Reply ReuniteError SendHalf SessionError Slab OutcomeCounts TlsError Upgrade UpgradeError";

/// rule: tcp-11
#[test]
fn each_type_that_has_debug_is_formatted_here() {
    let ours: BTreeSet<&str> = include_str!("debug.rs").split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    assert!(PLAIN.split_whitespace().all(|name| ours.contains(name)));
    // These types are parts of the types that are formatted above.
    let reached = ["Identity", "Direction", "TcpReadHalf", "TcpWriteHalf", "TlsReadHalf", "TlsWriteHalf", "Stream"];
    let more = [
        "Busy",
        "Linger",
        "Lingering",
        "TlsListener",
        "TlsListenerBuilder",
        "Control",
        "Handle",
        "SessionFacts",
        "Status",
        "Traffic",
        "Incoming",
        "EndpointListener",
        "EndpointBegun",
        // This is a connection of a Unix socket that was not started.
        "Plain",
        "ClientHelloReader",
        "Connections",
        "Facts",
        "Fresh",
    ];
    let halves =
        ["UpgradableReadHalf", "UpgradableWriteHalf", "ClientTlsBuilder", "ServerTlsBuilder", "EndpointConnector"];
    let known: BTreeSet<&str> = ours.into_iter().chain(reached).chain(more).chain(halves).collect();
    let mut missing = BTreeSet::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |text| {
        missing.extend(debug_types(text).into_iter().filter(|name| !known.contains(name.as_str())));
    });
    assert!(missing.is_empty(), "format these, or list them as plain: {missing:?}");
}

/// The public types of a file that have `Debug`, derived or written.
fn debug_types(text: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let declared =
        |line: &str| ["pub struct ", "pub enum "].iter().find_map(|begin| line.strip_prefix(begin)).map(name);
    let (mut found, mut derives) = (Vec::new(), false);
    for line in text.lines() {
        // Types that are `Copy` are left out, because they own no bytes.
        derives |= line.starts_with("#[derive(") && line.contains("Debug") && !line.contains("Copy");
        found.extend(declared(line).filter(|_| derives));
        derives &= line.starts_with('#') || line.starts_with("//");
        let written = line.strip_prefix("impl").and_then(|_| line.split_once("fmt::Debug for "));
        let written = written.map(|(_, rest)| name(rest)).filter(|name| !name.is_empty() && name != "dyn");
        found.extend(written.filter(|written| text.lines().any(|line| declared(line).as_ref() == Some(written))));
    }
    found
}

fn visit(path: &Path, each: &mut dyn FnMut(&str)) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            each(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
