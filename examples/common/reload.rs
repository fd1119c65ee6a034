//! Loads a TLS configuration again when the contents of its files have changed, or on request.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bowline::{Error, ServerTls};

use crate::signals::Hangups;

/// The result of a reload.
#[derive(Debug)]
pub(crate) enum Reloaded {
    /// Another configuration is in use.
    Changed,
    /// The files have not changed since the last reload.
    Unchanged,
    /// The files cannot be used, and the old configuration stays in use. This is reported once for each content.
    Failed(Error),
}

impl Reloaded {
    /// The outcome in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Changed => "ok",
            Self::Unchanged => "unchanged",
            Self::Failed(_) => "failed",
        }
    }
}

/// A configuration and its files.
pub(crate) struct Watched<F> {
    pub(crate) tls: ServerTls,
    /// Files, and directories of files.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) every: Duration,
    /// Reads and checks all files.
    pub(crate) load: F,
}

/// Checks the files at intervals until it is dropped.
pub(crate) async fn watch<F>(watched: Watched<F>, mut hangups: Hangups, tell: impl Fn(Reloaded))
where
    F: Fn() -> Result<ServerTls, Error> + Send + Sync + 'static,
{
    let Watched { tls, files, every, load } = watched;
    let (files, load) = (Arc::new(files), Arc::new(load));
    // The first check always loads the files: they may have changed since they were first loaded.
    let mut seen = None;
    let mut has_failed = false;
    loop {
        let is_asked = tokio::select! {
            () = hangups.next() => true,
            () = tokio::time::sleep(every) => false,
        };
        let (files, load) = (Arc::clone(&files), Arc::clone(&load));
        // A slow disk must not delay connections.
        let looked = tokio::task::spawn_blocking(move || {
            let now = fingerprint(&files);
            let is_due = Some(now) != seen || (is_asked && !has_failed);
            (now, is_due.then(|| load()))
        });
        let Ok((now, Some(loaded))) = looked.await else { continue };
        seen = Some(now);
        has_failed = loaded.is_err();
        match loaded {
            Ok(new) => {
                let before = tls.generation();
                if tls.replace(new) != before {
                    tell(Reloaded::Changed);
                } else if is_asked {
                    tell(Reloaded::Unchanged);
                }
            }
            Err(error) => tell(Reloaded::Failed(error)),
        }
    }
}

/// The time at which the first certificate expires, as in RFC 3339.
pub(crate) fn first_end(tls: &ServerTls) -> Option<String> {
    tls.identities().iter().filter_map(|identity| identity.not_after).min().map(rfc3339)
}

/// The contents of all files, as a number.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.iter().for_each(|path| add(path, 2, &mut hasher));
    hasher.finish()
}

/// Adds a file, or all files of a directory down to this depth. Links are followed.
fn add(path: &Path, depth: usize, hasher: &mut DefaultHasher) {
    path.hash(hasher);
    if !path.is_dir() {
        return fs::read(path).ok().hash(hasher);
    }
    let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with('.')).collect();
    names.sort();
    if depth > 0 {
        names.iter().for_each(|name| add(&path.join(name), depth - 1, hasher));
    }
}

fn rfc3339(time: SystemTime) -> String {
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
