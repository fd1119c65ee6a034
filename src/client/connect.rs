//! Connecting: resolves names, races the addresses, and reports every failure (rule: tcp-4).

use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, lookup_host};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::address::{Address, IpFamily};
use crate::conn::time::{after, until};
use crate::error::{ConnectError, Error};
use crate::layers::tcp::TcpConnection;
use crate::policy::Policy;
use crate::transport::Transport;

/// Opens TCP connections.
///
/// A name is resolved by the system's resolver. Its addresses are raced as in RFC 8305 ("Happy Eyeballs"): the address
/// families alternate, a new attempt starts every 250 milliseconds, or at once when one fails, and the first success
/// wins. One deadline covers the whole connect.
///
/// ```no_run
/// # async fn example() -> Result<(), bowline::Error> {
/// use std::time::Duration;
///
/// let connector = bowline::Connector::new().timeout(Duration::from_secs(5));
/// let connection = connector.connect("example.org", 25).await?;
/// # drop(connection);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ClientFactory")]
#[doc(alias = "connectTCP")]
#[doc(alias = "HostnameEndpoint")]
#[doc(alias = "TCP4ClientEndpoint")]
#[doc(alias = "TCP6ClientEndpoint")]
#[doc(alias = "create_connection")]
#[doc(alias = "open_connection")]
#[doc(alias = "Dialer")]
#[derive(Debug, Clone)]
pub struct Connector {
    policy: Arc<Policy>,
    timeout: Option<Duration>,
    attempt_delay: Duration,
    bind_to: Option<SocketAddr>,
    family: Option<IpFamily>,
    /// The place in the code that made the connector.
    place: &'static Location<'static>,
}

impl Default for Connector {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl Connector {
    /// The defaults: 30 seconds in total, 250 milliseconds between attempts, and the default [`Policy`].
    #[track_caller]
    pub fn new() -> Self {
        Self::at(Location::caller())
    }

    /// As `new`, for a caller at this place in the code.
    pub(crate) fn at(place: &'static Location<'static>) -> Self {
        Self {
            policy: Arc::default(),
            timeout: Some(Duration::from_secs(30)),
            attempt_delay: Duration::from_millis(250),
            bind_to: None,
            family: None,
            place,
        }
    }

    /// The time for resolving and connecting together; default 30 seconds. `None`: no limit (rule: tcp-9).
    #[doc(alias = "connectTimeout")]
    pub fn timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { timeout: timeout.into(), ..self }
    }

    /// How long to wait for an attempt before the next address is tried in parallel; default 250 milliseconds.
    ///
    /// Values below 10 milliseconds become 10, the minimum of RFC 8305 section 8. With [`Duration::MAX`], the addresses
    /// are tried one at a time, each after the one before it has failed.
    #[doc(alias = "happy_eyeballs_delay")]
    pub fn attempt_delay(self, delay: Duration) -> Self {
        Self { attempt_delay: delay.max(Duration::from_millis(10)), ..self }
    }

    /// The policy of the connections.
    pub fn policy(self, policy: impl Into<Arc<Policy>>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// The local address to connect from; port 0 is any port. Target addresses of the other family then fail, with an
    /// error that says why.
    #[doc(alias = "bindAddress")]
    #[doc(alias = "local_addr")]
    pub fn bind_to(self, local: impl Into<SocketAddr>) -> Self {
        Self { bind_to: Some(local.into()), ..self }
    }

    /// Connects only to addresses of this family; default: to all addresses. If the name has none of this family, the
    /// error says so.
    #[doc(alias = "AF_INET")]
    #[doc(alias = "AF_INET6")]
    #[doc(alias = "family")]
    pub fn only(self, family: IpFamily) -> Self {
        Self { family: Some(family), ..self }
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn settings(&self) -> (Option<Duration>, Arc<Policy>, &'static Location<'static>) {
        (self.timeout, Arc::clone(&self.policy), self.place)
    }

    /// Connects to a name, an IPv4 address, or an IPv6 address (with or without brackets, with or without a scope).
    ///
    /// # Errors
    /// [`Error::Connect`] with every address that was tried and how it failed, or why the name did not resolve. The
    /// cause is the system or the network, or the time if the deadline passed ([`Error::blame`]).
    ///
    /// # Cancel safety
    /// Dropping the future ends all attempts; no connection is left open. A system call that resolves a name cannot be
    /// stopped: it runs to its end on tokio's blocking pool, and its result is discarded.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpConnection, Error> {
        let deadline = after(self.timeout);
        let host = without_brackets(host);
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        match until(deadline, lookup_host((host, port))).await {
            Some(Ok(addrs)) => self.race(target, addrs, deadline).await,
            Some(Err(error)) => Err(unresolved(target, Some(error))),
            None => Err(unresolved(target, None)),
        }
    }

    /// Connects to one address: a [`SocketAddr`], or an [`Address`] from a connection or a listener.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). An address that is not a TCP address is an error that says so.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempt.
    pub async fn connect_addr(&self, addr: impl Into<Address>) -> Result<TcpConnection, Error> {
        let addr = addr.into();
        self.race(addr.to_string(), addr.as_inet(), after(self.timeout)).await
    }

    /// Races these addresses, and returns the first connection that succeeds. The first address in the list is tried
    /// first.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). An empty list is an error that says so.
    ///
    /// # Cancel safety
    /// Dropping the future ends all attempts.
    pub async fn connect_addrs(&self, addrs: &[SocketAddr]) -> Result<TcpConnection, Error> {
        let names: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
        self.race(names.join(", "), addrs.iter().copied(), after(self.timeout)).await
    }

    async fn race(
        &self,
        target: String,
        addrs: impl IntoIterator<Item = SocketAddr>,
        deadline: Option<Instant>,
    ) -> Result<TcpConnection, Error> {
        let addrs = addrs.into_iter().filter(|addr| self.family.is_none_or(|family| family.has(*addr)));
        let super::race::Lost { attempts, timed_out } =
            match super::race::race(addrs, self.attempt_delay, deadline, |addr| self.attempt(addr)).await {
                Ok(connection) => {
                    connection.control().announce(self.place);
                    return Ok(connection);
                }
                Err(lost) => lost,
            };
        // rule: life-6. A failed call costs budget too: if the system refuses at once (no free descriptors, for
        // example), a loop of retries must let other tasks run.
        consume_budget().await;
        if attempts.is_empty() && !timed_out {
            let problem = match self.family {
                Some(family) => format!("there is no {family} address"),
                None => "there is no address".into(),
            };
            return Err(unresolved(target, Some(io::Error::new(io::ErrorKind::NotFound, problem))));
        }
        Err(ConnectError { target, attempts, resolve: None, timed_out }.into())
    }

    /// One attempt, until the connection is ready for use. If the peer resets the connection at once, the attempt has
    /// failed.
    async fn attempt(&self, addr: SocketAddr) -> io::Result<TcpConnection> {
        let stream = self.socket(addr)?.connect(addr).await?;
        let host = stream.local_addr()?;
        let peer = if is_told_as_it_is(addr) { addr } else { stream.peer_addr()? };
        refuse_own_echo(host, peer)?;
        let connection = TcpConnection::between(stream, host, peer, Arc::clone(&self.policy));
        connection.control().set_connected();
        Ok(connection)
    }

    fn socket(&self, addr: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.policy.reset_when_killed {
            // rule: flow-7. The option is set before the attempt, because the attempt may be dropped just as it
            // succeeds, and the peer sees that connection too.
            crate::conn::socket::reset_on_drop(&socket);
        }
        let Some(local) = self.bind_to else { return Ok(socket) };
        if local.is_ipv4() != addr.is_ipv4() {
            let problem = format!("the local address {local} is of the other family");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        // Without this, a chosen port could not be used again while its last connection is in TIME_WAIT.
        #[cfg(unix)]
        socket.set_reuseaddr(local.port() != 0)?;
        socket.bind(local)?;
        Ok(socket)
    }
}

/// If nobody listens on a port of this host, the kernel may choose the same port for our own end. TCP's simultaneous
/// open (RFC 9293 section 3.5) then connects the socket to itself.
fn refuse_own_echo(host: SocketAddr, peer: SocketAddr) -> io::Result<()> {
    if host == peer {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"));
    }
    Ok(())
}

/// Whether the peer of a socket that was connected to this address certainly has this address. The peer may have
/// another one if the address is unspecified, which means this host, or if it has a scope or a flow label, which the
/// system may drop or fill in.
fn is_told_as_it_is(addr: SocketAddr) -> bool {
    let is_whole = match addr {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(addr) => addr.scope_id() == 0 && addr.flowinfo() == 0 && !addr.ip().is_unicast_link_local(),
    };
    is_whole && !addr.ip().to_canonical().is_unspecified()
}

fn without_brackets(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.filter(|inner| inner.contains(':')).unwrap_or(host)
}

/// The attempt was still running at the deadline.
fn unresolved(target: String, error: Option<io::Error>) -> Error {
    let timed_out = error.is_none();
    ConnectError { target, attempts: Vec::new(), resolve: error.map(Arc::new), timed_out }.into()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::error::Blame;

    fn listener(host: impl Into<std::net::IpAddr>) -> Option<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind((host.into(), 0)).ok()?;
        let addr = listener.local_addr().unwrap();
        Some((listener, addr))
    }

    /// Ports that are bound, but on which nobody listens.
    fn closed_ports<const N: usize>() -> ([Socket; N], [SocketAddr; N]) {
        let sockets = std::array::from_fn(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
            socket
        });
        let addrs = sockets.each_ref().map(|socket| socket.local_addr().unwrap().as_socket().unwrap());
        (sockets, addrs)
    }

    fn connect_error(error: Error) -> ConnectError {
        match error {
            Error::Connect(error) => error,
            other => panic!("{other}"),
        }
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn names_and_literals_connect() {
        let (_open, addr) = listener(Ipv4Addr::LOCALHOST).unwrap();
        for host in ["localhost", "127.0.0.1"] {
            let connection = Connector::new().connect(host, addr.port()).await.unwrap();
            assert_eq!(connection.peer_addr().as_inet().unwrap().port(), addr.port());
        }
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn a_family_leaves_out_the_addresses_of_the_other_one() {
        let (_open, four) = listener(Ipv4Addr::LOCALHOST).unwrap();
        let six = SocketAddr::from((Ipv6Addr::LOCALHOST, four.port()));
        let connection = Connector::new().only(IpFamily::V4).connect_addrs(&[six, four]).await.unwrap();
        assert_eq!(connection.peer_addr().as_inet(), Some(four));
        let six_only = Connector::new().only(IpFamily::V6);
        for error in
            [six_only.connect_addr(four).await.unwrap_err(), six_only.connect_addrs(&[four]).await.unwrap_err()]
        {
            let error = connect_error(error);
            assert!(error.attempts.is_empty(), "{error}");
            assert_eq!(error.resolve.unwrap().to_string(), "there is no IPv6 address");
        }
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn ipv6_literals_connect_with_and_without_brackets_and_scope() {
        let Some((_open, addr)) = listener(Ipv6Addr::LOCALHOST) else {
            return eprintln!("this host has no IPv6");
        };
        for host in ["::1", "[::1]", "[0:0::1]", "::1%1", "[::1%1]"] {
            let connection = Connector::new().connect(host, addr.port()).await.unwrap();
            assert_eq!(
                (connection.peer_addr().as_inet().unwrap().ip(), connection.peer_addr().as_inet().unwrap().port()),
                (addr.ip(), addr.port()),
                "{host}"
            );
        }
    }

    /// rule: tcp-1
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_peer_address_is_the_one_that_the_system_reports() {
        let (four, at_four) = listener(Ipv4Addr::LOCALHOST).unwrap();
        let mut cases = vec![(four, at_four), (listener(Ipv4Addr::UNSPECIFIED).unwrap())];
        cases.extend(listener(Ipv6Addr::LOCALHOST));
        let Some((six, at_six)) = listener(Ipv6Addr::LOCALHOST) else {
            return eprintln!("this host has no IPv6");
        };
        let mut with_scope = std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, at_six.port(), 0, 1);
        cases.push((six.try_clone().unwrap(), with_scope.into()));
        with_scope.set_scope_id(0);
        with_scope.set_flowinfo(0x0102_0304);
        cases.push((six, with_scope.into()));
        let (mapped, addr) = listener(Ipv6Addr::UNSPECIFIED).unwrap();
        for host in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            cases.push((mapped.try_clone().unwrap(), (host.to_ipv6_mapped(), addr.port()).into()));
        }
        for (listener, addr) in cases {
            let connection = Connector::new().connect_addr(addr).await.unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(connection.peer_addr().as_inet().unwrap(), accepted.local_addr().unwrap(), "{addr}");
            assert_eq!(connection.local_addr().as_inet().unwrap(), peer, "{addr}");
        }
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn every_refused_address_is_listed_in_the_error() {
        let (_closed, closed) = closed_ports::<2>();
        let error = connect_error(Connector::new().connect_addrs(&closed).await.unwrap_err());
        assert_eq!(error.attempts.iter().filter_map(|attempt| attempt.addr.as_inet()).collect::<Vec<_>>(), closed);
        assert!(error.attempts.iter().all(|attempt| attempt.error.kind() == io::ErrorKind::ConnectionRefused));
        assert!(!error.timed_out && error.resolve.is_none());
        assert!(closed.iter().all(|addr| error.to_string().contains(&addr.to_string())), "{error}");
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn a_refused_address_gives_way_to_the_next() {
        let (_open, addr) = listener(Ipv4Addr::LOCALHOST).unwrap();
        let (_closed, [closed]) = closed_ports();
        let connection = Connector::new().connect_addrs(&[closed, addr]).await.unwrap();
        assert_eq!(connection.peer_addr(), addr.into());
    }

    /// rule: tcp-4
    #[tokio::test]
    async fn an_unresolvable_name_is_reported_as_the_cause() {
        // The name is invalid, so no resolver is asked and no packet leaves this host.
        let error = Connector::new().connect("no\0name", 80).await.unwrap_err();
        assert_eq!(error.blame(), Blame::System);
        let error = connect_error(error);
        assert!(error.resolve.is_some() && error.attempts.is_empty() && !error.timed_out);
    }

    #[tokio::test]
    async fn an_empty_list_of_addresses_is_an_error() {
        let error = Connector::new().connect_addrs(&[]).await.unwrap_err();
        assert!(crate::error::chain(&error).to_string().contains("there is no address"), "{error}");
    }

    /// rule: tcp-4, tcp-9
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_silent_address_times_out_at_the_deadline() {
        // Linux does not answer a SYN if the backlog is full.
        let (silent, [addr]) = closed_ports();
        silent[0].listen(0).unwrap();
        let connector = Connector::new().timeout(Duration::from_millis(100));
        // A connection that was closed before accept stays in the backlog, so repeated connecting fills it.
        let error = loop {
            match connector.connect_addr(addr).await {
                Ok(connection) => drop(connection),
                Err(error) => break error,
            }
        };
        assert_eq!(error.blame(), Blame::Time);
        let attempts = connect_error(error).attempts;
        assert_eq!((&attempts[0].addr, attempts[0].error.kind()), (&addr.into(), io::ErrorKind::TimedOut));
    }

    /// rule: tcp-4
    #[test]
    fn a_name_that_does_not_resolve_in_time_is_a_timeout() {
        let error = unresolved("example.org:80".into(), None);
        assert_eq!(error.blame(), Blame::Time);
        assert_eq!(error.to_string(), "cannot connect to example.org:80: timed out");
    }

    #[tokio::test]
    async fn a_local_address_is_used_and_the_other_family_is_an_error() {
        let (_open, addr) = listener(Ipv4Addr::LOCALHOST).unwrap();
        let local = Ipv4Addr::new(127, 0, 0, 1);
        let connection = Connector::new().bind_to((local, 0)).connect_addr(addr).await.unwrap();
        assert_eq!(connection.local_addr().as_inet().unwrap().ip(), local);
        let error = Connector::new().bind_to((Ipv6Addr::LOCALHOST, 0)).connect_addr(addr).await.unwrap_err();
        assert!(crate::error::chain(&error).to_string().contains("other family"), "{error}");
    }
}
