//! Reloads on SIGHUP, and the time of an expiry in the log.

use std::convert::Infallible;
use std::time::{SystemTime, UNIX_EPOCH};

use bowline::Reloader;

use crate::signals::Hangups;

/// Loads the files again at each SIGHUP, until it is dropped. Without files, SIGHUP must not end the program either.
pub(crate) async fn on_hangups(reloader: Option<&Reloader>, mut hangups: Hangups) -> Infallible {
    loop {
        hangups.next().await;
        if let Some(reloader) = reloader {
            // The result is ignored here, because it comes as an event too.
            let _ = reloader.reload_now().await;
        }
    }
}

/// A time as in RFC 3339.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The days since 1 March of year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}
