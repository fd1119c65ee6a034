//! The peer BoringSSL, with blocking sockets.

use std::io::{Error, ErrorKind, Result, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use boring::error::ErrorStack;
use boring::ssl::{
    AlpnError, ErrorCode, Ssl, SslContext, SslFiletype, SslMethod, SslSession, SslSessionCacheMode, SslStream,
    SslVerifyMode, SslVersion, select_next_proto,
};
use boring_sys::{SSL_KEY_UPDATE_REQUESTED, SSL_key_update};
use bowline_interop::peer::{self, Library};
use bowline_interop::{Options, Report};
use foreign_types::ForeignTypeRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

type Kept = Arc<Mutex<Option<SslSession>>>;

fn context(options: &Options, kept: &Kept) -> std::result::Result<SslContext, ErrorStack> {
    let mut builder = SslContext::builder(SslMethod::tls())?;
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

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    let kept = Kept::default();
    let context = context(&options, &kept).expect("a configuration");
    peer::serve(&options, &Boring { server: options.server, context, kept }).await;
}

struct Boring {
    // The role.
    server: bool,
    context: SslContext,
    kept: Kept,
}

impl Library for Boring {
    type Stream = Stream;

    async fn open(&self, tcp: TcpStream) -> Result<Stream> {
        let tcp = tcp.into_std()?;
        tcp.set_nonblocking(false)?;
        tcp.set_nodelay(true)?;
        let mut ssl = Ssl::new(&self.context)?;
        let opened = if self.server {
            ssl.accept(tcp)
        } else {
            ssl.set_hostname("localhost")?;
            ssl.param_mut().set_host("localhost")?;
            if let Some(session) = &*self.kept.lock().expect("nobody panics") {
                // SAFETY: the session was made with this context.
                unsafe { ssl.set_session(session) }?;
            }
            ssl.connect(tcp)
        };
        opened.map(Stream).map_err(|error| Error::other(error.to_string()))
    }

    fn facts(&self, stream: &Stream, report: &mut Report) {
        let ssl = stream.0.ssl();
        report.set("version", ssl.version_str().trim_start_matches("TLSv"));
        report.set("group", ssl.curve_name());
        report.set("alpn", ssl.selected_alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
        report.set("resumed", ssl.session_reused());
        let peer = ssl.peer_certificate().and_then(|certificate| certificate.to_der().ok());
        report.set("peer", peer.and_then(|der| bowline::config::subject(&der.into())));
    }

    async fn fin(&self, stream: &mut Stream) -> Result<()> {
        stream.0.get_ref().shutdown(Shutdown::Write)
    }

    fn reset_on_close(&self, stream: &Stream) -> Result<()> {
        socket2::SockRef::from(stream.0.get_ref()).set_linger(Some(std::time::Duration::ZERO))
    }

    fn update(&self, stream: &mut Stream, _report: &mut Report) -> Result<()> {
        // SAFETY: the pointer belongs to a live session.
        let done = unsafe { SSL_key_update(stream.0.ssl().as_ptr(), SSL_KEY_UPDATE_REQUESTED) };
        if done == 1 { Ok(()) } else { Err(Error::other("SSL_key_update failed")) }
    }
}

/// A blocking connection. It blocks in the calls of `AsyncRead` and `AsyncWrite` too. This is enough for a program that
/// has a single task.
struct Stream(SslStream<std::net::TcpStream>);

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        // The stream's own `Read` reports an end without close_notify as a clean end.
        Poll::Ready(match self.0.ssl_read(buf.initialize_unfilled()) {
            Ok(n) => {
                buf.advance(n);
                Ok(())
            }
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => Ok(()),
            Err(error) if error.code() == ErrorCode::SYSCALL && error.io_error().is_none() => {
                Err(ErrorKind::UnexpectedEof.into())
            }
            Err(error) => Err(error.into_io_error().unwrap_or_else(Error::other)),
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(match self.0.shutdown() {
            Ok(_) => self.0.get_ref().shutdown(Shutdown::Write),
            Err(error) => Err(Error::other(error)),
        })
    }
}
