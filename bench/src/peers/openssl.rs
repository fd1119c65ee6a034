//! tokio-openssl with the system's OpenSSL. Read-ahead is on, which saves one `recv` for each record.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::pkey::PKey;
use openssl::ssl::{
    SslAcceptor, SslConnector, SslContextBuilder, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslVersion,
};
use openssl::x509::X509;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::{Facts, Stack};
use crate::error::Result;
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::Tls;

#[derive(Clone)]
pub struct OpenSsl {
    connector: SslConnector,
    acceptor: SslAcceptor,
    /// The session that the next connection resumes. It is a copy, because OpenSSL invalidates a session whose
    /// connection was not closed in order.
    session: Arc<Mutex<Option<Vec<u8>>>>,
    resume: bool,
}

impl OpenSsl {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let session = Arc::new(Mutex::new(None));
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        common(&mut connector, setup)?;
        connector.cert_store_mut().add_cert(X509::from_pem(pki.ca.as_bytes())?)?;
        if setup.resume {
            connector.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            let store = Arc::clone(&session);
            connector.set_new_session_callback(move |_, session| {
                *store.lock().unwrap_or_else(PoisonError::into_inner) = session.to_der().ok();
            });
        }
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls_server())?;
        common(&mut acceptor, setup)?;
        acceptor.set_certificate(X509::from_pem(pki.cert.as_bytes())?.as_ref())?;
        acceptor.set_private_key(PKey::private_key_from_pem(pki.key.as_bytes())?.as_ref())?;
        acceptor.set_num_tickets(usize::from(setup.resume))?;
        if !setup.resume {
            acceptor.set_options(SslOptions::NO_TICKET);
            acceptor.set_session_cache_mode(SslSessionCacheMode::OFF);
        }
        Ok(Self { connector: connector.build(), acceptor: acceptor.build(), session, resume: setup.resume })
    }
}

fn common(context: &mut SslContextBuilder, setup: Setup) -> Result<()> {
    let version = match setup.tls {
        Tls::V13 => SslVersion::TLS1_3,
        Tls::V12 => SslVersion::TLS1_2,
    };
    context.clear_options(SslOptions::NO_TLSV1_2);
    context.set_min_proto_version(Some(version))?;
    context.set_max_proto_version(Some(version))?;
    context.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
    context.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256")?;
    // TLS 1.2 requires that the certificate's curve is in the list too.
    context.set_groups_list(if setup.tls == Tls::V12 { "X25519:P-256" } else { "X25519" })?;
    context.set_read_ahead(!setup.untuned);
    Ok(())
}

impl Stack for OpenSsl {
    type Stream = SslStream<TcpStream>;
    const FLUSHES: bool = true;

    #[allow(unsafe_code)]
    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        let mut ssl = self.connector.configure()?.into_ssl("localhost")?;
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (true, Some(session)) = (self.resume, session) {
            let session = SslSession::from_der(&session)?;
            // SAFETY: the session was made in the same context as `ssl`, which is the only requirement.
            unsafe { ssl.set_session(&session)? };
        }
        let mut stream = SslStream::new(ssl, tcp)?;
        Pin::new(&mut stream).connect().await?;
        Ok(stream)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        let ssl = openssl::ssl::Ssl::new(self.acceptor.context())?;
        let mut stream = SslStream::new(ssl, tcp)?;
        Pin::new(&mut stream).accept().await?;
        Ok(stream)
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        let ssl = stream.ssl();
        Some(Facts {
            version: ssl.version_str().trim_start_matches("TLSv").to_owned(),
            aes128: ssl.current_cipher()?.name().contains("AES_128_GCM")
                || ssl.current_cipher()?.name().contains("AES128-GCM"),
            resumed: ssl.session_reused(),
        })
    }
}
