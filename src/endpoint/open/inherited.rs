//! Listening sockets that the process inherited from its parent: by systemd's protocol (sd_listen_fds(3)), or under a
//! descriptor number that both know.

#[cfg(not(unix))]
use super::socket::Socket;
use crate::endpoint::parse::Inherited;
use crate::error::Error;
use crate::server::builder::ListenerBuilder;
use crate::server::listener::Listener;

#[cfg(not(unix))]
pub(super) fn open(_: &Inherited, _: ListenerBuilder, _: bool) -> Result<Socket, Error> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "this system passes no sockets to its services").into())
}

#[cfg(unix)]
pub(super) use self::sockets::open;

impl ListenerBuilder {
    /// Takes over all TCP sockets that a service manager has passed in by the protocol of sd_listen_fds(3)
    /// (`LISTEN_FDS`), whatever their names, as [`from_std_all`](Self::from_std_all) does (rule: tcp-10). `None` if
    /// there are none for this process. For sockets with one name, use the endpoint `systemd:NAME`.
    ///
    /// # Errors
    /// The system's error if a variable is malformed, if a descriptor is no listening TCP socket, or if it was
    /// taken over before.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    #[doc(alias = "sd_listen_fds")]
    #[doc(alias = "socket activation")]
    pub fn from_listen_fds(self) -> Result<Option<Listener>, Error> {
        #[cfg(unix)]
        return sockets::all(self);
        #[cfg(not(unix))]
        Ok(None)
    }
}

#[cfg(unix)]
mod sockets {
    use std::env;
    use std::io;
    use std::net::TcpListener;
    use std::os::fd::{OwnedFd, RawFd};
    use std::os::unix::net::UnixListener;

    use socket2::{Domain, SockRef};

    use super::{Error, Inherited, Listener, ListenerBuilder};
    use crate::conn::socket;
    use crate::endpoint::open::socket::Socket;
    use crate::endpoint::open::unix;

    /// The first descriptor of systemd's protocol.
    const FIRST: RawFd = 3;

    /// Takes the sockets over and changes none of their options (rule: tcp-10). TLS arguments are for TCP only.
    pub(in crate::endpoint::open) fn open(
        from: &Inherited,
        builder: ListenerBuilder,
        has_tls: bool,
    ) -> Result<Socket, Error> {
        let numbers = match from {
            Inherited::Fd(number) => vec![RawFd::from(*number)],
            Inherited::Systemd(name) => named(name, &Passed::of_environment()?)?,
        };
        let (mut tcp, mut unix): (Vec<TcpListener>, Vec<UnixListener>) = Default::default();
        for number in numbers {
            let descriptor = socket::take_inherited(number)?;
            match is_unix(&descriptor)? {
                true => unix.push(descriptor.into()),
                false => tcp.push(descriptor.into()),
            }
        }
        match (unix.pop(), unix.is_empty() && tcp.is_empty()) {
            (None, _) => Ok(Socket::Inet(builder.from_std_all(tcp)?)),
            (Some(_), true) if has_tls => {
                Err(unusable("the socket is a Unix socket, and TLS arguments are for TCP sockets").into())
            }
            (Some(socket), true) => Ok(Socket::Unix(unix::Listening::from_std(socket, builder)?)),
            (Some(_), false) => Err(unusable("several sockets have the name, and one of them is a Unix socket").into()),
        }
    }

    /// All sockets that were passed in to this process.
    pub(super) fn all(builder: ListenerBuilder) -> Result<Option<Listener>, Error> {
        let passed = Passed::of_environment()?;
        if !passed.is_for_us() {
            return Ok(None);
        }
        let mut sockets: Vec<TcpListener> = Vec::new();
        for (number, name) in (FIRST..).zip(passed.names()?) {
            let descriptor = socket::take_inherited(number)?;
            if is_unix(&descriptor)? {
                return Err(unusable(format!("the socket {name:?} is a Unix socket")).into());
            }
            sockets.push(descriptor.into());
        }
        if sockets.is_empty() { Ok(None) } else { builder.from_std_all(sockets).map(Some) }
    }

    fn is_unix(descriptor: &OwnedFd) -> io::Result<bool> {
        Ok(SockRef::from(descriptor).local_addr()?.domain() == Domain::UNIX)
    }

    fn unusable(problem: impl Into<String>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, problem.into())
    }

    /// The variables of systemd's protocol.
    struct Passed {
        pid: Option<String>,
        fds: Option<String>,
        names: Option<String>,
    }

    impl Passed {
        fn of_environment() -> io::Result<Self> {
            let read = |name: &str| match env::var(name) {
                Ok(value) => Ok(Some(value)),
                Err(env::VarError::NotPresent) => Ok(None),
                Err(env::VarError::NotUnicode(_)) => Err(unusable(format!("{name} is not Unicode"))),
            };
            Ok(Self { pid: read("LISTEN_PID")?, fds: read("LISTEN_FDS")?, names: read("LISTEN_FDNAMES")? })
        }

        /// Whether there are sockets for this process. A child inherits the variables of its parent, so they may be for
        /// another process.
        fn is_for_us(&self) -> bool {
            let for_another = self.pid.as_ref().is_some_and(|pid| *pid != std::process::id().to_string());
            self.fds.is_some() && !for_another
        }

        /// The names of the descriptors from [`FIRST`] on.
        fn names(&self) -> io::Result<Vec<&str>> {
            let (Some(pid), Some(fds)) = (&self.pid, &self.fds) else {
                return Err(unusable("no sockets were passed in: LISTEN_PID or LISTEN_FDS is not set"));
            };
            let ours = std::process::id();
            if *pid != ours.to_string() {
                let problem =
                    format!("LISTEN_PID is {pid:?}: the sockets are for that process, and this one is {ours}");
                return Err(unusable(problem));
            }
            let count: usize = match fds.parse() {
                Ok(count @ 0..=4096) => count,
                _ => return Err(unusable(format!("LISTEN_FDS is {fds:?}, which is no number of descriptors"))),
            };
            // Without LISTEN_FDNAMES, sd_listen_fds_with_names(3) calls them all "unknown".
            let names: Vec<_> = match self.names.as_deref() {
                None => vec!["unknown"; count],
                Some("") if count == 0 => Vec::new(),
                Some(names) => names.split(':').collect(),
            };
            if names.len() != count {
                let problem = format!("LISTEN_FDNAMES has {} names, and LISTEN_FDS is {count}", names.len());
                return Err(unusable(problem));
            }
            Ok(names)
        }
    }

    /// The descriptors with this name.
    fn named(name: &str, passed: &Passed) -> io::Result<Vec<RawFd>> {
        let names = passed.names()?;
        let numbers: Vec<RawFd> =
            (FIRST..).zip(&names).filter(|(_, known)| **known == name).map(|(fd, _)| fd).collect();
        if numbers.is_empty() {
            let problem = format!("no socket was passed in under the name {name:?}; there are {names:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        Ok(numbers)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn passed(pid: u32, fds: &str, names: Option<&str>) -> Passed {
            Passed { pid: Some(pid.to_string()), fds: Some(fds.into()), names: names.map(str::to_owned) }
        }

        #[test]
        fn descriptors_are_found_by_their_names() {
            let ours = std::process::id();
            let web = passed(ours, "4", Some("web:admin:web:x.socket"));
            assert_eq!(named("web", &web).unwrap(), [3, 5]);
            assert_eq!(named("x.socket", &web).unwrap(), [6]);
            assert_eq!(named("unknown", &passed(ours, "2", None)).unwrap(), [3, 4]);
            let none = Passed { pid: None, fds: None, names: None };
            assert!(web.is_for_us() && !none.is_for_us() && !passed(ours + 1, "1", None).is_for_us());
            for (passed, problem) in [
                (web, "no socket was passed in under the name \"other\"; there are [\"web\", "),
                (none, "LISTEN_PID or LISTEN_FDS is not set"),
                (passed(ours + 1, "1", None), "the sockets are for that process"),
                (passed(ours, "-1", None), "no number of descriptors"),
                (passed(ours, "2", Some("web")), "LISTEN_FDNAMES has 1 names, and LISTEN_FDS is 2"),
                (passed(ours, "0", Some("")), "there are []"),
            ] {
                let error = named("other", &passed).unwrap_err().to_string();
                assert!(error.contains(problem), "{error}");
            }
        }
    }
}
