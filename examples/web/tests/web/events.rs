//! The events on standard output.

use bowline::testing::pki::Pki;
use rustix::process::Signal;

use crate::program::Files;

#[test]
fn a_connection_is_made_secured_and_lost() {
    let files = Files::new();
    let web = files.start(&[]);
    files.get(&["--http1.1", &web.url("/bytes?n=1000")]);
    let (made, secured, lost) = (web.event("made"), web.event("secured"), web.event("lost"));
    assert_eq!(
        (&made["conn"], &made["kind"], &secured["conn"], &lost["conn"]),
        (&1.into(), &"tls".into(), &1.into(), &1.into())
    );
    assert_eq!((&secured["sni"], &secured["alpn"]), (&"localhost".into(), &"http/1.1".into()));
    assert_eq!((&made["peer"], &secured["peer"], &secured["via"]), (&secured["peer"], &lost["peer"], &lost["via"]));
    assert!(lost["sent"].as_u64() > Some(1000) && lost["received"].as_u64() > Some(0), "{lost}");

    // This client does not trust the server, so the handshake fails.
    files.write("other.pem", &Pki::new().ca_pem());
    assert!(!files.curl(&["--cacert", &files.text("other.pem"), &web.url("/")]).status.success());
    let lost = web.event("lost");
    assert_eq!((&lost["reason"], &lost["phase"]), (&"tls".into(), &"handshake".into()), "{lost}");
    web.signal(Signal::TERM);
    let (events, status) = web.end();
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        events.iter().map(|event| event["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["draining", "drained"]
    );
}
