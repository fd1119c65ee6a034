//! Addresses to listen on.

/// Checks an address. `what` is the user's name for it; an error is one sentence.
pub(crate) fn host_port(what: &str, addr: String) -> Result<String, String> {
    let is_addr = addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_addr { Ok(addr) } else { Err(format!("{what} wants HOST:PORT, not {addr:?}")) }
}
