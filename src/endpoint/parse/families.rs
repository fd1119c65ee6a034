//! The flags that choose the versions of IP.

use super::arguments::{Argument, Given};
use super::text::Mistake;

/// The versions of IP to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Families {
    /// The versions of the addresses. A server without a host uses IPv4.
    #[default]
    Given,
    /// Both, on one socket: `[::]` accepts IPv4 too.
    Dual,
    V4,
    V6,
}

impl Families {
    pub(super) fn flag(self) -> Option<Argument> {
        match self {
            Self::Given => None,
            Self::Dual => Some(Argument::DualStack),
            Self::V4 => Some(Argument::Ipv4Only),
            Self::V6 => Some(Argument::Ipv6Only),
        }
    }

    /// Returns the given version, if it fits the host.
    pub(super) fn read(given: &Given<'_>, host: Option<&str>) -> Result<Self, Mistake> {
        let mut found: Option<(Self, usize)> = None;
        for families in [Self::Dual, Self::V4, Self::V6] {
            let Some((flag, at)) =
                families.flag().and_then(|flag| Some((flag, given.text(flag)?.at - flag.name().len())))
            else {
                continue;
            };
            if let Some((other, _)) = found {
                let other = other.flag().map_or("", Argument::name);
                return Err(Mistake::new(at, format!("{} contradicts {other}", flag.name())));
            }
            found = Some((families, at));
        }
        let Some((families, at)) = found else { return Ok(Self::Given) };
        let addr = host.and_then(|host| host.split('%').next()?.parse::<std::net::IpAddr>().ok());
        let problem = match (families, host, addr) {
            (Self::Dual, Some(_), addr) if addr != Some(std::net::Ipv6Addr::UNSPECIFIED.into()) => {
                "dual-stack is for [::], or for a port without a host"
            }
            (Self::V4, _, Some(std::net::IpAddr::V6(_))) => "the host is an IPv6 address",
            (Self::V6, _, Some(std::net::IpAddr::V4(_))) => "the host is an IPv4 address",
            (Self::Given | Self::Dual | Self::V4 | Self::V6, ..) => return Ok(families),
        };
        Err(Mistake::new(at, problem))
    }
}
