//! The arguments about the PROXY protocol.

use super::arguments::{Argument, Given};
use super::text::Mistake;

/// Which connections begin with a PROXY header. The networks of the proxies are kept as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ProxyText {
    Off,
    Accept { trusted: String },
    Require { trusted: String },
}

impl ProxyText {
    pub(super) fn read(given: &Given<'_>) -> Result<Option<Self>, Mistake> {
        let how = given.value(Argument::Proxy, Mode::read)?;
        let trusted = given.value(Argument::Trusted, networks)?;
        match (how, trusted, given.text(Argument::Trusted)) {
            (None, None, _) => Ok(None),
            (Some(Mode::Off), None, _) => Ok(Some(Self::Off)),
            (Some(Mode::Accept), Some(trusted), _) => Ok(Some(Self::Accept { trusted })),
            (Some(Mode::Require), Some(trusted), _) => Ok(Some(Self::Require { trusted })),
            (None | Some(Mode::Off), Some(_), value) => {
                let at = value.map_or(given.end(), |value| value.at);
                Err(Mistake::new(at, "trusted= is for proxy=accept and proxy=require"))
            }
            (Some(mode @ (Mode::Accept | Mode::Require)), None, _) => {
                let problem = format!(
                    "proxy={} needs trusted=, the networks of your proxies, as in trusted=10.0.0.0/8,192.0.2.1",
                    mode.name()
                );
                Err(Mistake::new(given.end(), problem))
            }
        }
    }

    pub(super) fn arguments(&self) -> [(Argument, Option<String>); 2] {
        let (mode, trusted) = match self {
            Self::Off => (Mode::Off, None),
            Self::Accept { trusted } => (Mode::Accept, Some(trusted)),
            Self::Require { trusted } => (Mode::Require, Some(trusted)),
        };
        [(Argument::Proxy, Some(mode.name().to_owned())), (Argument::Trusted, trusted.cloned())]
    }

    /// `None`: no connection begins with a header.
    #[cfg(all(feature = "proxy", feature = "tokio"))]
    pub(crate) fn load(&self) -> Option<crate::proxy::ProxyProtocol> {
        use crate::proxy::ProxyProtocol;
        let networks = |text: &str| text.parse().expect("the networks were parsed with the endpoint");
        match self {
            Self::Off => None,
            Self::Accept { trusted } => Some(ProxyProtocol::accept(networks(trusted))),
            Self::Require { trusted } => Some(ProxyProtocol::require(networks(trusted))),
        }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Off,
    Accept,
    Require,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Off, Self::Accept, Self::Require];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Accept => "accept",
            Self::Require => "require",
        }
    }

    fn read(text: &str) -> Result<Self, Mistake> {
        match Self::ALL.into_iter().find(|mode| mode.name() == text) {
            Some(Self::Accept | Self::Require) if cfg!(not(feature = "proxy")) => {
                Err(Mistake::new(0, format!("proxy={text} needs the feature `proxy` of bowline")))
            }
            Some(mode) => Ok(mode),
            None => Err(Mistake::new(0, format!("proxy is off, accept or require, not {text:?}"))),
        }
    }
}

/// Networks or addresses, separated by commas.
fn networks(text: &str) -> Result<String, Mistake> {
    #[cfg(feature = "proxy")]
    {
        let mut at = 0;
        for network in text.split(',') {
            if let Err(error) = network.parse::<crate::proxy::TrustedNetworks>() {
                let problem = format!(r"{error}; in an endpoint, write the colons of an IPv6 address as \:");
                return Err(Mistake::new(at, problem));
            }
            at += network.len() + 1;
        }
    }
    Ok(text.to_owned())
}
