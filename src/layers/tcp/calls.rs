//! Which halves are inside a system call (rule: end-10).
//!
//! The system reports an error of a socket only once, to one half. The other half gets what follows from it: the end of
//! the input, or a broken pipe. If that half runs in another thread, its result may come before the first half has
//! noted the error. So a half that gets such a result first waits until the other half has left its call.

use std::io;

use crate::conn::waiting::{READER, WRITER};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::yield_now;

/// For each half: whether it is inside a call. The halves of a [`Control::close`](crate::Control::close) share these
/// flags with the halves of the application, which no longer read and write then.
#[derive(Debug, Default)]
pub(super) struct Calls([AtomicBool; 2]);

impl Calls {
    /// Makes a call that does not wait. `note` notes an error of the socket before the call counts as over.
    #[inline]
    pub(super) fn make(
        &self,
        half: usize,
        call: impl FnOnce() -> io::Result<usize>,
        note: impl FnOnce(&io::Error),
    ) -> io::Result<usize> {
        let inside = Inside::enter(&self.0[half]);
        let result = call();
        match &result {
            Ok(1..) => {}
            Err(error) if is_no_result(error) => {}
            last => self.settle(half, last, inside, note),
        }
        result
    }

    #[cold]
    #[inline(never)]
    fn settle(&self, half: usize, last: &io::Result<usize>, inside: Inside<'_>, note: impl FnOnce(&io::Error)) {
        if let Err(error) = last {
            if is_first_report(error) {
                note(error);
                return;
            }
        }
        // Two halves that wait for each other have both left their calls.
        drop(inside);
        let other = &self.0[READER + WRITER - half];
        while other.load(Ordering::Acquire) {
            yield_now();
        }
    }
}

/// Whether a call has to be made again: the readiness was stale, or a signal came. For any other error, no event would
/// report when it is over.
#[inline]
pub(super) fn is_no_result(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether the system reports an error of the socket, and not what follows from an error that was reported before.
fn is_first_report(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

/// A half is inside a call until this is dropped.
struct Inside<'a>(&'a AtomicBool);

impl<'a> Inside<'a> {
    #[inline]
    fn enter(flag: &'a AtomicBool) -> Self {
        // The lock that the system takes on the socket orders this before each later call of another thread.
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};
    use std::thread;

    use super::*;

    /// A system that reports its error once, and then the end of the input to a reader and a broken pipe to a writer.
    fn report_once(error: &AtomicBool, half: usize) -> io::Result<usize> {
        match error.swap(false, Ordering::AcqRel) {
            true => Err(io::ErrorKind::TimedOut.into()),
            false if half == READER => Ok(0),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// rule: end-10
    #[test]
    fn a_half_that_sees_what_follows_from_an_error_knows_the_error() {
        const ROUNDS: usize = 500;
        let rounds: Vec<_> = (0..ROUNDS).map(|_| (Calls::default(), AtomicBool::new(true), Mutex::new(None))).collect();
        let start = Barrier::new(2);
        // The number of rounds in which the half did not know the error. Both halves play all rounds, because they wait
        // for each other.
        let play = |half| {
            let mut unknown = 0;
            for (calls, error, noted) in &rounds {
                start.wait();
                let _ = calls.make(
                    half,
                    || {
                        let result = report_once(error, half);
                        // Another thread may run here.
                        yield_now();
                        result
                    },
                    |error| *noted.lock().unwrap() = Some(error.kind()),
                );
                unknown += usize::from(*noted.lock().unwrap() != Some(io::ErrorKind::TimedOut));
            }
            unknown
        };
        let unknown = thread::scope(|scope| {
            let reader = scope.spawn(|| play(READER));
            (play(WRITER), reader.join().unwrap())
        });
        assert_eq!(unknown, (0, 0));
    }
}
