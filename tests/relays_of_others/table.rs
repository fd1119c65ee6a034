//! The committed table, and the table of this run.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Row;
use crate::cases::CASES;

const BEGIN: &str = "<!-- relays -->\n";
const END: &str = "<!-- end of relays -->";

/// Programs as columns: the cases are sentences.
pub(crate) fn full(rows: &[Row]) -> String {
    let mut out = String::from("| what |");
    rows.iter().for_each(|row| write!(out, " {} {} |", row.name, row.version).unwrap());
    write!(out, "\n|---|{}", "---|".repeat(rows.len())).unwrap();
    for (n, case) in CASES.iter().enumerate() {
        write!(out, "\n| {} |", case.what).unwrap();
        for row in rows {
            let text = row.cells[n].text();
            let mark = if case.is_right(&row.cells[n]) { "" } else { "**" };
            write!(out, " {mark}{text}{mark} |").unwrap();
        }
    }
    out.push('\n');
    out
}

/// Writes the table if `UPDATE_DOCS` is set. Otherwise compares each program whose version is the committed one, cell
/// by cell. A run may observe fewer results than are committed, because some results depend on a race.
pub(crate) fn check_or_update(rows: &[Row]) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        write_section("docs/relay.md", &full(rows));
        return;
    }
    let text = fs::read_to_string(root("docs/relay.md")).unwrap();
    let section = text.split_once(BEGIN).unwrap().1.split_once(END).unwrap().0;
    let lines: Vec<Vec<&str>> = section.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    for row in rows {
        let head = format!("{} {}", row.name, row.version);
        let Some(column) = lines[0].iter().position(|cell| *cell == head) else {
            println!("{head} is not in docs/relay.md: nothing is compared");
            continue;
        };
        for (n, case) in CASES.iter().enumerate() {
            let committed: Vec<&str> = lines[n + 1][column].trim_matches('*').split(" / ").collect();
            let is_known = row.cells[n].0.iter().all(|seen| committed.contains(&seen.as_str()));
            assert!(is_known, "{head}: {}: {}, and not {committed:?}", case.what, row.cells[n].text());
        }
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn write_section(path: &str, table: &str) {
    let text = fs::read_to_string(root(path)).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{path} has no {BEGIN:?}"));
    let (_, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{path} has no {END:?}"));
    fs::write(root(path), format!("{head}{BEGIN}\n{table}\n{END}{tail}")).unwrap();
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
