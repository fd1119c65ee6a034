//! The peer BoringSSL, with blocking sockets.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use boring::ssl::{
    AlpnError, ErrorCode, ShutdownResult, Ssl, SslContext, SslFiletype, SslMethod, SslSession, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion, select_next_proto,
};
use bowline_interop::{Options, Report, Step, pattern};

type Kept = Arc<Mutex<Option<SslSession>>>;

fn context(options: &Options, kept: &Kept) -> std::result::Result<SslContext, boring::error::ErrorStack> {
    let mut builder =
        SslContext::builder(if options.server { SslMethod::tls_server() } else { SslMethod::tls_client() })?;
    let version = Some(if options.tls13 { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 });
    builder.set_min_proto_version(version)?;
    builder.set_max_proto_version(version)?;
    builder.set_ca_file(&options.ca)?;
    if options.server || options.client_auth {
        builder.set_certificate_chain_file(&options.cert)?;
        builder.set_private_key_file(&options.key, SslFiletype::PEM)?;
    }
    if !options.server {
        builder.set_verify(SslVerifyMode::PEER);
    } else if options.client_auth {
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    builder.set_session_id_context(b"interop")?;
    builder.set_session_cache_mode(SslSessionCacheMode::BOTH);
    let kept = Arc::clone(kept);
    builder.set_new_session_callback(move |_, session| *kept.lock().expect("nobody panics") = Some(session));
    if options.post_quantum {
        builder.set_curves_list("X25519MLKEM768")?;
    }
    if let Some(name) = options.alpn.first() {
        let wire: Vec<u8> = [&[name.len() as u8], name.as_bytes()].concat();
        if options.server {
            builder.set_alpn_select_callback(move |_, offered| match select_next_proto(&wire, offered) {
                // The choice is borrowed from the client's list, which lives long enough.
                Some(_) => Ok(&offered[1..=usize::from(offered[0])]),
                None => Err(AlpnError::ALERT_FATAL),
            });
        } else {
            builder.set_alpn_protos(&wire)?;
        }
    }
    Ok(builder.build())
}

fn line(tcp: &mut TcpStream, expected: &str) {
    let mut got = vec![0; expected.len()];
    tcp.read_exact(&mut got).expect("a line");
    assert_eq!(got, expected.as_bytes());
}

fn dialogue(options: &Options, tcp: &mut TcpStream) {
    if options.server {
        tcp.write_all(b"220 ready\r\n").expect("the greeting leaves");
        line(tcp, "STARTTLS\r\n");
        tcp.write_all(b"220 go ahead\r\n").expect("the answer leaves");
    } else {
        line(tcp, "220 ready\r\n");
        tcp.write_all(b"STARTTLS\r\n").expect("the command leaves");
        line(tcp, "220 go ahead\r\n");
    }
}

fn main() {
    let options = Options::parse();
    let kept = Kept::default();
    let context = context(&options, &kept).expect("a configuration");
    let listener = options.server.then(|| {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).expect("a free port");
        println!("listening {}", listener.local_addr().expect("an address").port());
        listener
    });
    for _ in 0..options.connections {
        let mut report = Report::default();
        let mut tcp = match &listener {
            Some(listener) => listener.accept().expect("a connection").0,
            None => TcpStream::connect(("127.0.0.1", options.port)).expect("the server listens"),
        };
        tcp.set_nodelay(true).expect("a socket");
        if options.starttls {
            dialogue(&options, &mut tcp);
        }
        if let Err((end, error)) = run(&options, &context, &kept, tcp, &mut report) {
            report.set("end", end);
            report.set("error", error);
        }
        report.print();
    }
}

type Failed = (&'static str, String);

fn run(
    options: &Options,
    context: &SslContext,
    kept: &Kept,
    tcp: TcpStream,
    report: &mut Report,
) -> std::result::Result<(), Failed> {
    let other = |error: &dyn std::fmt::Display| ("failed", error.to_string());
    let mut ssl = Ssl::new(context).map_err(|error| other(&error))?;
    let opened = if options.server {
        ssl.accept(tcp)
    } else {
        ssl.set_hostname("localhost").map_err(|error| other(&error))?;
        ssl.param_mut().set_host("localhost").map_err(|error| other(&error))?;
        if let Some(session) = &*kept.lock().expect("nobody panics") {
            // SAFETY: the session was made with this context.
            unsafe { ssl.set_session(session) }.map_err(|error| other(&error))?;
        }
        ssl.connect(tcp)
    };
    let mut stream = opened.map_err(|error| other(&error))?;
    let ssl = stream.ssl();
    report.set("version", ssl.version_str().trim_start_matches("TLSv"));
    report.set("group", ssl.curve_name());
    report.set("alpn", ssl.selected_alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
    report.set("resumed", ssl.session_reused());
    let peer = ssl.peer_certificate().and_then(|certificate| certificate.to_der().ok());
    report.set("peer", peer.and_then(|der| bowline::config::subject(&der.into())));
    play(options, &mut stream, report).map_err(|error| {
        let text = format!("{error} {error:?}");
        let end = if error.kind() == ErrorKind::ConnectionReset || text.contains("ConnectionReset") {
            "reset"
        } else if error.kind() == ErrorKind::UnexpectedEof {
            "truncated"
        } else {
            "failed"
        };
        (end, text)
    })
}

/// Reads, and reports an end without close_notify. The stream's own `Read` reports it as a clean end.
fn read(stream: &mut SslStream<TcpStream>, buffer: &mut [u8]) -> Result<usize> {
    match stream.ssl_read(buffer) {
        Ok(n) => Ok(n),
        Err(error) if error.code() == ErrorCode::ZERO_RETURN => Ok(0),
        Err(error) if error.code() == ErrorCode::SYSCALL && error.io_error().is_none() => {
            Err(ErrorKind::UnexpectedEof.into())
        }
        Err(error) => Err(error.into_io_error().unwrap_or_else(Error::other)),
    }
}

fn play(options: &Options, stream: &mut SslStream<TcpStream>, report: &mut Report) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for step in &options.script {
        match *step {
            Step::Send(n) => stream.write_all(&pattern(n))?,
            Step::Tiny(n) => {
                for _ in 0..n {
                    stream.write_all(b"x")?;
                }
            }
            Step::Recv(mut left) => {
                while left > 0 {
                    let most = left.min(buffer.len());
                    let n = read(stream, &mut buffer[..most])?;
                    report.receive(&buffer[..n]);
                    if n == 0 {
                        return Err(Error::other("a clean end, too early"));
                    }
                    left -= n;
                }
            }
            Step::End => loop {
                let n = read(stream, &mut buffer)?;
                report.receive(&buffer[..n]);
                if n == 0 {
                    report.set("end", "clean");
                    break;
                }
            },
            Step::Half => {
                stream.shutdown().map_err(Error::other)?;
                stream.get_ref().shutdown(Shutdown::Write)?;
            }
            // The first call sends close_notify. The second one waits for the close_notify of the peer.
            Step::Close => {
                if stream.shutdown().map_err(Error::other)? == ShutdownResult::Sent {
                    stream.shutdown().map_err(Error::other)?;
                }
            }
            Step::Fin => stream.get_ref().shutdown(Shutdown::Write)?,
            Step::Abort => {
                socket2::SockRef::from(stream.get_ref()).set_linger(Some(std::time::Duration::ZERO))?;
                return Ok(());
            }
            Step::Update => {
                use foreign_types::ForeignTypeRef;
                // SAFETY: the pointer belongs to a live session.
                let done = unsafe {
                    boring_sys::SSL_key_update(stream.ssl().as_ptr(), boring_sys::SSL_KEY_UPDATE_REQUESTED as i32)
                };
                if done != 1 {
                    return Err(Error::other("SSL_key_update failed"));
                }
            }
        }
    }
    Ok(())
}
