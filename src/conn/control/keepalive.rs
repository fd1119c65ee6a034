//! Keep-alive (rule: tcp-2). Windows sets both times with one call and cannot report them, so this module stores them.

use std::io;
#[cfg(any(windows, bowline_portable))]
use std::{sync::PoisonError, time::Duration};

use super::Control;
use crate::conn::socket::Keepalive;

#[cfg(not(any(windows, bowline_portable)))]
impl Control {
    pub(crate) fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        self.with_socket(|socket| socket.keepalive())
    }

    pub(crate) fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.with_socket(|socket| socket.set_keepalive(keepalive))
    }
}

#[cfg(any(windows, bowline_portable))]
impl Control {
    pub(crate) fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        let reported = self.with_socket(|socket| socket.keepalive())?;
        let kept = *self.make_rare().keepalive.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reported.map(|reported| Keepalive { count: reported.count, ..kept }))
    }

    pub(crate) fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        let mut kept = self.make_rare().keepalive.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = keepalive.map(|wanted| with_both_times(wanted, *kept));
        self.with_socket(|socket| socket.set_keepalive(wanted))?;
        *kept = wanted.unwrap_or(*kept);
        Ok(())
    }
}

/// The call that sets one time also sets the other one. A time that was never set gets the default that Windows
/// documents.
#[cfg(any(windows, bowline_portable))]
fn with_both_times(wanted: Keepalive, kept: Keepalive) -> Keepalive {
    if wanted == Keepalive::default() {
        return kept;
    }
    Keepalive {
        idle: wanted.idle.or(kept.idle).or(Some(Duration::from_secs(2 * 60 * 60))),
        interval: wanted.interval.or(kept.interval).or(Some(Duration::from_secs(1))),
        count: wanted.count.or(kept.count),
    }
}
