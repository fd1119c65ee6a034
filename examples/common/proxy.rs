//! The options about the PROXY protocol.

use bowline::proxy::{ProxyProtocol, TrustedNetworks};

use crate::common::args::Usage;

/// The values of `--proxy` and `--trusted`, as given.
#[derive(Debug, Default)]
pub(crate) struct ProxyFlags {
    pub(crate) proxy: Option<String>,
    pub(crate) trusted: Option<String>,
}

impl ProxyFlags {
    pub(crate) fn finish(self) -> Result<Option<ProxyProtocol>, Usage> {
        let how = self.proxy.as_deref().unwrap_or("off");
        let networks = self.trusted.as_deref().map(str::parse::<TrustedNetworks>).transpose().map_err(Usage::of)?;
        match (how, networks) {
            ("off", None) => Ok(None),
            ("off", Some(_)) => Err(Usage::new("--trusted needs --proxy accept or require")),
            ("accept" | "require", None) => Err(Usage::new(format!("--proxy {how} needs --trusted"))),
            ("accept", Some(networks)) => Ok(Some(ProxyProtocol::accept(networks))),
            ("require", Some(networks)) => Ok(Some(ProxyProtocol::require(networks))),
            (other, _) => Err(Usage::new(format!("--proxy is off, accept or require, not {other:?}"))),
        }
    }
}
