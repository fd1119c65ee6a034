//! PROXY headers before TLS.

use crate::program::Files;

#[test]
fn a_header_of_a_trusted_proxy_names_the_client() {
    let files = Files::new();
    for how in ["accept", "require"] {
        let web = files.start(&["--proxy", how, "--trusted", "127.0.0.0/8,::1"]);
        let facts = files.json(&["--haproxy-protocol", &web.url("/whoami")]);
        // curl writes the addresses of its own socket into the header.
        assert_eq!(facts["peer"].as_str().unwrap().split(':').next(), Some("127.0.0.1"), "{facts}");
        assert_eq!(facts["via"], facts["peer"], "{facts}");
        let made = web.event("made");
        let secured = web.event("secured");
        assert_eq!((&made["peer"], &secured["via"]), (&facts["via"], &facts["via"]));
        let without = files.curl(&[&web.url("/whoami")]);
        assert_eq!(without.status.success(), how == "accept");
    }
}

#[test]
fn nothing_is_read_from_other_peers() {
    let files = Files::new();
    let web = files.start(&["--proxy", "accept", "--trusted", "192.0.2.0/24"]);
    assert!(files.json(&[&web.url("/whoami")])["via"].is_null());
    assert!(!files.curl(&["--haproxy-protocol", &web.url("/whoami")]).status.success());
    let web = files.start(&["--proxy", "require", "--trusted", "192.0.2.0/24"]);
    assert!(!files.curl(&["--haproxy-protocol", &web.url("/whoami")]).status.success());
    assert!(!files.curl(&[&web.url("/whoami")]).status.success());
}
