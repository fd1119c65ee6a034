//! The TLS arguments of an endpoint.

use std::time::Duration;

use super::EndpointKind;
use super::arguments::{Argument, Given, alpn, file_names, name, print_seconds, print_version, seconds, version};
use super::text::Mistake;
use crate::config::{ClientTls, ClientTlsBuilder, ServerTls, ServerTlsBuilder, TicketKeys, TlsVersion};
use crate::error::Error;
#[cfg(not(feature = "platform-roots"))]
use crate::error::{ConfigError, ConfigProblem};

/// Whether TLS is used, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Security<T> {
    /// No TLS.
    Plain,
    /// TLS from the first byte on.
    Tls(T),
    /// TLS after an upgrade.
    StartTls(T),
}

impl<T> Security<T> {
    pub(super) fn new(kind: EndpointKind, read: impl FnOnce() -> Result<T, Mistake>) -> Result<Self, Mistake> {
        Ok(match kind {
            EndpointKind::Tcp | EndpointKind::Unix | EndpointKind::Fd | EndpointKind::Systemd => Self::Plain,
            EndpointKind::Tls => Self::Tls(read()?),
            EndpointKind::StartTls => Self::StartTls(read()?),
        })
    }

    /// The kind of a TCP endpoint with this security.
    pub(super) fn kind(&self) -> EndpointKind {
        match self {
            Self::Plain => EndpointKind::Tcp,
            Self::Tls(_) => EndpointKind::Tls,
            Self::StartTls(_) => EndpointKind::StartTls,
        }
    }

    /// The mode of a socket that was passed in: TLS if there are arguments for it, and from the first byte on unless
    /// the flag `starttls` is given.
    pub(super) fn of_inherited(given: &Given<'_>, read: impl FnOnce() -> Result<T, Mistake>) -> Result<Self, Mistake> {
        let tls = [
            Argument::Cert,
            Argument::Key,
            Argument::Identities,
            Argument::ClientCa,
            Argument::ClientOptional,
            Argument::Crl,
            Argument::TicketKeys,
            Argument::Alpn,
            Argument::Min,
            Argument::Max,
            Argument::Reload,
        ];
        Ok(match given.text(Argument::StartTls) {
            Some(_) => Self::StartTls(read()?),
            None if tls.into_iter().any(|argument| given.text(argument).is_some()) => Self::Tls(read()?),
            None => Self::Plain,
        })
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Plain => None,
            Self::Tls(known) | Self::StartTls(known) => Some(known),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Plain => None,
            Self::Tls(known) | Self::StartTls(known) => Some(known),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn load<U>(&self, load: impl FnOnce(&T) -> Result<U, Error>) -> Result<Security<U>, Error> {
        Ok(match self {
            Self::Plain => Security::Plain,
            Self::Tls(known) => Security::Tls(load(known)?),
            Self::StartTls(known) => Security::StartTls(load(known)?),
        })
    }
}

/// The arguments that both sides accept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Common {
    alpn: Vec<String>,
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
}

impl Common {
    fn read(given: &Given<'_>) -> Result<Self, Mistake> {
        let min = given.value(Argument::Min, version)?;
        let max = given.value(Argument::Max, |text| match version(text)? {
            TlsVersion::V1_2 if min == Some(TlsVersion::V1_3) => {
                Err(Mistake::new(0, "no version of TLS is at least 1.3 and at most 1.2"))
            }
            max => Ok(max),
        })?;
        Ok(Self { alpn: given.value(Argument::Alpn, alpn)?.unwrap_or_default(), min, max })
    }

    fn arguments(&self) -> [(Argument, Option<String>); 3] {
        let Self { alpn, min, max } = self;
        let print = |version: &Option<TlsVersion>| version.map(|version| print_version(version).to_owned());
        let alpn = (!alpn.is_empty()).then(|| alpn.join(","));
        [(Argument::Alpn, alpn), (Argument::Min, print(min)), (Argument::Max, print(max))]
    }
}

/// The arguments of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerText {
    identities: Identities,
    clients: Option<Clients>,
    /// The files of the keys for tickets, if servers share them.
    ticket_keys: Vec<String>,
    /// Keys of the application, instead of these files.
    shared_keys: Option<TicketKeys>,
    common: Common,
    /// The time between two reads of the files. `None`: they are read once.
    reload: Option<Duration>,
}

/// The client certificates that a server requires.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Clients {
    /// The file with the CA of the clients.
    ca: String,
    /// Clients without a certificate are accepted too.
    is_optional: bool,
    /// The file of the certificates that were revoked.
    crl: Option<String>,
}

/// The source of a server's identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identities {
    Files { cert: String, key: String },
    Directory(String),
}

impl Identities {
    fn read(given: &Given<'_>, why: &str) -> Result<Self, Mistake> {
        let Some(dir) = given.text(Argument::Identities) else {
            if given.text(Argument::Cert).is_none() && given.text(Argument::Key).is_none() {
                return Err(Mistake::new(given.end(), format!("{why} needs cert= and key=, or identities=")));
            }
            let (cert, key) = (given.required(Argument::Cert, why)?, given.required(Argument::Key, why)?);
            return Ok(Self::Files { cert, key });
        };
        match given.text(Argument::Cert).or(given.text(Argument::Key)) {
            Some(_) => Err(Mistake::new(dir.at, "identities= takes the place of cert= and key=")),
            None => Ok(Self::Directory(dir.value())),
        }
    }
}

impl ServerText {
    pub(super) fn read(kind: EndpointKind, given: &Given<'_>) -> Result<Self, Mistake> {
        let why = format!("a {kind} server");
        let identities = Identities::read(given, &why)?;
        let optional = given.text(Argument::ClientOptional).is_some();
        let crl = given.string(Argument::Crl);
        let ca = match given.string(Argument::ClientCa) {
            None if optional => Some(given.required(Argument::ClientCa, Argument::ClientOptional.name())?),
            None if crl.is_some() => Some(given.required(Argument::ClientCa, "crl=")?),
            file => file,
        };
        let clients = ca.map(|ca| Clients { ca, is_optional: optional, crl });
        let ticket_keys = given.value(Argument::TicketKeys, file_names)?.unwrap_or_default();
        let reload = given.value(Argument::Reload, seconds)?;
        Ok(Self { identities, clients, ticket_keys, shared_keys: None, common: Common::read(given)?, reload })
    }

    pub(super) fn arguments(&self) -> Vec<(Argument, Option<String>)> {
        let clients = self.clients.as_ref();
        let (cert, key, dir) = match &self.identities {
            Identities::Files { cert, key } => (Some(cert.clone()), Some(key.clone()), None),
            Identities::Directory(dir) => (None, None, Some(dir.clone())),
        };
        let mut all = vec![
            (Argument::Cert, cert),
            (Argument::Key, key),
            (Argument::Identities, dir),
            (Argument::ClientCa, clients.map(|clients| clients.ca.clone())),
            (Argument::ClientOptional, clients.filter(|clients| clients.is_optional).map(|_| String::new())),
            (Argument::Crl, clients.and_then(|clients| clients.crl.clone())),
            (Argument::TicketKeys, (!self.ticket_keys.is_empty()).then(|| self.ticket_keys.join(","))),
        ];
        all.extend(self.common.arguments());
        all.push((Argument::Reload, self.reload.map(print_seconds)));
        all
    }

    /// The time between two reads of the files.
    #[cfg(feature = "tokio")]
    pub(crate) fn reload(&self) -> Option<Duration> {
        self.reload
    }

    pub(crate) fn load(&self) -> Result<ServerTls, Error> {
        self.files().build()
    }

    pub(super) fn share_ticket_keys(&mut self, keys: &TicketKeys) {
        self.shared_keys = Some(keys.clone());
    }

    /// The builder that reads the files.
    pub(crate) fn files(&self) -> ServerTlsBuilder {
        let Common { alpn, min, max } = &self.common;
        let mut builder = ServerTls::builder().alpn(alpn);
        builder = match &self.identities {
            Identities::Files { cert, key } => builder.identity_pem_files(cert, key),
            Identities::Directory(dir) => builder.identities_dir(dir),
        };
        if let Some(Clients { ca, is_optional, crl }) = &self.clients {
            builder = builder.client_ca_pem_file(ca);
            if *is_optional {
                builder = builder.client_auth_optional();
            }
            if let Some(crl) = crl {
                builder = builder.client_crl_pem_file(crl);
            }
        }
        builder = match &self.shared_keys {
            Some(keys) => builder.ticket_keys(keys),
            None if self.ticket_keys.is_empty() => builder,
            None => builder.ticket_key_files(&self.ticket_keys),
        };
        if let Some(version) = *min {
            builder = builder.min_version(version);
        }
        if let Some(version) = *max {
            builder = builder.max_version(version);
        }
        builder
    }
}

/// The arguments of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct ClientText {
    ca: Option<String>,
    pub(crate) name: Option<String>,
    identity: Option<(String, String)>,
    common: Common,
    /// The time between two reads of the files. `None`: they are read once.
    reload: Option<Duration>,
}

impl ClientText {
    pub(super) fn read(given: &Given<'_>) -> Result<Self, Mistake> {
        let identity = match (given.string(Argument::Cert), given.string(Argument::Key)) {
            (None, None) => None,
            (Some(cert), _) => Some((cert, given.required(Argument::Key, "a certificate")?)),
            (None, Some(key)) => Some((given.required(Argument::Cert, "a private key")?, key)),
        };
        let ca = given.string(Argument::Ca);
        let reload = given.value(Argument::Reload, seconds)?;
        Ok(Self { ca, name: given.value(Argument::Name, name)?, identity, common: Common::read(given)?, reload })
    }

    pub(super) fn arguments(&self) -> Vec<(Argument, Option<String>)> {
        let mut all = vec![
            (Argument::Ca, self.ca.clone()),
            (Argument::Name, self.name.clone()),
            (Argument::Cert, self.identity.as_ref().map(|(cert, _)| cert.clone())),
            (Argument::Key, self.identity.as_ref().map(|(_, key)| key.clone())),
        ];
        all.extend(self.common.arguments());
        all.push((Argument::Reload, self.reload.map(print_seconds)));
        all
    }

    /// The time between two reads of the files.
    #[cfg(feature = "tokio")]
    pub(crate) fn reload(&self) -> Option<Duration> {
        self.reload
    }

    pub(crate) fn load(&self) -> Result<ClientTls, Error> {
        self.files()?.build()
    }

    /// The builder that reads the files.
    pub(crate) fn files(&self) -> Result<ClientTlsBuilder, Error> {
        let Common { alpn, min, max } = &self.common;
        let mut builder = ClientTls::builder().alpn(alpn);
        builder = match &self.ca {
            Some(file) => builder.roots_pem_file(file),
            #[cfg(feature = "platform-roots")]
            None => builder.platform_roots(),
            #[cfg(not(feature = "platform-roots"))]
            None => {
                let problem = "the endpoint names no roots to trust: add ca=FILE, or enable the feature platform-roots";
                return Err(ConfigError::new(None, ConfigProblem::Contradiction(problem.into())).into());
            }
        };
        if let Some((cert, key)) = &self.identity {
            builder = builder.identity_pem_files(cert, key);
        }
        if let Some(version) = *min {
            builder = builder.min_version(version);
        }
        if let Some(version) = *max {
            builder = builder.max_version(version);
        }
        Ok(builder)
    }
}
