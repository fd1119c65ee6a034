//! tokio-boring over BoringSSL, built from its source.

use std::sync::{Arc, Mutex, PoisonError};

use boring::pkey::PKey;
use boring::ssl::{
    SslAcceptor, SslConnector, SslContextBuilder, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslVersion,
};
use boring::x509::X509;
use tokio::net::TcpStream;
use tokio_boring::SslStream;

use super::{Facts, Stack};
use crate::error::{Result, fail};
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::Tls;

#[derive(Clone)]
pub struct Boring {
    connector: SslConnector,
    acceptor: SslAcceptor,
    /// The session that the next connection resumes.
    session: Arc<Mutex<Option<SslSession>>>,
    resume: bool,
}

impl Boring {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let session = Arc::new(Mutex::new(None));
        let mut connector = SslConnector::builder(SslMethod::tls())?;
        common(&mut connector, setup)?;
        connector.cert_store_mut().add_cert(X509::from_pem(pki.ca.as_bytes())?)?;
        if setup.resume {
            connector.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
            let store = Arc::clone(&session);
            connector.set_new_session_callback(move |_, session| {
                *store.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
            });
        }
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        common(&mut acceptor, setup)?;
        acceptor.set_certificate(X509::from_pem(pki.cert.as_bytes())?.as_ref())?;
        acceptor.set_private_key(PKey::private_key_from_pem(pki.key.as_bytes())?.as_ref())?;
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
    context.clear_options(SslOptions::NO_TLSV1_3);
    context.set_min_proto_version(Some(version))?;
    context.set_max_proto_version(Some(version))?;
    // The suites of TLS 1.3 cannot be chosen here. BoringSSL prefers AES-128-GCM if the processor has AES instructions.
    context.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256")?;
    // TLS 1.2 requires that the certificate's curve is in the list too.
    context.set_curves_list(match (setup.post_quantum, setup.tls) {
        (true, _) => "X25519MLKEM768",
        (false, Tls::V13) => "X25519",
        (false, Tls::V12) => "X25519:P-256",
    })?;
    Ok(())
}

impl Stack for Boring {
    type Stream = SslStream<TcpStream>;
    const FLUSHES: bool = true;

    #[allow(unsafe_code)]
    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        let mut how = self.connector.configure()?;
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (true, Some(session)) = (self.resume, session) {
            // SAFETY: the session was made in the same context as this connection, which is the only requirement.
            unsafe { how.set_session(&session)? };
        }
        match tokio_boring::connect(how, "localhost", tcp).await {
            Ok(stream) => Ok(stream),
            Err(error) => fail(error.to_string()),
        }
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        match tokio_boring::accept(&self.acceptor, tcp).await {
            Ok(stream) => Ok(stream),
            Err(error) => fail(error.to_string()),
        }
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
