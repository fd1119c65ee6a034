//! Stores mails on disk. A mail is either complete or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A directory with `tmp`, `new` and `cur`. A mail appears in `new` only when it is complete and on disk.
pub(crate) struct Maildir {
    dir: PathBuf,
    delivered: AtomicU64,
}

impl Maildir {
    /// Opens the directory, and creates what is missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(part))?;
        }
        Ok(Self { dir: dir.to_owned(), delivered: AtomicU64::new(0) })
    }

    /// Creates a mail in `tmp`.
    fn draft(&self) -> io::Result<Draft> {
        let name = self.name();
        let (tmp, new) = (self.dir.join("tmp").join(&name), self.dir.join("new").join(&name));
        let file = OpenOptions::new().write(true).create_new(true).open(&tmp)?;
        Ok(Draft { file, tmp, new })
    }

    /// A unique name. No other delivery has it: not in this process, not in another one, and not in an earlier process
    /// with the same process id.
    fn name(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let n = self.delivered.fetch_add(1, Ordering::Relaxed);
        format!("{}.M{:06}P{}Q{n}.bowline", now.as_secs(), now.subsec_micros(), process::id())
    }
}

/// An incomplete mail. If it is dropped before delivery, its file is removed.
struct Draft {
    file: File,
    tmp: PathBuf,
    new: PathBuf,
}

impl Draft {
    /// After this returns, the mail survives a loss of power.
    fn deliver(&mut self, maildir: &Maildir) -> io::Result<()> {
        self.file.sync_all()?;
        // This is a link and not a rename: if the name is taken, a link fails, and a rename would overwrite the other
        // mail.
        fs::hard_link(&self.tmp, &self.new)?;
        File::open(maildir.dir.join("new"))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // If this fails, mail readers remove the file from `tmp` after some hours. The mail in `new` stays.
        let _ = fs::remove_file(&self.tmp);
    }
}

/// Writes one mail to the disk, piece by piece. The calls block, so they run on the threads for blocking work.
#[derive(Default)]
pub(crate) struct Spool {
    draft: Option<Draft>,
    failure: Option<io::Error>,
}

impl Spool {
    /// Writes the next piece. A failure is reported at the end.
    pub(crate) fn write(&mut self, maildir: &Maildir, piece: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.try_write(maildir, piece).err();
        }
    }

    /// Writes the last piece, and delivers the mail.
    pub(crate) fn deliver(&mut self, maildir: &Maildir, last: &[u8]) -> io::Result<()> {
        self.write(maildir, last);
        match (self.failure.take(), self.draft.take()) {
            (Some(failure), _) => Err(failure),
            (None, Some(mut draft)) => draft.deliver(maildir),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn try_write(&mut self, maildir: &Maildir, piece: &[u8]) -> io::Result<()> {
        let draft = match &mut self.draft {
            Some(draft) => draft,
            none => none.insert(maildir.draft()?),
        };
        draft.file.write_all(piece)
    }
}
