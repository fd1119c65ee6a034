//! Metrics for Prometheus.

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpStream;

use rustix::process::Signal;

use crate::program::{Files, Program};

/// The samples by name and labels, with the labels in the order of their names.
fn metrics(files: &Files, web: &Program) -> HashMap<String, f64> {
    let text = files.get(&[&web.metrics_url("/metrics")]);
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = match name.split_once('{') {
                None => name.to_owned(),
                Some((name, labels)) => {
                    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
                    labels.sort_unstable();
                    format!("{name}{{{}}}", labels.join(","))
                }
            };
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn connections_handshakes_and_bytes_are_counted() {
    let files = Files::new();
    let web = files.start(&["--metrics", "127.0.0.1:0"]);
    files.get(&["--tls-max", "1.2", &web.url("/bytes?n=100000")]);
    web.event("lost");
    files.get(&[&format!("http://{}/", web.https)]);
    web.event("lost");
    let all = metrics(&files, &web);
    let value = |name: &str| *all.get(name).unwrap_or_else(|| panic!("{name}: {all:?}"));
    assert_eq!(value("bowline_connections_open"), 0.0);
    let ended = all.iter().filter(|(name, _)| name.starts_with("bowline_connections_total{outcome=")).map(|(_, n)| n);
    assert_eq!(ended.sum::<f64>(), 2.0);
    let handshake = |outcome: &str, version: &str| {
        format!("bowline_handshakes_total{{outcome=\"{outcome}\",resumed=\"false\",version=\"{version}\"}}")
    };
    assert_eq!(value(&handshake("ok", "TLSv1.2")), 1.0);
    assert_eq!(value(&handshake("not_tls", "none")), 1.0);
    assert!(value("bowline_bytes_total{direction=\"out\"}") > 100_000.0);
    assert!(value("bowline_bytes_total{direction=\"in\"}") > 50.0);
    assert!(all.keys().any(|name| name.starts_with("bowline_handshake_seconds_bucket{le=\"0.1\"")));
    assert_eq!(files.get(&["-w", " %{http_code}", "-o", "/dev/null", &web.metrics_url("/whoami")]), " 404");
}

#[test]
fn connections_that_are_refused_are_counted() {
    let files = Files::new();
    let web = files.start(&["--metrics", "127.0.0.1:0", "--max-per-peer", "1"]);
    let _first = TcpStream::connect(web.https).unwrap();
    web.event("made");
    assert!(TcpStream::connect(web.https).unwrap().read(&mut [0]).is_err(), "it is reset");
    assert_eq!(metrics(&files, &web)["bowline_accept_errors_total{kind=\"refused\"}"], 1.0);
}

#[test]
fn reloads_are_counted_and_the_expiry_of_a_removed_identity_is_not_a_number() {
    let files = Files::new();
    std::fs::create_dir_all(files.path("ids")).unwrap();
    files.issue("ids/a", &["localhost"]);
    files.issue("ids/b", &["b.example"]);
    let ids = files.text("ids");
    let web = Program::start(&[
        "--identities",
        &ids,
        "--listen",
        "127.0.0.1:0",
        "--log",
        "json",
        "--metrics",
        "127.0.0.1:0",
        "--reload-every",
        "600",
    ]);
    let expiry = |name: &str| metrics(&files, &web)[&format!("bowline_certificate_expiry_seconds{{name=\"{name}\"}}")];
    assert!(expiry("a") > 0.0 && expiry("b") > 0.0);
    web.signal(Signal::HUP);
    assert_eq!(web.event("reloaded")["generation"], 1);
    std::fs::remove_file(files.path("ids/b.key")).unwrap();
    std::fs::remove_file(files.path("ids/b.pem")).unwrap();
    web.signal(Signal::HUP);
    assert_eq!(web.event("reloaded")["generation"], 2);
    files.write("ids/a.key", "no key");
    web.signal(Signal::HUP);
    web.event("reload_failed");
    assert!(expiry("a") > 0.0 && expiry("b").is_nan());
    let all = metrics(&files, &web);
    for outcome in ["ok", "failed", "unchanged"] {
        assert_eq!(all[&format!("bowline_reloads_total{{outcome=\"{outcome}\"}}")], 1.0, "{outcome}");
    }
    assert_eq!(all["bowline_identity_generation"], 2.0);
}
