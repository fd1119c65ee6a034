//! Who may name whom: arrows go down only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::generated::check_section;
use crate::source::{Source, files};

/// The levels, lowest first. A folder may name what is on its own level and below.
const LEVELS: [(&str, &[&str]); 10] = [
    ("words: errors, choices, addresses", &["error", "escape", "policy", "address"]),
    ("decisions, without a socket or a runtime", &["core"]),
    ("TLS configuration", &["config"]),
    ("what every connection has: handle, group, bounds, socket", &["conn"]),
    ("the traits of transports, and the futures behind their methods", &["transport"]),
    ("the layers that connections are made of", &["layers"]),
    ("where connections come from; two connections in one", &["client", "server", "relay"]),
    ("endpoint strings", &["endpoint"]),
    ("the callback face", &["protocol"]),
    ("for tests", &["testing"]),
];

/// The arrows that go up, each with its reason.
const EXCEPTIONS: [(&str, &str, &str); 2] = [
    ("transport", "layers", "the trait `Split` is implemented beside its definition"),
    ("config", "conn", "`StartTls` asks a connection what it has carried"),
];

/// The rooms that may name rustls.
const NAMES_RUSTLS: [&str; 8] = [
    "src/core/session/",
    "src/core/alert.rs",
    "src/core/engine/",
    "src/core/facts.rs",
    "src/core/settings.rs",
    "src/config/",
    "src/error/",
    "src/testing/",
];

/// How long a file may be, and the files that are longer, with the reason.
const MAX_LINES: usize = 450;
const LONGER: [(&str, usize, &str); 3] = [
    ("src/core/session/mod.rs", 560, "one state machine in four families of method, which meet in its fields"),
    ("src/error/mod.rs", 640, "a third of it is what the enums say as text"),
    ("src/layers/upgradable/mod.rs", 570, "a fifth of it passes calls on to the topmost layer"),
];

fn level(room: &str) -> usize {
    let found = LEVELS.iter().position(|(_, rooms)| rooms.contains(&room));
    found.unwrap_or_else(|| panic!("`{room}` has no level: give it one in tests/house/layering.rs"))
}

/// The room that a file of src/ belongs to: `src/layers/tls/read.rs` is part of `tls`.
fn room(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split_once('/').map_or(rest.strip_suffix(".rs").unwrap(), |(folder, _)| folder)
}

/// What follows each `crate::` in the code of a file; of a list its members.
fn named(source: &Source) -> Vec<String> {
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let code = code.join("\n");
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

fn first_names(rest: &str) -> Vec<String> {
    match rest.strip_prefix('{') {
        None => vec![identifier(rest)],
        Some(list) => top_level_members(list).into_iter().map(identifier).collect(),
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

/// The rooms that the names at the root of the crate come from, by the `pub use` lines of lib.rs.
fn homes(lib: &Source) -> BTreeMap<String, String> {
    let code: Vec<&str> = lib.code().map(|(_, line)| line).collect();
    let code = code.join("\n");
    let mut homes = BTreeMap::new();
    for statement in code.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap();
        let statement = statement.strip_prefix("self::").unwrap_or(statement);
        let paths = match statement.strip_prefix('{') {
            Some(list) => top_level_members(list),
            None => vec![statement],
        };
        for path in paths {
            let home = identifier(path);
            let names = path.rsplit("::").next().unwrap();
            let names = path.split_once('{').map_or(names, |(_, list)| list);
            for name in names.split([',', '}']).map(identifier).filter(|name| !name.is_empty()) {
                homes.insert(name, home.clone());
            }
        }
    }
    homes
}

#[test]
fn arrows_go_down_only() {
    let sources = files("src");
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").unwrap();
    let homes = homes(lib);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path != "src/lib.rs" && !source.is_test()) {
        let from = room(&source.path);
        for name in named(source) {
            let to = homes.get(&name).unwrap_or(&name);
            if level(from) >= level(to) {
                continue;
            }
            match EXCEPTIONS.iter().find(|(a, b, _)| *a == from && b == to) {
                Some(exception) => drop(used.insert(exception)),
                None => wrong.push(format!("{} names crate::{name}, which is above it", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(used.len(), EXCEPTIONS.len(), "an exception is not needed any more");
}

#[test]
fn every_room_stands_on_one_level() {
    let rooms: BTreeSet<String> =
        files("src").iter().map(|source| room(&source.path).to_owned()).filter(|room| room != "lib").collect();
    let placed: Vec<&str> = LEVELS.iter().flat_map(|(_, rooms)| rooms.iter().copied()).collect();
    assert_eq!(placed.iter().copied().collect::<BTreeSet<_>>(), rooms.iter().map(String::as_str).collect());
    assert_eq!(placed.len(), rooms.len(), "a room stands on two levels");
}

#[test]
fn rustls_is_named_in_its_rooms_only() {
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
fn unsafe_code_is_in_the_room_of_the_socket_only() {
    for source in files("src").iter().filter(|source| source.path != "src/conn/socket.rs") {
        for (line, code) in source.code() {
            assert!(!code.contains("unsafe"), "{}:{line} is unsafe", source.path);
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
    let mut out = String::from("| level | what | rooms |\n|---|---|---|\n");
    for (n, (what, rooms)) in LEVELS.iter().enumerate().rev() {
        let rooms: Vec<String> = rooms.iter().map(|room| format!("`{room}`")).collect();
        writeln!(out, "| {n} | {what} | {} |", rooms.join(", ")).unwrap();
    }
    out.push_str("\nArrows that go up:\n\n");
    for (from, to, why) in EXCEPTIONS {
        writeln!(out, "- `{from}` names `{to}`: {why}.").unwrap();
    }
    out.push_str("\nFiles of more than 450 lines:\n\n");
    for (path, _, why) in LONGER {
        writeln!(out, "- `{path}`: {why}.").unwrap();
    }
    check_section("docs/architecture.md", "levels", &out);
}
