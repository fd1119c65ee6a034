//! Checks that each boolean field says which fact it is: see "States and booleans" in docs/architecture.md.

use crate::source::files;

/// Whether a line of a struct declares a boolean.
fn is_boolean_field(line: &str) -> bool {
    let Some((name, of)) = line.trim().trim_start_matches("pub ").split_once(": ") else { return false };
    let name = name.rsplit(' ').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_name && ["bool,", "AtomicBool,", "[bool; 2],", "[AtomicBool; 2],"].contains(&of)
}

/// The line that opens the block of this line: the first one above it with a smaller indent.
fn opener<'a>(lines: &[&'a str], n: usize) -> &'a str {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let above = lines[..n].iter().rev();
    above.copied().find(|line| !line.trim().is_empty() && indent(line) < indent(lines[n])).unwrap_or_default()
}

#[test]
fn each_boolean_field_says_which_fact_it_is() {
    for source in files("src").iter().filter(|source| !source.is_test() && !source.path.starts_with("src/testing/")) {
        let end = source.first_line_of_tests().unwrap_or(usize::MAX);
        let lines: Vec<&str> = source.text.lines().take(end).collect();
        for n in (1..lines.len()).filter(|n| is_boolean_field(lines[*n])) {
            let opener = opener(&lines, n);
            let is_parameter = opener.contains("fn ") || opener.ends_with('(');
            // One comment may stand above several fields.
            let above = lines[..n].iter().rev().find(|line| !is_boolean_field(line)).unwrap();
            assert!(
                is_parameter || above.trim().starts_with("//"),
                "{}:{}: say which fact the boolean is, and why it is no variant of an enum",
                source.path,
                n + 1
            );
        }
    }
}
