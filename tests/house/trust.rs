//! The page docs/trust.md: one file of tests/trust/ for each row, with lines `key: value`.

use std::fs;

use crate::generated::check_section;
use crate::source::root;

const KEYS: [&str; 5] = ["check", "count", "command", "where", "date"];

/// The places where a check runs.
const PLACES: [&str; 3] = ["CI", "nightly", "by hand"];

#[test]
fn the_page_of_trust_has_every_row() {
    let mut rows = Vec::new();
    for entry in fs::read_dir(root().join("tests/trust")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        rows.push((name, fs::read_to_string(path).unwrap()));
    }
    rows.sort();
    let mut table = String::from("| check | count | command | where | last seen |\n|---|---|---|---|---|\n");
    for (name, text) in rows {
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("tests/trust/{name}: there is no line `{key}: `"))
        };
        assert_eq!(text.lines().count(), KEYS.len(), "tests/trust/{name}: a row has the lines {KEYS:?}");
        let [check, count, command, place, date] = KEYS.map(value);
        assert!(PLACES.contains(&place), "tests/trust/{name}: `where` is one of {PLACES:?}");
        table.push_str(&format!("| {check} | {count} | `{command}` | {place} | {date} |\n"));
    }
    check_section("docs/trust.md", "rows", &table);
}
