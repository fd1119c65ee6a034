//! Classifies a failed accept, and decides how long to wait after it (rule: tcp-5). Reads no clock: the caller passes
//! the time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::status::ListenerStatus;
use crate::conn::control::AcceptFault as Fault;
use crate::conn::refusal::Refusal;

const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The number of errors after which a socket counts as lost, if each error may mean that the socket no longer listens,
/// the system does not report whether it does, and no accept succeeds in between. The waits between them add up to two
/// seconds.
const MOST_UNEXPLAINED: u32 = 10;

impl Fault {
    fn of(error: &io::Error, still_listens: impl FnOnce() -> bool) -> Self {
        use io::ErrorKind as Kind;
        match (error.raw_os_error(), error.kind()) {
            (Some(_), _) => {}
            // The runtime that the socket belongs to has ended, and reports no more connections.
            (None, Kind::Other) => return Self::Listener,
            // The standard library refused what accept(2) returned: some systems give no peer address when the
            // connection was reset in the backlog.
            (None, _) => return Self::Connection,
        }
        match error.kind() {
            // accept(2) on Linux: "already-pending network errors on the new socket" are those of the connection.
            Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted | Kind::NotConnected => {
                Self::Connection
            }
            Kind::NetworkDown | Kind::NetworkUnreachable | Kind::HostUnreachable | Kind::TimedOut => Self::Connection,
            // EINVAL, EOPNOTSUPP: the socket does not listen, or no longer listens. But a layer between this process
            // and the system may also return this error for a socket that still listens, and macOS returns it if the
            // peer has gone away. Then a later accept may succeed.
            Kind::InvalidInput | Kind::Unsupported => {
                if still_listens() {
                    Self::System
                } else {
                    Self::Listener
                }
            }
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and system-specific errors, for example EPERM of a firewall or of a
            // security module. Waiting is right if the condition passes, and harmless if it does not.
            _ => Self::System,
        }
    }
}

/// The failures of a listener, and the back-off after them.
#[derive(Debug, Default)]
pub(super) struct AcceptErrors {
    count: u64,
    last: Option<Arc<io::Error>>,
    wait: Duration,
    /// Kept here, not in the future of one accept: dropping that future would also drop the wait.
    retry_at: Option<Instant>,
    /// How many errors may mean that the socket no longer listens, since the last success.
    unexplained: u32,
    refused: u64,
    last_refusal: Option<Refusal>,
}

impl AcceptErrors {
    /// The time at which to accept again, if the last accept failed for lack of a resource.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn status(&self, now: Instant) -> ListenerStatus {
        ListenerStatus {
            accept_errors: self.count,
            last_error: self.last.clone(),
            is_waiting: self.retry_at.is_some_and(|at| at > now),
            is_full: false,
            refused: self.refused,
            last_refusal: self.last_refusal.clone(),
        }
    }

    /// A connection was accepted from the backlog and refused.
    pub(super) fn handle_refusal(&mut self, refusal: Refusal) {
        self.refused += 1;
        self.last_refusal = Some(refusal);
    }

    pub(super) fn handle_success(&mut self) {
        self.wait = Duration::ZERO;
        self.retry_at = None;
        self.unexplained = 0;
    }

    /// `still_listens` is called if the error may mean that the socket no longer listens. `None`: the system does not
    /// report it.
    pub(super) fn handle_error(
        &mut self,
        error: &Arc<io::Error>,
        now: Instant,
        still_listens: impl FnOnce() -> Option<bool>,
    ) -> Fault {
        self.count += 1;
        self.last = Some(Arc::clone(error));
        let fault = Fault::of(error, || {
            still_listens().unwrap_or_else(|| {
                self.unexplained += 1;
                self.unexplained < MOST_UNEXPLAINED
            })
        });
        match fault {
            Fault::System => {
                self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
                self.retry_at = Some(now + self.wait);
            }
            Fault::Connection | Fault::Listener => self.handle_success(),
        }
        fault
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn fault(errno: i32, still_listens: bool) -> Fault {
        Fault::of(&io::Error::from_raw_os_error(errno), || still_listens)
    }

    /// rule: tcp-5
    #[test]
    fn errors_of_a_connection_the_system_and_the_listener_are_distinguished() {
        for errno in [libc::ECONNABORTED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ENETDOWN] {
            assert_eq!(fault(errno, true), Fault::Connection, "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EPERM, libc::EACCES] {
            assert_eq!(fault(errno, true), Fault::System, "{errno}");
        }
        assert_eq!(Fault::of(&io::ErrorKind::InvalidInput.into(), || true), Fault::Connection);
    }

    /// rule: tcp-5
    #[test]
    fn einval_ends_a_listener_only_if_it_no_longer_listens() {
        for errno in [libc::EINVAL, libc::EOPNOTSUPP] {
            assert_eq!(fault(errno, false), Fault::Listener, "{errno}");
            assert_eq!(fault(errno, true), Fault::System, "{errno}");
        }
    }

    /// rule: tcp-5
    #[test]
    fn einval_must_repeat_if_the_system_does_not_report_whether_a_socket_listens() {
        let (einval, aborted) = (libc::EINVAL, libc::ECONNABORTED);
        let mut errors = AcceptErrors::default();
        let mut after = |errno| {
            let error = Arc::new(io::Error::from_raw_os_error(errno));
            errors.handle_error(&error, Instant::now(), || None)
        };
        // The error of a connection shows that the socket listens.
        for _ in 0..9 {
            assert_eq!(after(einval), Fault::System);
        }
        assert_eq!(after(aborted), Fault::Connection);
        for _ in 0..9 {
            assert_eq!((after(einval), after(libc::EMFILE)), (Fault::System, Fault::System));
        }
        assert_eq!(after(einval), Fault::Listener);
    }

    /// rule: life-6
    #[test]
    fn the_end_of_the_runtime_is_the_end_of_the_listener() {
        assert_eq!(Fault::of(&io::Error::other("the runtime has ended"), || true), Fault::Listener);
    }

    /// rule: tcp-5
    #[test]
    fn the_wait_doubles_up_to_a_second_and_a_success_ends_it() {
        let out_of_descriptors = Arc::new(io::Error::from_raw_os_error(libc::EMFILE));
        let now = Instant::now();
        let mut errors = AcceptErrors::default();
        let waits: Vec<u128> = (0..10)
            .map(|_| {
                errors.handle_error(&out_of_descriptors, now, || Some(true));
                (errors.retry_at().unwrap() - now).as_millis()
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(errors.status(now).is_waiting);
        errors.handle_success();
        assert_eq!(errors.retry_at(), None);
        let status = errors.status(now);
        assert_eq!((status.accept_errors, status.is_waiting), (10, false));
        errors.handle_error(&out_of_descriptors, now, || Some(true));
        assert_eq!(errors.retry_at(), Some(now + FIRST_WAIT));
    }
}
