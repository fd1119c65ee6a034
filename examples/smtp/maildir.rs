//! Mails on disk: whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A directory with `tmp`, `new` and `cur`. A mail is in `new` when it is whole and on disk, and not before.
pub(crate) struct Maildir {
    dir: PathBuf,
    delivered: AtomicU64,
}

impl Maildir {
    /// Opens it, and makes what is not there.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(part))?;
        }
        Ok(Self { dir: dir.to_owned(), delivered: AtomicU64::new(0) })
    }

    /// Delivers one mail. When this returns, a loss of power takes it away no more.
    pub(crate) fn deliver(&self, parts: &[&[u8]]) -> io::Result<()> {
        let name = self.name();
        let (tmp, new) = (self.dir.join("tmp").join(&name), self.dir.join("new").join(&name));
        let outcome = write(&tmp, parts)
            // A link, not a rename: a name that is taken is an error, never another mail lost.
            .and_then(|()| fs::hard_link(&tmp, &new))
            .and_then(|()| File::open(self.dir.join("new"))?.sync_all());
        // Left behind it is rubbish that mail readers clear away after some hours; a mail that is in `new` stays there.
        let _ = fs::remove_file(&tmp);
        outcome
    }

    /// No other delivery has this name: not one of this process, of another, or of one that had its number before.
    fn name(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let n = self.delivered.fetch_add(1, Ordering::Relaxed);
        format!("{}.M{:06}P{}Q{n}.bowline", now.as_secs(), now.subsec_micros(), process::id())
    }
}

fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}
