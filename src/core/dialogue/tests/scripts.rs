//! The transcripts of each dialogue.

use super::{Do, Hear, Outcome, Say, Side, at_every_cut};

const LDAP: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const XMPP_OPEN: &[u8] = b"<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' \
                           xmlns:stream='http://etherx.jabber.org/streams'>";
const SERVER_OPEN: &[u8] = b"<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:server' \
                             xmlns:stream='http://etherx.jabber.org/streams'>";
const XMPP_STARTTLS: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const XMPP_PROCEED: &[u8] = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const MYSQL: &[u8] = b"\x24\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x2d\x02\x00\xff\xdf\x15\x00\
                       \x00\x00\x00\x00\x00\x00";
const MYSQL_REQUEST: &[u8] = b"\x20\x00\x00\x01\x00\x8a\x00\x00\x00\x00\x00\x01\x2d\
                               \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The messages of servers to our client, up to the agreement. The last message is the go-ahead.
pub(super) const TO_CLIENTS: [(&str, &[Do]); 14] = [
    (
        "smtp",
        &[
            Say(b"220-mail.example\r\n220 ESMTP\r\n"),
            Hear(b"EHLO localhost\r\n"),
            Say(b"250-mail.example\r\n250-starttls\r\n250 HELP\r\n"),
            Hear(b"STARTTLS\r\n"),
            Say(b"220 2.0.0 go\r\n"),
        ],
    ),
    (
        "lmtp",
        &[
            Say(b"220 mail LMTP\r\n"),
            Hear(b"LHLO localhost\r\n"),
            Say(b"250-mail\r\n250 STARTTLS\r\n"),
            Hear(b"STARTTLS\r\n"),
            Say(b"220-a\r\n220\r\n"),
        ],
    ),
    ("imap", &[Say(b"* OK hello\r\n"), Hear(b"a1 STARTTLS\r\n"), Say(b"* CAPABILITY IMAP4rev1\r\na1 OK begin\r\n")]),
    ("pop3", &[Say(b"+OK hello\r\n"), Hear(b"STLS\r\n"), Say(b"+OK begin\r\n")]),
    ("nntp", &[Say(b"201 no posting\r\n"), Hear(b"STARTTLS\r\n"), Say(b"382 go\r\n")]),
    (
        "sieve",
        &[
            Say(b"\"IMPLEMENTATION\" {9}\r\nOK\r\n\r\nabc\r\n\"starttls\"\r\n\"VERSION\" \"1.0\"\r\nOK \"ready\"\r\n"),
            Hear(b"STARTTLS\r\n"),
            Say(b"OK \"begin\"\r\n"),
        ],
    ),
    (
        "irc",
        &[
            Hear(b"STARTTLS\r\n"),
            Say(b":irc.example NOTICE * :*** looking you up\r\n:irc.example 670 nick :STARTTLS successful\r\n"),
        ],
    ),
    (
        "ftp",
        &[
            Say(b"120 soon\r\n220-hello\r\n  220 is not the end\r\n220 ready\r\n"),
            Hear(b"AUTH TLS\r\n"),
            Say(b"234 begin\r\n"),
        ],
    ),
    ("ldap", &[Hear(LDAP), Say(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")]),
    (
        "xmpp",
        &[
            Hear(XMPP_OPEN),
            Say(b"<?xml version='1.0'?>\n<stream:stream id='1'>\n<stream:features><m>text</m><starttls xmlns='x'>\
                  <required/></starttls></stream:features>"),
            Hear(XMPP_STARTTLS),
            Say(XMPP_PROCEED),
        ],
    ),
    (
        "xmpp-server",
        &[
            Hear(SERVER_OPEN),
            Say(b"<stream:stream id='1'><stream:features><starttls/></stream:features>"),
            Hear(XMPP_STARTTLS),
            Say(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'></proceed>"),
        ],
    ),
    ("postgres", &[Hear(&[0, 0, 0, 8, 4, 210, 22, 47]), Say(b"S")]),
    ("mysql", &[Say(MYSQL), Hear(MYSQL_REQUEST)]),
    ("line:XTLS", &[Say(b"hello\n"), Hear(b"XTLS\r\n"), Say(b"yes\n")]),
];

const XMPP_OFFER: &[u8] = b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
                            </stream:features>";

/// The messages of clients to our server, up to the agreement. The last message requests TLS. (Our server's messages in
/// XMPP and MySQL contain random numbers: see below.)
pub(super) const TO_SERVERS: [(&str, &[Do]); 11] = [
    (
        "smtp",
        &[
            Hear(b"220 example.org ESMTP\r\n"),
            Say(b"MAIL FROM:<>\r\nehlo me\r\n"),
            Hear(b"530 5.7.0 must issue a STARTTLS command first\r\n250-ready\r\n250 STARTTLS\r\n"),
            Say(b"STARTTLS now\r\n"),
            Hear(b"501 5.5.4 STARTTLS has no parameters\r\n"),
            Say(b"StartTLS\r\n"),
            Hear(b"220 2.0.0 go ahead\r\n"),
        ],
    ),
    (
        "lmtp",
        &[
            Hear(b"220 example.org LMTP\r\n"),
            Say(b"LHLO me\r\n"),
            Hear(b"250-ready\r\n250 STARTTLS\r\n"),
            Say(b"STARTTLS\r\n"),
            Hear(b"220 2.0.0 go ahead\r\n"),
        ],
    ),
    (
        "imap",
        &[
            Hear(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\r\n"),
            Say(b"a LOGIN me secret\r\n\r\n"),
            Hear(b"a NO [PRIVACYREQUIRED] STARTTLS first\r\n* BAD no command\r\n"),
            Say(b"A.2 starttls\r\n"),
            Hear(b"A.2 OK begin TLS now\r\n"),
        ],
    ),
    (
        "pop3",
        &[
            Hear(b"+OK ready\r\n"),
            Say(b"CAPA\r\n"),
            Hear(b"+OK\r\nSTLS\r\n.\r\n"),
            Say(b"STLS\r\n"),
            Hear(b"+OK begin TLS now\r\n"),
        ],
    ),
    (
        "nntp",
        &[
            Hear(b"200 example.org ready\r\n"),
            Say(b"CAPABILITIES\r\nARTICLE 1\r\n"),
            Hear(b"101 capabilities\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n483 STARTTLS first\r\n"),
            Say(b"STARTTLS\r\n"),
            Hear(b"382 continue with TLS negotiation\r\n"),
        ],
    ),
    (
        "sieve",
        &[
            Hear(
                b"\"IMPLEMENTATION\" \"bowline\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\n\
                  OK\r\n",
            ),
            Say(b"LISTSCRIPTS\r\n"),
            Hear(b"NO (ENCRYPT-NEEDED) \"STARTTLS first\"\r\n"),
            Say(b"STARTTLS\r\n"),
            Hear(b"OK\r\n"),
        ],
    ),
    (
        "irc",
        &[
            Say(b"CAP LS 302\r\nNICK me\r\n"),
            Hear(b":example.org CAP * LS :tls\r\n:example.org 451 * :STARTTLS first\r\n"),
            Say(b"STARTTLS\r\n"),
            Hear(b":example.org 670 * :STARTTLS successful, go ahead with TLS handshake\r\n"),
        ],
    ),
    (
        "ftp",
        &[
            Hear(b"220 example.org ready\r\n"),
            Say(b"USER me\r\nAUTH KERBEROS\r\n"),
            Hear(b"530 AUTH TLS first\r\n504 AUTH TLS is known only\r\n"),
            Say(b"AUTH TLS\r\n"),
            Hear(b"234 begin TLS now\r\n"),
        ],
    ),
    (
        "ldap",
        &[
            // A bind with message id 7.
            Say(b"\x30\x0c\x02\x01\x07\x60\x07\x02\x01\x03\x04\x00\x80\x00"),
            Hear(b"\x30\x1a\x02\x01\x07\x61\x15\x0a\x01\x0d\x04\x00\x04\x0eStartTLS first"),
            Say(LDAP),
            Hear(b"\x30\x24\x02\x01\x01\x78\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20037"),
        ],
    ),
    (
        "postgres",
        &[Say(&[0, 0, 0, 8, 4, 210, 22, 48]), Hear(b"N"), Say(&[0, 0, 0, 8, 4, 210, 22, 47]), Hear(b"S")],
    ),
    (
        "line:XTLS",
        &[
            Hear(b"220 example.org ready\r\n"),
            Say(b"HELLO\n"),
            Hear(b"500 XTLS first\r\n"),
            Say(b" xtls\r\n"),
            Hear(b"220 go ahead\r\n"),
        ],
    ),
];

#[test]
fn clients_agree_with_servers_at_every_cut() {
    for (dialogue, script) in TO_CLIENTS {
        assert_eq!(at_every_cut(Side::client, dialogue, script), Outcome::Agreed(Vec::new()), "{dialogue}");
    }
}

#[test]
fn servers_agree_with_clients_at_every_cut() {
    for (dialogue, script) in TO_SERVERS {
        assert_eq!(at_every_cut(Side::server, dialogue, script), Outcome::Agreed(Vec::new()), "{dialogue}");
    }
}

#[test]
fn a_server_of_xmpp_offers_tls_and_proceeds() {
    for (dialogue, open) in [("xmpp", XMPP_OPEN), ("xmpp-server", SERVER_OPEN)] {
        let mut server = Side::server(dialogue);
        open.chunks(1).for_each(|byte| server.segment(byte));
        assert!(server.said.starts_with(b"<?xml version='1.0'?><stream:stream from='example.org' id='"));
        assert!(server.said.ends_with(XMPP_OFFER));
        server.said.clear();
        server.segment(XMPP_STARTTLS);
        assert_eq!(server.outcome(), Outcome::Agreed(Vec::new()));
        assert_eq!(server.said, XMPP_PROCEED);
    }
}

#[test]
fn a_mysql_server_has_a_new_scramble_each_time_and_takes_a_glued_hello() {
    let mut server = Side::server("mysql");
    assert_ne!(server.said, Side::server("mysql").said);
    let hello = b"\x16\x03\x01\x02\x00\x01";
    server.segment(&[MYSQL_REQUEST, hello].concat());
    assert_eq!(server.outcome(), Outcome::Agreed(hello.to_vec()));
    assert_eq!(server.machine.last(), MYSQL_REQUEST);
}

/// MySQL, "Protocol::HandshakeV10"
#[test]
fn a_mysql_greeting_has_these_capabilities_and_a_printable_scramble() {
    let said = Side::server("mysql").said;
    let version = said[5..].iter().position(|byte| *byte == 0).unwrap();
    let (first, rest) = said[5 + version + 1 + 4..].split_at(8);
    // Long passwords, a database at login, protocol 4.1, TLS, transactions, the scramble of 4.1; plugins.
    assert_eq!(rest[1..3], (1 | 8 | 0x200 | 0x800 | 0x2000 | 0x8000_u16).to_le_bytes());
    assert_eq!(rest[6..8], 0x8_u16.to_le_bytes());
    let second = &rest[19..][..12];
    assert!(first.iter().chain(second).all(u8::is_ascii_graphic), "{first:?} {second:?}");
    assert_eq!(usize::from(said[0]), said.len() - 4);
}

#[test]
fn the_greeting_is_all_that_came_before_the_first_question() {
    let mut client = Side::client("smtp");
    client.segment(b"220-mail\r\n220 ESMTP\r\n");
    client.segment(b"250 STARTTLS\r\n");
    assert_eq!(client.machine.greeting(), b"220-mail\r\n220 ESMTP\r\n");
}
