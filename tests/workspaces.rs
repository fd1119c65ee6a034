//! Runs the tests of the workspaces that have manifests of their own, because they need frameworks: `tests/frameworks`
//! and `examples/web`. `.ci/run` has steps for them, and sets `BOWLINE_WORKSPACES=0`.
#![cfg(all(target_os = "linux", feature = "axum", feature = "hyper", feature = "postgres", feature = "tonic"))]

use std::path::Path;
use std::process::Command;

#[test]
fn the_tests_with_frameworks_and_of_the_web_service_pass() {
    if std::env::var_os("BOWLINE_WORKSPACES").is_some_and(|chosen| chosen == "0") {
        return eprintln!("note: skipped, because BOWLINE_WORKSPACES is 0");
    }
    // The other workspaces use the target directory of this build, so that the dependencies are not built again.
    let test = std::env::current_exe().expect("this program has a path");
    let target = test.ancestors().nth(3).expect("it is in the deps of a profile");
    for manifest in ["tests/frameworks/Cargo.toml", "examples/web/Cargo.toml"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--quiet", "--locked", "--manifest-path", manifest, "--target-dir"]).arg(target);
        let status = cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).status();
        assert!(status.is_ok_and(|status| status.success()), "the tests of {manifest} fail");
    }
}
