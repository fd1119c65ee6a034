//! Checks the imports in src/: they only go to lower levels, and no circle of imports joins two files. The latter is
//! checked in bench/src/ too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::generated::check_section;
use crate::source::{Source, files};

/// The levels, lowest first. A folder (or a file at the top of src/) imports from the levels below its own only: not
/// from above, and not from another one of its level.
const LEVELS: [(&str, &[&str]); 13] = [
    ("a peer's text, made safe to print; locks and atomic counters", &["escape", "sync"]),
    ("addresses; the fields of certificates", &["address", "certificate"]),
    ("the PROXY header", &["proxy"]),
    ("errors, and reasons of an end", &["error"]),
    ("bounds and choices of a connection", &["policy"]),
    ("decisions: no socket, no clock, no runtime", &["core"]),
    ("TLS configuration; what every connection has (`Control`, group, bounds, socket)", &["config", "conn"]),
    ("the traits of transports, and the futures that their methods return; observers", &["transport", "observers"]),
    ("the layers: TCP, streams, TLS, upgradable connections; dialogues before TLS", &["layers", "starttls"]),
    ("connecting, accepting, relaying, reloading", &["client", "server", "relay", "reload", "rotation"]),
    ("endpoint strings; callbacks", &["endpoint", "protocol"]),
    (
        "sockets for a successor; the traits of frameworks: hyper, axum, tonic, tokio-postgres",
        &["adapters", "handover"],
    ),
    ("for tests", &["testing"]),
];

/// The folders and files that may name rustls.
const NAMES_RUSTLS: [&str; 11] = [
    "src/core/session/",
    "src/core/alert.rs",
    "src/core/binding.rs",
    "src/core/client_hello",
    "src/core/engine/",
    "src/core/facts.rs",
    "src/core/settings.rs",
    "src/core/tls_vector.rs",
    "src/config/",
    "src/error/",
    "src/testing/",
];

/// The largest number of lines of a file, and the longer files with the reason.
const MAX_LINES: usize = 450;
const LONGER: [(&str, usize, &str); 2] = [
    ("src/core/session/mod.rs", 585, "one state machine in four families of method, which meet in its fields"),
    ("src/error/mod.rs", 640, "a third of it is what the enums say as text"),
];

fn level(folder: &str) -> usize {
    let found = LEVELS.iter().position(|(_, folders)| folders.contains(&folder));
    found.unwrap_or_else(|| panic!("`{folder}` has no level: give it one in tests/house/layering.rs"))
}

/// The top-level module that a file of src/ belongs to: `src/layers/tls/read.rs` is part of `layers`.
fn top_folder(path: &str) -> &str {
    let rest = inside(path);
    rest.split_once('/').map_or(rest.strip_suffix(".rs").unwrap(), |(folder, _)| folder)
}

/// The path of a file in the `src/` of its crate.
fn inside(path: &str) -> &str {
    path.strip_prefix("bench/").unwrap_or(path).strip_prefix("src/").unwrap()
}

/// The module of a file: `src/layers/tls/mod.rs` is `layers`, `tls`.
fn module(path: &str) -> Vec<String> {
    let path = inside(path).strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').filter(|name| !ROOTS.contains(name)).map(str::to_owned).collect()
}

/// The files that contain the root module of a crate.
const ROOTS: [&str; 2] = ["lib", "main"];

/// The folder of a file.
fn folder(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

/// Every path in the code of a file that begins with `crate`, `super` or `self`, a list in braces as its members.
fn paths(source: &Source) -> Vec<Vec<String>> {
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let code = code.join("\n");
    let mut paths = Vec::new();
    for begin in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(begin) {
            let is_word = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "_:".contains(c));
            if !is_word {
                members(&[begin.trim_end_matches(':').to_owned()], &code[at + begin.len()..], &mut paths);
            }
        }
    }
    paths
}

/// Adds the path that follows `before`, or the paths of a list in braces.
fn members(before: &[String], rest: &str, paths: &mut Vec<Vec<String>>) {
    let rest = rest.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        top_level_members(list).into_iter().for_each(|member| members(before, member, paths));
        return;
    }
    let name = identifier(rest);
    let after = &rest[name.len()..];
    let mut path = before.to_vec();
    // `{self, Name}` names the module itself.
    if name != "self" {
        path.push(name);
    }
    match after.strip_prefix("::") {
        Some(after) => members(&path, after, paths),
        None => paths.push(path),
    }
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_level_members(list: &str) -> Vec<&str> {
    let (mut members, mut depth, mut start) = (Vec::new(), 0, 0);
    for (n, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(&list[start..n]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(&list[start..n]);
                start = n + 1;
            }
            _ => {}
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

/// The files of src/ that each file imports from. A name without its module comes from `src/lib.rs`.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    imports_of("src")
}

fn imports_of(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let is_part = |source: &Source| !source.is_test() && !source.path.contains("/src/bin/");
    let sources: Vec<Source> = files(folder).into_iter().filter(is_part).collect();
    let modules: BTreeMap<Vec<String>, &str> =
        sources.iter().map(|source| (module(&source.path), source.path.as_str())).collect();
    let mut imports = BTreeMap::new();
    for source in sources.iter().filter(|source| !module(&source.path).is_empty()) {
        let of: BTreeSet<String> = paths(source)
            .into_iter()
            .map(|path| file_of(&modules, &module(&source.path), &path).to_owned())
            .filter(|file| *file != source.path)
            .collect();
        imports.insert(source.path.clone(), of);
    }
    imports
}

/// The file that a path leads to, from a module.
fn file_of<'a>(modules: &BTreeMap<Vec<String>, &'a str>, from: &[String], path: &[String]) -> &'a str {
    let mut at = if path[0] == "crate" { Vec::new() } else { from.to_vec() };
    for name in path {
        match name.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            name => at.push(name.to_owned()),
        }
    }
    (0..=at.len()).rev().find_map(|n| modules.get(&at[..n])).expect("lib.rs is the module without a name")
}

/// The files that a file imports from, directly or indirectly.
fn reached<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = imports.get(from).into_iter().flatten().map(String::as_str).collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(imports.get(file).into_iter().flatten().map(String::as_str));
        }
    }
    reached
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for (file, imported) in imports() {
        for to in imported.iter().filter(|to| *to != "src/lib.rs") {
            let (from, into) = (top_folder(&file), top_folder(to));
            if from != into && level(from) <= level(into) {
                wrong.push(format!("{file} imports from {to}, which is not below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_circle_of_imports_spans_folders() {
    let imports = imports();
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (file.as_str(), reached(&imports, file))).collect();
    let is_circle = |a: &str, b: &str| reached[a].contains(b) && reached.get(b).is_some_and(|of| of.contains(a));
    let mut wrong = Vec::new();
    for (file, imported) in &imports {
        for to in imported.iter().filter(|to| folder(to) != folder(file) && is_circle(file, to)) {
            wrong.push(format!("{file} imports from {to}, which leads back to it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Here not even a child may import from its parent: the interface comes first, and `conn.rs` holds the types that name
/// each other.
#[test]
fn the_files_of_the_callback_face_import_in_one_direction() {
    let imports = imports();
    for file in imports.keys().filter(|file| file.starts_with("src/protocol/")) {
        assert!(!reached(&imports, file).contains(file.as_str()), "the imports of {file} lead back to it");
    }
}

/// Whether `parent` is the module that contains `file`, directly or not.
fn is_inside(file: &str, parent: &str) -> bool {
    let (file, parent) = (module(file), module(parent));
    file.len() > parent.len() && file.starts_with(&parent)
}

/// A module may use its children and be used by them: a child adds methods to a type of its parent, and the parent
/// exports what its children define. So imports from a parent do not count here, but any longer circle does.
#[test]
fn no_circle_of_imports_joins_two_files() {
    for folder in ["src", "bench/src"] {
        no_circle_joins_two_files(imports_of(folder));
    }
}

fn no_circle_joins_two_files(mut imports: BTreeMap<String, BTreeSet<String>>) {
    for (file, imported) in &mut imports {
        imported.retain(|to| !is_inside(file, to));
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (file.as_str(), reached(&imports, file))).collect();
    let is_circle = |a: &str, b: &str| reached.get(b).is_some_and(|of| of.contains(a));
    let mut wrong = Vec::new();
    for (file, imported) in &imports {
        for to in imported.iter().filter(|to| is_circle(file, to)) {
            wrong.push(format!("{file} imports from {to}, which leads back to it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_inside_imports_from_the_crates_root() {
    for (file, imported) in imports().into_iter().chain(imports_of("bench/src")) {
        let root = imported.iter().find(|to| module(to).is_empty());
        assert!(root.is_none(), "{file} imports from {root:?}: name the module instead");
    }
}

#[test]
fn every_folder_is_on_one_level() {
    let folders: BTreeSet<String> = files("src")
        .iter()
        .map(|source| top_folder(&source.path).to_owned())
        .filter(|folder| folder != "lib")
        .collect();
    let placed: Vec<&str> = LEVELS.iter().flat_map(|(_, folders)| folders.iter().copied()).collect();
    assert_eq!(placed.iter().copied().collect::<BTreeSet<_>>(), folders.iter().map(String::as_str).collect());
    assert_eq!(placed.len(), folders.len(), "a folder stands on two levels");
}

#[test]
fn rustls_is_named_only_in_its_folders() {
    for source in files("src").iter().filter(|source| source.path != "src/lib.rs") {
        let may = NAMES_RUSTLS.iter().any(|place| source.path.starts_with(place));
        for (line, code) in source.code().filter(|(_, code)| code.contains("rustls::")) {
            // `tokio_rustls` is another crate.
            let own = code.replace("tokio_rustls::", "").contains("rustls::");
            assert!(may || !own, "{}:{line} names rustls", source.path);
        }
    }
}

#[test]
fn the_core_knows_no_socket_no_clock_and_no_runtime() {
    let foreign = ["tokio", "socket2", "rustix", "libc::", "std::net::Tcp", "Instant", "SystemTime", "std::thread"];
    for source in files("src/core") {
        for (line, code) in source.code().filter(|(_, code)| !code.starts_with("#[cfg(feature")) {
            let named = foreign.iter().find(|word| code.contains(**word));
            assert!(named.is_none(), "{}:{line} names {named:?}", source.path);
        }
    }
}

#[test]
fn unsafe_code_is_only_in_the_file_of_the_socket() {
    for source in files("src").iter().filter(|source| source.path != "src/conn/socket.rs") {
        for (line, code) in source.code() {
            assert!(!code.contains("unsafe"), "{}:{line} is unsafe", source.path);
        }
    }
}

#[test]
fn a_heading_has_its_line_for_itself() {
    for source in files("src") {
        for (n, line) in source.text.lines().enumerate() {
            let heading = line.trim().strip_prefix("/// # ").unwrap_or_default();
            let of_ours = ["Errors", "Panics", "Cancel safety"].into_iter().find(|of| heading.starts_with(of));
            assert!(of_ours.is_none_or(|of| heading == of), "{}:{}: text on the line of a heading", source.path, n + 1);
        }
    }
}

#[test]
fn files_are_short_enough_to_be_read() {
    for source in files("src") {
        let lines = source.text.lines().count();
        let longer = LONGER.iter().find(|(path, _, _)| *path == source.path);
        let limit = longer.map_or(MAX_LINES, |(_, limit, _)| *limit);
        assert!(lines <= limit, "{} has {lines} lines, {limit} are allowed: which second idea moved in?", source.path);
        assert!(longer.is_none() || lines > MAX_LINES, "{} is no exception any more", source.path);
    }
}

#[test]
fn the_levels_are_documented() {
    let mut out = String::from("| level | what | in src/ |\n|---|---|---|\n");
    for (n, (what, folders)) in LEVELS.iter().enumerate().rev() {
        let folders: Vec<String> = folders.iter().map(|folder| format!("`{folder}`")).collect();
        writeln!(out, "| {n} | {what} | {} |", folders.join(", ")).unwrap();
    }
    out.push_str("\nFiles of more than 450 lines:\n\n");
    for (path, _, why) in LONGER {
        writeln!(out, "- `{path}`: {why}.").unwrap();
    }
    check_section("docs/architecture.md", "levels", &out);
}
