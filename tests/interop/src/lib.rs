//! The command line, the script and the report, which all programs of the matrix share. `README.md` describes them.

pub mod peer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One step of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this many bytes of the pattern.
    Send(usize),
    /// Write this many bytes, each with a call of its own.
    Tiny(usize),
    /// Read this many bytes.
    Recv(usize),
    /// Read to the end of the peer's half.
    End,
    /// End our half: close_notify.
    Half,
    /// End in order.
    Close,
    /// FIN without close_notify.
    Fin,
    /// RST.
    Abort,
    /// KeyUpdate, with a request that the peer updates too.
    Update,
}

/// The command line.
#[derive(Debug, Clone)]
pub struct Options {
    pub server: bool,
    pub port: u16,
    pub express: bool,
    /// TLS 1.3, otherwise 1.2.
    pub tls13: bool,
    pub cert: String,
    pub key: String,
    pub ca: String,
    /// A server asks for a certificate; a client shows one.
    pub client_auth: bool,
    pub alpn: Vec<String>,
    pub starttls: bool,
    /// The number of connections, one after the other.
    pub connections: usize,
    /// Use X25519MLKEM768 and no other group.
    pub post_quantum: bool,
    pub script: Vec<Step>,
    /// The address of the server.
    pub host: IpAddr,
    /// No TLS.
    pub plain: bool,
    /// Keep-alive: an idle time and an interval of one second, and two probes.
    pub keepalive: bool,
    pub user_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub close_timeout: Option<Duration>,
}

impl Options {
    /// Reads the command line of the process: `client|server PORT NAME=VALUE...`.
    pub fn parse() -> Self {
        let mut words = std::env::args().skip(1);
        let role = words.next().expect("client or server");
        let port = words.next().and_then(|word| word.parse().ok()).expect("a port");
        let mut options = Self {
            server: role == "server",
            port,
            express: false,
            tls13: true,
            cert: String::new(),
            key: String::new(),
            ca: String::new(),
            client_auth: false,
            alpn: Vec::new(),
            starttls: false,
            connections: 1,
            post_quantum: false,
            script: Vec::new(),
            host: Ipv4Addr::LOCALHOST.into(),
            plain: false,
            keepalive: false,
            user_timeout: None,
            idle_timeout: None,
            close_timeout: None,
        };
        for word in words {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            match name {
                "engine" => options.express = value == "express",
                "version" => options.tls13 = value == "1.3",
                "cert" => options.cert = value.into(),
                "key" => options.key = value.into(),
                "ca" => options.ca = value.into(),
                "auth" => options.client_auth = value == "1",
                "alpn" => options.alpn = value.split(',').map(str::to_owned).collect(),
                "starttls" => options.starttls = value == "1",
                "conns" => options.connections = value.parse().expect("a number"),
                "pq" => options.post_quantum = value == "1",
                "script" => options.script = value.split(' ').map(step).collect(),
                "host" => options.host = value.parse().expect("an address"),
                "plain" => options.plain = value == "1",
                "keepalive" => options.keepalive = value == "1",
                "user_timeout" => options.user_timeout = Some(milliseconds(value)),
                "idle_timeout" => options.idle_timeout = Some(milliseconds(value)),
                "close_timeout" => options.close_timeout = Some(milliseconds(value)),
                // The other options are for other peers.
                _ => {}
            }
        }
        options
    }
}

fn milliseconds(value: &str) -> Duration {
    Duration::from_millis(value.parse().expect("milliseconds"))
}

fn step(word: &str) -> Step {
    let (name, n) = word.split_once(':').unwrap_or((word, "0"));
    let n = n.parse().expect("a number");
    match name {
        "send" => Step::Send(n),
        "tiny" => Step::Tiny(n),
        "recv" => Step::Recv(n),
        "end" => Step::End,
        "half" => Step::Half,
        "close" => Step::Close,
        "fin" => Step::Fin,
        "abort" => Step::Abort,
        "update" => Step::Update,
        other => panic!("no step is called {other}"),
    }
}

/// The bytes that `send` writes.
pub fn pattern(n: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(n).collect()
}

/// The report: one line of JSON.
#[derive(Debug, Default)]
pub struct Report {
    pub fields: Map<String, Value>,
    received: u64,
    crc: u32,
}

impl Report {
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.into(), value.into());
    }

    /// Counts bytes that were received.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        let mut crc = !self.crc;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
        }
        self.crc = !crc;
    }

    pub fn print(mut self) {
        let (received, crc) = (self.received, self.crc);
        self.set("received", received);
        self.set("crc", crc);
        println!("{}", Value::Object(self.fields));
    }
}

/// The TCP connections of a run, one after the other.
pub struct Sockets(Option<TcpListener>, SocketAddr);

impl Sockets {
    /// A server prints its port.
    pub async fn open(options: &Options) -> Self {
        let addr = SocketAddr::from((options.host, options.port));
        if !options.server {
            return Self(None, addr);
        }
        let listener = TcpListener::bind(addr).await.expect("a free port");
        println!("listening {}", listener.local_addr().expect("an address").port());
        Self(Some(listener), addr)
    }

    pub async fn next(&self) -> TcpStream {
        match &self.0 {
            Some(listener) => listener.accept().await.expect("a connection").0,
            None => TcpStream::connect(self.1).await.expect("the server listens"),
        }
    }
}

/// The line dialogue before TLS.
pub async fn dialogue(options: &Options, io: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    if options.server {
        io.write_all(b"220 ready\r\n").await.expect("the greeting leaves");
        assert_eq!(line(io).await, "STARTTLS\r\n");
        io.write_all(b"220 go ahead\r\n").await.expect("the answer leaves");
    } else {
        assert_eq!(line(io).await, "220 ready\r\n");
        io.write_all(b"STARTTLS\r\n").await.expect("the command leaves");
        assert_eq!(line(io).await, "220 go ahead\r\n");
    }
}

async fn line(io: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(io.read_u8().await.expect("a line").into());
    }
    line
}
