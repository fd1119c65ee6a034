//! The example of vsock, if this kernel has the loopback of vsock.
#![cfg(target_os = "linux")]

use std::process::Command;

use crate::tools::example;

/// The example ends with success if the loopback is missing, so that it may be run anywhere.
#[test]
fn tls_over_vsock_says_hello_and_ends_in_order() {
    let output = Command::new(example("vsock")).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{out}{err}");
    if out.is_empty() && err.contains("no vsock loopback") {
        eprintln!("skipped: {err}");
        return;
    }
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("vsock:1:") && lines[1] == "hello", "{out}");
    assert!(lines.len() == 4 && lines[2..].iter().all(|report| report.starts_with("closed")), "{out}");
}
