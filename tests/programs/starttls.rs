//! The plaintext protocols that netcat speaks before TLS, against scripted servers.

use bowline::{Listener, StartTls, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::tools::{PATIENCE, Said, ca, certs, netcat};

/// What a server does.
#[derive(Clone, Copy)]
enum Do {
    Say(&'static [u8]),
    /// Reads exactly this.
    Hear(&'static [u8]),
}

use Do::{Hear, Say};

/// Runs netcat against a server that follows the script, then upgrades, says `hidden`, and closes.
async fn play(protocol: &str, script: &[Do], upgrades: bool) -> Said {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp:localhost:{}", listener.local_addr().port());
    let args = ["--ca", &ca(), "--report", "--starttls", protocol, &endpoint].map(str::to_owned);
    let client = tokio::task::spawn_blocking(move || netcat(&args.each_ref().map(String::as_str)).feed(b""));
    let serving = async {
        let mut server = listener.accept().await.unwrap().into_upgradable();
        for step in script {
            match step {
                // One byte a segment: nothing may depend on how it arrives.
                Say(bytes) => {
                    for byte in *bytes {
                        // A client that has heard enough may be gone, by RST: what it says about it, it says itself.
                        if server.write_all(&[*byte]).await.is_err() {
                            return;
                        }
                    }
                }
                Hear(bytes) => {
                    let mut heard = vec![0; bytes.len()];
                    server.read_exact(&mut heard).await.unwrap();
                    assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(bytes), "{protocol}");
                }
            }
        }
        if upgrades {
            let tls = certs().server_tls_builder().build().unwrap();
            server.start_tls(StartTls::server(&tls)).await.unwrap();
            server.write_all(b"hidden").await.unwrap();
        }
        server.close().await;
    };
    timeout(PATIENCE, serving).await.unwrap();
    client.await.unwrap()
}

async fn upgrades(protocol: &str, script: &[Do]) {
    let said = play(protocol, script, true).await;
    assert_eq!((said.code(), said.text().as_str()), (0, "hidden"), "{protocol}: {}", said.stderr);
    assert_eq!(said.report()["secure"], true);
}

async fn refuses(protocol: &str, script: &[Do]) {
    let said = play(protocol, script, false).await;
    assert_eq!((said.code(), &said.report()["reason"]), (8, &"protocol".into()), "{protocol}: {}", said.stderr);
}

const EHLO: Do = Hear(b"EHLO localhost\r\n");

#[tokio::test]
async fn smtp() {
    let greeting = Say(b"220-mail.example\r\n220 ESMTP\r\n");
    let offers = Say(b"250-mail.example\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n");
    let starttls = Hear(b"STARTTLS\r\n");
    upgrades("smtp", &[greeting, EHLO, offers, starttls, Say(b"220 2.0.0 go\r\n")]).await;
    refuses("smtp", &[greeting, EHLO, Say(b"250-mail.example\r\n250 NOSTARTTLS\r\n")]).await;
    refuses("smtp", &[greeting, EHLO, offers, starttls, Say(b"454 not now\r\n")]).await;
    refuses("smtp", &[Say(b"554 no\r\n")]).await;
}

#[tokio::test]
async fn imap() {
    let (greeting, starttls) = (Say(b"* OK [CAPABILITY IMAP4rev1] hello\r\n"), Hear(b"a1 STARTTLS\r\n"));
    upgrades("imap", &[greeting, starttls, Say(b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n")]).await;
    refuses("imap", &[greeting, starttls, Say(b"a1 BAD what\r\n")]).await;
    refuses("imap", &[Say(b"* PREAUTH hello\r\n")]).await;
}

#[tokio::test]
async fn pop3() {
    upgrades("pop3", &[Say(b"+OK hello\r\n"), Hear(b"STLS\r\n"), Say(b"+OK begin\r\n")]).await;
    refuses("pop3", &[Say(b"+OK hello\r\n"), Hear(b"STLS\r\n"), Say(b"-ERR no\r\n")]).await;
}

#[tokio::test]
async fn ftp() {
    let greeting = Say(b"220-hello\r\n  220 is not the end\r\n220 ready\r\n");
    upgrades("ftp", &[greeting, Hear(b"AUTH TLS\r\n"), Say(b"234 begin\r\n")]).await;
    refuses("ftp", &[greeting, Hear(b"AUTH TLS\r\n"), Say(b"502 no\r\n")]).await;
}

#[tokio::test]
async fn ldap() {
    let request = Hear(b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037");
    upgrades("ldap", &[request, Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]).await;
    let long = Say(b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00");
    upgrades("ldap", &[request, long]).await;
    refuses("ldap", &[request, Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00")]).await;
    refuses("ldap", &[request, Say(b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]).await;
    refuses("ldap", &[request, Say(b"\x30\x85\x01\x01\x01\x01\x01")]).await;
}

#[tokio::test]
async fn xmpp() {
    let open = Hear(
        b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
          xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    let stream = Say(b"<?xml version='1.0'?>\n<stream:stream id='1' xmlns:stream='http://etherx.jabber.org/streams'>");
    let offer = Say(b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
          </stream:features>");
    let starttls = Hear(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    for go in [&b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"[..], b"<proceed xmlns='x'></proceed>"] {
        upgrades("xmpp", &[open, stream, offer, starttls, Say(go)]).await;
    }
    refuses("xmpp", &[open, stream, offer, starttls, Say(b"<failure/></stream:stream>")]).await;
    refuses("xmpp", &[open, stream, Say(b"<stream:features><bind/></stream:features>")]).await;
}

#[tokio::test]
async fn postgres() {
    let request = Hear(&[0, 0, 0, 8, 4, 210, 22, 47]);
    upgrades("postgres", &[request, Say(b"S")]).await;
    refuses("postgres", &[request, Say(b"N")]).await;
}

const MYSQL: &[u8] = b"\x24\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x2d\x02\x00\xff\xdf\x15\x00\
                       \x00\x00\x00\x00\x00\x00";

#[tokio::test]
async fn mysql() {
    let request = Hear(
        b"\x20\x00\x00\x01\x00\x8a\x00\x00\x00\x00\x00\x01\x2d\
          \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    upgrades("mysql", &[Say(MYSQL), request]).await;
    let without_tls = b"\x17\x00\x00\x00\x0a5.0\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\x2d\x02\x00";
    refuses("mysql", &[Say(without_tls)]).await;
    refuses("mysql", &[Say(b"\x05\x00\x00\x00\xff\x10\x04no")]).await;
}

/// rule: upgrade-3
#[tokio::test]
async fn an_answer_glued_behind_the_go_ahead_is_refused() {
    for (protocol, script) in [
        ("postgres", &[Hear(&[0, 0, 0, 8, 4, 210, 22, 47]), Say(b"Sinjected")][..]),
        ("pop3", &[Say(b"+OK\r\n"), Hear(b"STLS\r\n"), Say(b"+OK\r\n+OK injected\r\n")]),
    ] {
        // Byte by byte it may arrive too late to be leftover; then it is no TLS.
        let said = play(protocol, script, false).await;
        assert!([5, 8].contains(&said.code()), "{}", said.stderr);
    }
}

#[tokio::test]
async fn any_line_protocol() {
    upgrades("line:XTLS now", &[Say(b"hello\n"), Hear(b"XTLS now\r\n"), Say(b"yes\n")]).await;
    refuses("line:XTLS", &[Say(b"hello\n"), Hear(b"XTLS\r\n"), Say(b"NO\n")]).await;
}
