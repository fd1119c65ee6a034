//! A wrapper of a protocol, or of a transport, forwards every call.

use std::collections::BTreeSet;

use crate::source::{Source, files};

/// A trait and the wrappers that implement it: the file and the first line of each.
const WRAPPERS: [(&str, &str, &str, &str); 4] = [
    (
        "src/transport/layer.rs",
        "pub trait AsLayer:",
        "src/transport/layer.rs",
        "impl<T: Transport + ?Sized> AsLayer for Box<T> ",
    ),
    (
        "src/protocol/callbacks.rs",
        "pub trait Protocol:",
        "src/protocol/callbacks.rs",
        "impl<P: Protocol + ?Sized> Protocol for Box<P> ",
    ),
    (
        "src/protocol/callbacks.rs",
        "pub trait Protocol:",
        "src/protocol/framed.rs",
        "impl<M: MessageProtocol> Protocol for Framed<M> ",
    ),
    // `Framed` forwards everything to its message protocol, except the cutting.
    ("src/protocol/message.rs", "pub trait MessageProtocol:", "src/protocol/framed.rs", "impl<M: MessageProtocol>"),
];

/// The names after `fn ` in each block that begins with this line.
fn functions(source: &Source, header: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_inside = false;
    for (_, line) in source.code() {
        is_inside = (is_inside || line.starts_with(header)) && line != "}";
        let name = line.trim_start().strip_prefix("fn ").filter(|_| is_inside);
        names.extend(name.and_then(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
    }
    names
}

/// If a wrapper does not forward a method with a default, the wrapper answers instead of the wrapped object.
///
/// rule: secure-2, life-1
#[test]
fn wrappers_forward_every_call() {
    let all = files("src");
    let source = |path: &str| all.iter().find(|source| source.path == path).unwrap();
    for (home, trait_line, place, impl_line) in WRAPPERS {
        let due = functions(source(home), trait_line);
        assert!(due.len() > 4, "{home} has no {trait_line}");
        let text = &source(place).text;
        let there = functions(source(place), impl_line);
        // Messages are forwarded under different names.
        let is_forgotten = |name: &&String| {
            !there.contains(*name)
                && !text.contains(&format!("messages.{name}("))
                && !text.contains(&format!("M::{name}"))
        };
        let missing: Vec<&String> = due.iter().filter(is_forgotten).collect();
        assert!(missing.is_empty(), "{place}: {impl_line}does not pass on {missing:?}");
    }
}
