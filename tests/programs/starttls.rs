//! The plaintext protocols that netcat speaks before TLS, against scripted servers.

use bowline::{Listener, StartTls, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::tools::{PATIENCE, Said, ca, certs, netcat};

/// A step of a server's script.
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
    let endpoint = format!("tcp:localhost:{}", listener.local_addr().as_inet().unwrap().port());
    let args = ["--ca", &ca(), "--report", "--starttls", protocol, &endpoint].map(str::to_owned);
    let client = tokio::task::spawn_blocking(move || netcat(&args.each_ref().map(String::as_str)).feed(b""));
    let serving = async {
        let mut server = listener.accept().await.unwrap().into_upgradable();
        for step in script {
            match step {
                // Each byte is a segment of its own, because the result must not depend on the segments.
                Say(bytes) => {
                    for byte in *bytes {
                        // A client that refuses may have sent RST already. Its own report is checked instead.
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

const LDAP: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const XMPP: &[u8] = b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
const POSTGRES: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const MYSQL_REQUEST: &[u8] = b"\x20\x00\x00\x01\x00\x8a\x00\x00\x00\x00\x00\x01\x2d\
                               \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
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
    let request = Hear(LDAP);
    upgrades("ldap", &[request, Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]).await;
    let long = Say(b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00");
    upgrades("ldap", &[request, long]).await;
    refuses("ldap", &[request, Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00")]).await;
    refuses("ldap", &[request, Say(b"\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]).await;
    refuses("ldap", &[request, Say(b"\x30\x85\x01\x01\x01\x01\x01")]).await;
}

#[tokio::test]
async fn xmpp() {
    let open = Hear(XMPP);
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
    let request = Hear(POSTGRES);
    upgrades("postgres", &[request, Say(b"S")]).await;
    refuses("postgres", &[request, Say(b"N")]).await;
}

const MYSQL: &[u8] = b"\x24\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x2d\x02\x00\xff\xdf\x15\x00\
                       \x00\x00\x00\x00\x00\x00";

#[tokio::test]
async fn mysql() {
    let request = Hear(MYSQL_REQUEST);
    upgrades("mysql", &[Say(MYSQL), request]).await;
    let without_tls = b"\x17\x00\x00\x00\x0a5.0\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\x2d\x02\x00";
    refuses("mysql", &[Say(without_tls)]).await;
    refuses("mysql", &[Say(b"\x05\x00\x00\x00\xff\x10\x04no")]).await;
}

#[tokio::test]
async fn any_line_protocol() {
    upgrades("line:XTLS now", &[Say(b"hello\n"), Hear(b"XTLS now\r\n"), Say(b"yes\n")]).await;
    refuses("line:XTLS", &[Say(b"hello\n"), Hear(b"XTLS\r\n"), Say(b"NO\n")]).await;
}

/// A greeting, or an answer, of each protocol, and where TLS would begin.
const DIALOGUES: [(&str, &[Do]); 9] = [
    (
        "smtp",
        &[
            Say(b"220-mail.example\r\n220 ESMTP\r\n"),
            EHLO,
            Say(b"250-mail.example\r\n250 STARTTLS\r\n"),
            Hear(b"STARTTLS\r\n"),
            Say(b"220 go\r\n"),
        ],
    ),
    ("imap", &[Say(b"* OK hello\r\n"), Hear(b"a1 STARTTLS\r\n"), Say(b"a1 OK begin\r\n")]),
    ("pop3", &[Say(b"+OK hello\r\n"), Hear(b"STLS\r\n"), Say(b"+OK begin\r\n")]),
    ("ftp", &[Say(b"220-hello\r\n free\r\n220 ready\r\n"), Hear(b"AUTH TLS\r\n"), Say(b"234 begin\r\n")]),
    ("ldap", &[Hear(LDAP), Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]),
    (
        "xmpp",
        &[
            Hear(XMPP),
            Say(b"<?xml version='1.0'?>\n<stream:stream id='1'>"),
            Say(b"<stream:features><m>text</m><starttls xmlns='x'/></stream:features>"),
            Hear(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
            Say(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        ],
    ),
    ("postgres", &[Hear(POSTGRES), Say(b"S")]),
    ("mysql", &[Say(MYSQL), Hear(MYSQL_REQUEST)]),
    ("line:XTLS", &[Say(b"hello\n"), Hear(b"XTLS\r\n"), Say(b"yes\n")]),
];

/// Runs netcat against a server that follows the script, each step in one segment, and then only listens.
async fn follow(protocol: &str, script: &[(Vec<u8>, bool)], version: &str) -> Said {
    follow_to(protocol, script, version, false).await
}

/// As above. If `ends` is set, the server half-closes after the script.
async fn follow_to(protocol: &str, script: &[(Vec<u8>, bool)], version: &str, ends: bool) -> Said {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp:localhost:{}", listener.local_addr().unwrap().port());
    let args = ["--ca", &ca(), "--report", version, "--starttls", protocol, &endpoint].map(str::to_owned);
    let client = tokio::task::spawn_blocking(move || netcat(&args.each_ref().map(String::as_str)).feed(b""));
    let serving = async {
        let (mut server, _) = listener.accept().await?;
        for (bytes, is_said) in script {
            if *is_said {
                server.write_all(bytes).await?;
            } else {
                server.read_exact(&mut vec![0; bytes.len()]).await?;
            }
        }
        if ends {
            server.shutdown().await?;
        }
        server.read_to_end(&mut Vec::new()).await
    };
    // A client that refuses resets the connection.
    let _ = timeout(PATIENCE, serving).await.unwrap();
    client.await.unwrap()
}

async fn refuses_injected(protocol: &str, script: &[Do], place: usize, bytes: (&[u8], &[u8]), version: &str) {
    let mut steps: Vec<(Vec<u8>, bool)> = Vec::new();
    for (n, step) in script.iter().enumerate() {
        let (before, behind) = if n == place { bytes } else { (&b""[..], &b""[..]) };
        steps.push(match step {
            Say(said) => ([before, said, behind].concat(), true),
            Hear(heard) => (heard.to_vec(), false),
        });
    }
    let said = follow(protocol, &steps, version).await;
    let what = format!("{protocol} {version}, step {place}, {bytes:?}: {}", said.stderr);
    assert_eq!((said.code(), &said.report()["reason"]), (8, &"protocol".into()), "{what}");
}

/// rule: upgrade-2, upgrade-3, upgrade-11
#[tokio::test]
async fn a_byte_injected_anywhere_between_answers_refuses_the_upgrade() {
    for (protocol, script) in DIALOGUES {
        for (place, _) in script.iter().enumerate().filter(|(_, step)| matches!(step, Say(_))) {
            for version in ["--tls12", "--tls13"] {
                refuses_injected(protocol, script, place, (b"", b"X"), version).await;
                // If the protocol is unknown, any line is a greeting, and any line except a refusal is an answer.
                if !protocol.starts_with("line:") {
                    refuses_injected(protocol, script, place, (b"X", b""), version).await;
                }
            }
        }
    }
}

/// rule: upgrade-11
#[tokio::test]
async fn a_warning_alert_right_after_the_go_ahead_refuses_the_upgrade() {
    for (protocol, script) in DIALOGUES {
        let go_ahead = script.iter().rposition(|step| matches!(step, Say(_))).unwrap();
        for version in ["--tls12", "--tls13"] {
            let alert = b"\x15\x03\x03\x00\x02\x01\x00";
            refuses_injected(protocol, script, go_ahead, (b"", alert), version).await;
        }
    }
}

/// rule: upgrade-3
#[tokio::test]
async fn an_answer_that_comes_before_its_question_refuses_the_upgrade() {
    let cases: [(&str, &[Do], usize, &[u8]); 4] = [
        ("smtp", DIALOGUES[0].1, 0, b"250 STARTTLS\r\n220 go\r\n"),
        ("imap", DIALOGUES[1].1, 0, b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n"),
        ("pop3", DIALOGUES[2].1, 0, b"+OK begin\r\n"),
        ("xmpp", DIALOGUES[5].1, 2, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
    ];
    for (protocol, script, place, early) in cases {
        refuses_injected(protocol, script, place, (b"", early), "--tls13").await;
    }
}

#[tokio::test]
async fn an_unexpected_answer_refuses_the_upgrade() {
    let (go, starttls) = (Say(b"220 go\r\n"), Hear(b"STARTTLS\r\n"));
    for offers in
        [&b"250-mail\r\nX\r\n250 STARTTLS\r\n"[..], b"250X\r\n", b"250-a\r\n220 STARTTLS\r\n", b"250 a\rb\r\n"]
    {
        refuses("smtp", &[go, EHLO, Say(offers)]).await;
    }
    refuses("smtp", &[go, EHLO, Say(b"250 STARTTLS\r\n"), starttls, Say(b"2200 go\r\n")]).await;
    refuses("imap", &[Say(b"* OKAY\r\n")]).await;
    refuses("imap", &[Say(b"* OK\r\n"), Hear(b"a1 STARTTLS\r\n"), Say(b"* BYE\r\n")]).await;
    refuses("pop3", &[Say(b"+OK\r\n"), Hear(b"STLS\r\n"), Say(b"+OKAY\r\n")]).await;
    for answer in [
        // A byte after the response, a byte after the message, and the name of another operation.
        &b"\x30\x0d\x02\x01\x01\x78\x08\x0a\x01\x00\x04\x00\x04\x00X"[..],
        b"\x30\x0d\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00X",
        b"\x30\x0f\x02\x01\x01\x78\x0a\x0a\x01\x00\x04\x00\x04\x00\x8a\x011",
    ] {
        refuses("ldap", &[Hear(LDAP), Say(answer)]).await;
    }
    let (open, stream) = (Hear(XMPP), Say(b"<stream:stream id='1'>"));
    let offer = Say(b"<stream:features><starttls/></stream:features>");
    let starttls = Hear(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    for answer in [&b"text<proceed/>"[..], b" <proceed/>", b"<proceed>X</proceed>", b"<proceed><x/></proceed>"] {
        refuses("xmpp", &[open, stream, offer, starttls, Say(answer)]).await;
    }
    for features in [&b"<stream:features>X<starttls/></stream:features>"[..], b"<a/>", b"<stream:features></a>"] {
        refuses("xmpp", &[open, stream, Say(features)]).await;
    }
}

/// netcat stops reading from a server that never finishes its answer.
#[tokio::test]
async fn a_dialogue_is_bounded_in_bytes() {
    let flood: &'static [u8] = [&b"220-"[..], &[b'x'; 996]].concat().leak();
    let lines = |first: &[u8], each: &[u8]| [first, &each.repeat(100)].concat();
    let cases = [
        ("smtp", lines(b"", &[flood, b"\r\n"].concat())),
        ("imap", lines(b"* OK\r\n", &[b"* ", flood, b"\r\n"].concat())),
        ("pop3", vec![b'x'; 100_000]),
        ("xmpp", lines(b"<stream:stream><stream:features>", &[b"<a/>"[..].repeat(250)].concat())),
    ];
    for (protocol, said) in cases {
        let mut script = vec![(said, true)];
        if protocol == "xmpp" {
            script.insert(0, (XMPP.to_vec(), false));
        }
        let said = follow(protocol, &script, "--tls13").await;
        assert_eq!(said.code(), 8, "{protocol}: {}", said.stderr);
    }
}

/// rule: tcp-11
#[tokio::test]
async fn the_words_of_a_refusal_are_shown_and_not_obeyed() {
    let words = "554 \x1b]0;title\x07\x1b[31mred\u{9b}2J\u{202e}";
    let said = |before: &str, behind: &str| vec![(format!("{before}{words}{behind}").into_bytes(), true)];
    let xmpp = vec![(XMPP.to_vec(), false), (format!("<{words}>").into_bytes(), true)];
    let cases = [
        ("smtp", said("", "\r\n")),
        ("smtp", said("220 mail\r\n", "\r\n")),
        ("imap", said("* BYE ", "\r\n")),
        ("pop3", said("-ERR ", "\r\n")),
        ("ftp", said("", "\n")),
        ("line:X", said("", "\n")),
        ("xmpp", xmpp),
    ];
    for (protocol, script) in cases {
        let said = follow(protocol, &script, "--tls13").await;
        assert_eq!(said.code(), 8, "{protocol}: {}", said.stderr);
        assert!(said.stderr.contains(r"\x1b]0;title\x07\x1b[31mred\xc2\x9b2J\xe2\x80\xae"), "{}", said.stderr);
        let bad = said.stderr.chars().find(|c| *c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}')));
        assert_eq!(bad, None, "{protocol}: {:?}", said.stderr);
    }
}

/// rule: end-6
#[tokio::test]
async fn a_server_that_ends_inside_a_dialogue_or_after_it_has_truncated_it() {
    for (protocol, script) in DIALOGUES {
        let steps: Vec<(Vec<u8>, bool)> = (script.iter())
            .map(|step| match step {
                Say(said) => (said.to_vec(), true),
                Hear(heard) => (heard.to_vec(), false),
            })
            .collect();
        for length in 1..=steps.len() {
            let said = follow_to(protocol, &steps[..length], "--tls13", true).await;
            assert_eq!(said.code(), 3, "{protocol}, {length} steps: {}", said.stderr);
        }
    }
}
