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
        let end = self.first_line_of_tests().unwrap_or(usize::MAX);
        let lines = self.text.lines().take(end).enumerate();
        lines.map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Where the tests inside the file begin, counted from zero.
    pub(crate) fn first_line_of_tests(&self) -> Option<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins =
            |pair: &[&str]| pair[0].starts_with("#[cfg(") && pair[0].contains("test") && pair[1] == "mod tests {";
        lines.windows(2).position(begins)
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
