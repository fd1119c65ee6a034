//! The table of rustls's settings in docs/settings.md.

use std::fmt::Debug;
use std::fs;

use bowline::testing::shared_pki;

use crate::source::root;

/// The fields of a struct, as its `Debug` shows them.
fn fields(of: &impl Debug) -> Vec<String> {
    let text = format!("{of:#?}");
    let fields =
        text.lines().filter_map(|line| line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}', ']'])));
    fields.filter_map(|line| line.split_once(':').map(|(name, _)| name.to_owned())).collect()
}

fn rows(section: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/settings.md")).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {section} -->")).unwrap();
    let (table, _) = rest.split_once(&format!("<!-- end of {section} -->")).unwrap();
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn assert_same(mut rows: Vec<String>, mut fields: Vec<String>) {
    rows.sort();
    fields.sort();
    assert!(fields.len() > 10, "{fields:?}");
    assert_eq!(rows, fields, "docs/settings.md (left) and rustls (right) name other settings");
}

/// rule: secure-11
#[test]
fn each_setting_of_rustls_has_a_row_in_the_table() {
    assert_same(rows("server"), fields(&*shared_pki().server_tls().config()));
    assert_same(rows("client"), fields(&*shared_pki().client_tls().config()));
}
