//! The start of a session: as a client, as a server, or with a rustls session that another library started.

use std::sync::Arc;

use rustls::Connection;
use rustls::pki_types::{CertificateDer, ServerName};

use super::{CloseNotify, Framing, Session};
use crate::core::binding::Hashes;
use crate::core::buffer::Buffer;
use crate::core::engine::{AnyEngine, EngineKind};
use crate::core::facts::InitialFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::high_mark::Burst;
use crate::core::input::Input;
use crate::core::settings;
use crate::error::Error;
use crate::policy::{Role, Watermarks};

impl Session {
    /// The client's side of a session. The ClientHello waits to be transmitted. The configuration for the express
    /// engine has to let secrets be extracted.
    pub fn client(
        engine: EngineKind,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        own_chain: Arc<[CertificateDer<'static>]>,
        marks: Watermarks,
    ) -> Result<Self, Error> {
        settings::check_client(&config)?;
        let sni = sent_sni(&config, &name);
        let hashes = Hashes(Some(Arc::clone(config.crypto_provider())));
        let tls = AnyEngine::client(engine, config, name).map_err(settings::unusable)?;
        Ok(Self::new(
            tls,
            InitialFacts { role: Role::Client, sni, own_chain, identity: None, generation: None, hashes },
            marks,
        ))
    }

    /// The server's side of a session.
    pub fn server(
        engine: EngineKind,
        config: Arc<rustls::ServerConfig>,
        own_chain: Arc<[CertificateDer<'static>]>,
        marks: Watermarks,
    ) -> Result<Self, Error> {
        settings::check_server(&config)?;
        let hashes = Hashes(Some(Arc::clone(config.crypto_provider())));
        let tls = AnyEngine::server(engine, config).map_err(settings::unusable)?;
        Ok(Self::new(
            tls,
            InitialFacts { role: Role::Server, sni: None, own_chain, identity: None, generation: None, hashes },
            marks,
        ))
    }

    /// A session that another library started, before or after its handshake. rustls may already hold a part of a
    /// record, so the session passes bytes on as they arrive, and does not know where records end. Therefore `stop_tls`
    /// would lose bytes.
    ///
    /// # Errors
    /// Early data was accepted, and the application has not read it.
    pub fn adopt(mut tls: Connection, marks: Watermarks) -> Result<Self, Error> {
        settings::check_adopted(&mut tls)?;
        let role = match tls {
            Connection::Client(_) => Role::Client,
            Connection::Server(_) => Role::Server,
        };
        let hashes = Hashes(None);
        let known =
            InitialFacts { role, sni: None, own_chain: Arc::default(), identity: None, generation: None, hashes };
        let mut session = Self::new(AnyEngine::adopted(tls), known, marks);
        (session.framing, session.is_in_clear) = (Framing::Unknown, false);
        session.note_opened();
        if !session.tls.is_handshaking() {
            session.note_secured();
        }
        if let Some(failure) = session.tls.take_failure() {
            session.fail_tls(failure, None);
        }
        Ok(session)
    }

    /// Records the generation of the configuration that this session uses.
    pub fn of_generation(mut self, generation: u64) -> Self {
        if let Some(known) = &mut self.known {
            known.generation = Some(generation);
        }
        self
    }

    fn new(tls: AnyEngine, known: InitialFacts, marks: Watermarks) -> Self {
        let mut session = Self {
            tls,
            send: SendHalf::Open,
            recv: RecvHalf::Open,
            raw: Input::default(),
            staged: Buffer::default(),
            sealed: Buffer::default(),
            facts: None,
            known: Some(Box::new(known)),
            choice: None,
            failure: None,
            marks: marks.of_session(),
            burst: Burst::new(marks),
            close_notify: CloseNotify::Unsealed,
            framing: Framing::FirstRecord,
            corked: false,
            closing: false,
            may_owe_answer: true,
            is_in_clear: true,
            is_abandoned: false,
        };
        session.collect();
        session
    }
}

/// rule: secure-8: SNI is sent for names only.
fn sent_sni(config: &rustls::ClientConfig, name: &ServerName<'_>) -> Option<String> {
    match name {
        ServerName::DnsName(dns) if config.enable_sni => Some(dns.as_ref().to_owned()),
        _ => None,
    }
}
