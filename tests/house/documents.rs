//! Checks the hand-written pages: tables stay tables, and the files that they name exist.

use std::fs;

use crate::source::root;

/// The pages that are written by hand, at least in part.
fn pages() -> Vec<(String, String)> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let at_top = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let pages = in_docs.chain(at_top).filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    pages.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// A row that is wrapped ends its table.
#[test]
fn each_row_of_a_table_is_one_line() {
    for (name, text) in pages() {
        let lines: Vec<&str> = text.lines().collect();
        for (n, pair) in lines.windows(2).enumerate().filter(|(_, pair)| pair[0].starts_with("| ")) {
            assert!(pair[0].ends_with('|'), "{name}:{}: the row goes on in the next line", n + 1);
            assert!(pair[1].is_empty() || pair[1].starts_with(['|', '<']), "{name}:{}: not a row", n + 2);
        }
    }
}

/// The answers to "what has to be changed for this?" lead to files that exist.
#[test]
fn the_table_of_changes_names_files_that_exist() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = page.split("\n## ").find(|section| section.starts_with("To change something")).unwrap();
    let is_path = |word: &&str| word.contains('/') && word.chars().all(|c| c.is_ascii_lowercase() || "/_.".contains(c));
    // Every second part is between backticks.
    for path in table.split('`').skip(1).step_by(2).filter(is_path) {
        let exists = [root().join("src").join(path), root().join(path)].iter().any(|path| path.exists());
        assert!(exists, "docs/architecture.md names `{path}`");
    }
}

/// The hosted workflows and the page for contributors start scripts that exist.
#[test]
fn the_workflows_call_scripts_that_exist() {
    let workflows = fs::read_dir(root().join(".github/workflows")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = 0;
    for file in workflows.chain([root().join("CONTRIBUTING.md")]) {
        let text = fs::read_to_string(&file).unwrap();
        let scripts = text.split(|c: char| c.is_whitespace() || c == '`').filter(|word| word.starts_with(".ci/"));
        for script in scripts.map(|word| word.trim_end_matches(['.', ',', ':', ';', ')'])) {
            assert!(root().join(script).is_file(), "{} names {script}", file.display());
            found += 1;
        }
    }
    assert!(found >= 5, "only {found} calls were found");
}
