//! Text that is generated from the code and committed.

use std::fs;

use crate::source::root;

/// Compares a committed file with its expected content, or writes it if `UPDATE_DOCS` is set.
pub(crate) fn check_file(path: &str, expected: &str) {
    let file = root().join(path);
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed == expected {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, expected).unwrap();
        return;
    }
    let line = committed.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| committed.lines().count().min(expected.lines().count()));
    panic!(
        "{path} is stale at line {}; UPDATE_DOCS=1 cargo test --test house writes it anew\n  there: {:?}\n  due:   {:?}",
        line + 1,
        committed.lines().nth(line).unwrap_or_default(),
        expected.lines().nth(line).unwrap_or_default(),
    );
}

/// As `check_file`, for the part of a file between `<!-- name -->` and `<!-- end of name -->`.
pub(crate) fn check_section(path: &str, name: &str, expected: &str) {
    // Two sections of one file may be written at the same time.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = fs::read_to_string(root().join(path)).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin:?}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end:?}"));
    check_file(path, &format!("{head}{begin}\n{expected}\n{end}{tail}"));
}
