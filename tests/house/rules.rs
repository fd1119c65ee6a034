//! The rules of docs/rules.md, and the tests that show them.
//!
//! A test names the rules that it shows in a comment above it or inside it: `rule: write-1, write-2`. A citation
//! anywhere else marks the code that obeys a rule. The `tests:` lines of docs/rules.md are generated from the citations
//! of the tests.
//!
//! A rule that has no code yet has a `planned:` line, written by hand. `partly planned:` means that a part has no code
//! yet; such a rule still needs tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::generated::check_file;
use crate::source::{Source, files, root};

const FILE: &str = "docs/rules.md";

/// The groups of rules, each with the number of its rules.
const GROUPS: [(&str, usize); 23] = [
    ("write", 10),
    ("close", 16),
    ("half", 12),
    ("end", 10),
    ("abort", 5),
    ("upgrade", 12),
    ("secure", 17),
    ("identity", 9),
    ("reload", 8),
    ("ticket", 11),
    ("flow", 7),
    ("life", 7),
    ("tcp", 12),
    ("drain", 5),
    ("handover", 4),
    ("limit", 4),
    ("accept", 6),
    ("hello", 3),
    ("proxy", 7),
    ("idle", 5),
    ("traffic", 2),
    ("observe", 4),
    ("retry", 2),
];

fn contract() -> BTreeSet<String> {
    GROUPS.iter().flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}-{n}"))).collect()
}

fn is_group(word: &str) -> bool {
    GROUPS.iter().any(|(group, _)| *group == word)
}

/// The id at the start of a text, and the rest of the text. If the first part of a word is not the name of a group, the
/// word is not an id.
fn id(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
    let (group, number) = text[..end].split_once('-')?;
    (is_group(group) && number.parse::<usize>().is_ok()).then(|| (text[..end].to_owned(), &text[end..]))
}

/// The ids that a line cites after `rule:` or `rules:`.
fn cited(line: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for begin in ["rule: ", "rules: "] {
        let Some((_, mut rest)) = line.split_once(begin) else { continue };
        while let Some((first, behind)) = id(rest) {
            if let Some((last, behind)) = behind.strip_prefix(" to ").and_then(id) {
                ids.extend(range(&first, &last));
                rest = behind;
            } else {
                ids.push(first);
                rest = behind;
            }
            let Some(next) = rest.strip_prefix(", ").or(rest.strip_prefix(" and ")) else { break };
            rest = next;
        }
    }
    ids
}

fn range(first: &str, last: &str) -> Vec<String> {
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<usize>().unwrap();
    let group = first.split_once('-').unwrap().0;
    (number(first)..=number(last)).map(|n| format!("{group}-{n}")).collect()
}

/// Whether a line has the form of a citation without an id in it. `rule: half-12` has an id, even if that rule does not
/// exist.
fn cites_nothing(line: &str) -> bool {
    line.contains("//") && (line.contains("rule: ") || line.contains("rules: ")) && cited(line).is_empty()
}

/// The name of the function that starts on this line.
fn function(line: &str) -> Option<&str> {
    let rest = line.trim_start();
    let rest = rest.strip_prefix("pub ").unwrap_or(rest);
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest.strip_prefix("fn ")?;
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').map(|end| &rest[..end])
}

/// The name of the test that a macro makes: `over_every_layer!(name, ..)`, at the start of a line.
fn made_by_macro(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once('!')?;
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = rest.trim_start_matches(['(', '{', '[', ' ']);
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').map(|end| &rest[..end]).filter(|name| !name.is_empty())
}

/// The rules that the tests of a file show.
fn shown(source: &Source) -> Vec<(String, String)> {
    let file = source.path.strip_suffix(".rs").unwrap();
    let file = file.strip_prefix("tests/").unwrap_or(file);
    let file = file.strip_suffix("/main").unwrap_or(file);
    let (mut found, mut above, mut is_test) = (Vec::new(), Vec::new(), false);
    let mut current: Option<String> = None;
    let begin = if source.is_test() { Some(0) } else { source.first_line_of_tests() };
    for line in source.text.lines().skip(begin.unwrap_or(usize::MAX)) {
        let line_is_comment = line.trim_start().starts_with("//");
        let name = function(line).or_else(|| made_by_macro(line).filter(|_| !above.is_empty()));
        if let Some(name) = name.filter(|_| !line_is_comment) {
            let is_one = is_test || !above.is_empty();
            current = is_one.then(|| format!("{file}::{name}"));
            if let Some(test) = &current {
                found.extend(above.drain(..).map(|rule| (rule, test.clone())));
            }
            (above, is_test) = (Vec::new(), false);
        } else if line_is_comment && !line.trim_start().starts_with("//!") {
            // A comment inside a function is about that function. A comment that is indented less is about the next
            // function.
            let depth = line.len() - line.trim_start().len();
            match &current {
                Some(test) if depth > 4 || (depth == 4 && source.path.starts_with("tests/")) => {
                    found.extend(cited(line).into_iter().map(|rule| (rule, test.clone())));
                }
                _ => above.extend(cited(line)),
            }
        } else if line.trim_start().starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if line.trim() == "}" && line.len() <= 5 {
            current = None;
        }
    }
    found
}

fn sources() -> Vec<Source> {
    ["src", "tests", "examples"]
        .into_iter()
        .flat_map(files)
        .filter(|source| !source.path.starts_with("tests/house/rules"))
        .collect()
}

/// The rules and the tests that show them, in the order of the files.
fn tests_of_rules() -> BTreeMap<String, Vec<String>> {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (rule, test) in sources().iter().flat_map(shown) {
        let of_rule = tests.entry(rule).or_default();
        if !of_rule.contains(&test) {
            of_rule.push(test);
        }
    }
    tests
}

/// One rule of the document.
struct Rule {
    id: String,
    planned: bool,
}

fn rules(text: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines() {
        if let Some((id, _)) = line.strip_prefix("- **").and_then(id) {
            rules.push(Rule { id, planned: false });
        } else if let Some(rule) = rules.last_mut().filter(|_| line.starts_with("  - planned: ")) {
            rule.planned = true;
        }
    }
    rules
}

fn document() -> String {
    fs::read_to_string(root().join(FILE)).unwrap()
}

#[test]
fn every_rule_of_the_contract_is_in_the_document_once() {
    let text = document();
    let listed: Vec<String> = rules(&text).into_iter().map(|rule| rule.id).collect();
    let set: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), set.len(), "a rule is listed twice");
    assert_eq!(set, contract());
}

#[test]
fn every_citation_names_a_rule() {
    let contract = contract();
    let mut wrong = Vec::new();
    for source in sources() {
        for (n, line) in source.text.lines().enumerate().filter(|(_, line)| line.contains("//")) {
            let unknown: Vec<String> = cited(line).into_iter().filter(|id| !contract.contains(id)).collect();
            if !unknown.is_empty() || cites_nothing(line) {
                wrong.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "these citations name no rule:\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_that_is_not_planned_has_a_test() {
    let tests = tests_of_rules();
    let bare: Vec<String> = rules(&document())
        .into_iter()
        .filter(|rule| !rule.planned && !tests.contains_key(&rule.id))
        .map(|rule| rule.id)
        .collect();
    assert!(bare.is_empty(), "{} rules have no test: {}", bare.len(), bare.join(", "));
}

#[test]
fn the_lists_of_tests_are_those_of_the_tests() {
    let tests = tests_of_rules();
    let mut out = String::new();
    let mut open: Option<String> = None;
    let flush = |open: &mut Option<String>, out: &mut String| {
        if let Some(list) = open.take().and_then(|id| tests.get(&id)) {
            out.push_str(&format!(
                "  - tests: {}\n",
                list.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ")
            ));
        }
    };
    for line in document().lines().filter(|line| !line.starts_with("  - tests: ")) {
        if !line.starts_with("  ") {
            flush(&mut open, &mut out);
        }
        if let Some((id, _)) = line.strip_prefix("- **").and_then(id) {
            open = Some(id);
        }
        out.push_str(line);
        out.push('\n');
    }
    flush(&mut open, &mut out);
    check_file(FILE, &out);
}

#[test]
fn citations_are_read_as_they_are_written() {
    let all = |line: &str| cited(line).join(" ");
    assert_eq!(all("/// rule: write-1"), "write-1");
    assert_eq!(all("// rules: half-2, half-5."), "half-2 half-5");
    assert_eq!(all("(rules: abort-1 to abort-3, end-7)"), "abort-1 abort-2 abort-3 end-7");
    assert_eq!(all("// rule: half-99: no such rule"), "half-99");
    assert_eq!(all("// by rule of thumb"), "");
    assert!(cites_nothing("// rule: nonsense-1"));
}
