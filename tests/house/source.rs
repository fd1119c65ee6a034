//! The files of the repository, as text.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One Rust file.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The code without comments, up to the tests inside the file. One entry a line, counted from one.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = |line: &&str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        let lines = self.text.lines().take_while(move |line| !tests(line));
        lines.enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Whether the whole file is a test.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

/// Every Rust file under a folder of the repository, sorted by path.
pub(crate) fn files(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap();
    let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    Source { path, text }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
