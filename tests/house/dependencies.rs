//! Counts and limits the crates that a user of this crate has to compile, and lists them in docs/decisions.md.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

use crate::generated::check_section;
use crate::source::root;

/// The features, and the largest number of crates that they may need, including this crate and build scripts.
const SETS: [(&str, usize); 5] = [
    ("tokio,aws-lc-rs", 35),
    ("tokio,ring", 31),
    ("ring", 17),
    ("tokio,aws-lc-rs,express,codec,platform-roots", 42),
    ("tokio,aws-lc-rs,encrypted-keys", 65),
];

/// The names of the crates, from the lock file.
fn tree(features: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(["--no-default-features", "--features", features])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_dependency_tree_is_small_and_documented() {
    let mut out = String::from("| features | crates | what comes with them |\n|---|---|---|\n");
    for (features, limit) in SETS {
        let crates = tree(features);
        let count = crates.len();
        assert!(count <= limit, "{features}: {count} crates, {limit} are allowed: {crates:?}");
        let named: Vec<&str> = crates.iter().map(String::as_str).filter(|name| *name != "bowline").collect();
        writeln!(out, "| `{features}` | {count} | {} |", named.join(", ")).unwrap();
    }
    check_section("docs/decisions.md", "tree", &out);
}
