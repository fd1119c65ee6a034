//! Catches the panics of foreign code: callbacks, wakers, streams, and the application's parts of a rustls
//! configuration (rule: life-7).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `call`. If it panics, `describe` converts the panic to an error.
pub(crate) fn catch<R, E>(call: impl FnOnce() -> R, describe: impl FnOnce(&(dyn Any + Send)) -> E) -> Result<R, E> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let error = describe(&*payload);
        // The destructor of the payload is foreign code too. If it panics, its own payload is leaked, because
        // dropping that payload could cause another panic.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(payload);
        }
        error
    })
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// A payload that panics when it is dropped, with a payload that does the same.
    struct Bomb(u8);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_result_is_passed_on() {
        assert_eq!(catch(|| 7, |_| ()), Ok(7));
    }

    /// rule: life-7
    #[test]
    fn a_payload_that_panics_when_it_is_dropped_is_caught() {
        let call = || catch(|| panic_any(Bomb(2)), |payload| payload.is::<Bomb>());
        // A payload that escapes would panic again when the test's own runner drops it.
        let caught: Option<Result<(), bool>> = catch_unwind(call).map_err(std::mem::forget).ok();
        assert_eq!(caught, Some(Err(true)));
    }
}
