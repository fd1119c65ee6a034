//! Reads all files of a configuration in one revision.
//!
//! Kubernetes replaces all files of a volume at once, by changing the link `..data`. A reader that follows the link for
//! each file may get the certificate of one revision and the key of another. So each link is followed once
//! (rule: reload-4).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Whether the files were read before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reading {
    #[default]
    First,
    /// The first reading has emptied each pipe, so opening a pipe again could wait forever.
    Again,
}

/// The folders of the files that were read, and the target of each folder's link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Volumes {
    led: BTreeMap<PathBuf, Option<PathBuf>>,
    /// A file could not be read, or a link could not be resolved.
    has_failed: bool,
    reading: Reading,
}

impl Volumes {
    /// Reads the files. If a file could not be read, and the link of a folder has changed, then the old revision may
    /// have been removed in the meantime. In this case, the new revision is read.
    pub(super) fn read<T, E>(reading: Reading, read: impl Fn(&mut Self) -> Result<T, E>) -> Result<T, E> {
        const ATTEMPTS: usize = 100;
        let mut reading = reading;
        for _ in 1..ATTEMPTS {
            let mut volumes = Self { reading, ..Self::default() };
            let result = read(&mut volumes);
            let has_failed = volumes.has_failed || result.is_err();
            if !has_failed || volumes.led.iter().all(|(folder, led)| led == &fs::canonicalize(folder).ok()) {
                return result;
            }
            // The failed attempt may have emptied a pipe.
            reading = Reading::Again;
        }
        read(&mut Self { reading, ..Self::default() })
    }

    /// Whether the file can be read (again).
    pub(super) fn check(&self, path: &Path) -> io::Result<()> {
        let is_lasting = |found: fs::Metadata| found.is_file() || found.is_dir();
        match self.reading == Reading::First || fs::metadata(path).map_or(true, is_lasting) {
            true => Ok(()),
            false => {
                let why = "it is a pipe or a device, whose contents can be read only once";
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }

    /// Records that a file could not be read.
    pub(super) fn note_failure(&mut self) {
        self.has_failed = true;
    }

    /// The path of a file in the revision that is being read.
    pub(super) fn place(&mut self, path: &Path) -> PathBuf {
        for folder in path.ancestors().skip(1) {
            let Some(inside) = of_revision(folder, path) else { continue };
            if let Some(led) = self.leads(&folder.join(DATA)) {
                return led.join(inside);
            }
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let inside = parent.and_then(|parent| self.leads(parent)).zip(path.file_name());
        inside.map_or_else(|| path.to_owned(), |(led, name)| led.join(name))
    }

    /// Returns the directory with the files of `dir` in the revision that is being read.
    pub(super) fn revision_of(&mut self, dir: &Path) -> io::Result<PathBuf> {
        let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_symlink());
        let data = dir.join(DATA);
        let link = match data.symlink_metadata().is_ok() {
            true => data,
            // The directory itself may be a link through the `..data` of its volume.
            false if is_link(dir) => self.place(dir),
            false => return Ok(dir.to_owned()),
        };
        let failed = || fs::canonicalize(&link).err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
        self.leads(&link).ok_or_else(failed)
    }

    fn leads(&mut self, folder: &Path) -> Option<PathBuf> {
        let led = self.led.entry(folder.to_owned()).or_insert_with(|| fs::canonicalize(folder).ok()).clone();
        self.has_failed |= led.is_none();
        led
    }
}

/// The link to the revision of a volume.
pub(super) const DATA: &str = "..data";

/// The path of a file inside the revisions of a volume. `None` if the folder is no volume, or if the file is outside of
/// its revisions: a volume may contain other mounts too.
fn of_revision(volume: &Path, path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(volume).ok()?;
    let first = rest.iter().next()?;
    let target = fs::read_link(volume.join(first)).ok()?;
    // Joining an empty path would end the name of the file with a slash.
    Some(target.strip_prefix(DATA).ok()?.iter().chain(rest.iter().skip(1)).collect())
}
