//! Messages that a protocol allows, but that peers seldom send, and the limits of lengths.

use super::{Do, Outcome, Say, Side, at_every_cut};
use crate::error::DialogueError;

const OID: &[u8] = b"1.3.6.1.4.1.1466.20037";

fn is_unexpected(side: &Side) -> bool {
    matches!(side.outcome(), Outcome::Failed(DialogueError::Unexpected(_)))
}

/// An element with the length in this number of bytes; 0: in the short form.
fn element(tag: u8, long: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = match long {
        0 => vec![u8::try_from(content.len()).unwrap()],
        _ => [&[0x80 | u8::try_from(long).unwrap()][..], &length[length.len() - long..]].concat(),
    };
    [&[tag][..], &length, content].concat()
}

fn ldap(id: &[u8], request: &[u8]) -> Vec<u8> {
    element(0x30, 2, &[&element(0x02, 0, id), request].concat())
}

/// RFC 4511: every request has a response of its own, except the abandon.
#[test]
fn an_ldap_server_answers_each_request_with_its_response() {
    for (request, response) in
        [(0x60, 0x61), (0x63, 0x65), (0x66, 0x67), (0x68, 0x69), (0x4a, 0x6b), (0x6c, 0x6d), (0x6e, 0x6f)]
    {
        let mut server = Side::server("ldap");
        server.segment(&ldap(&[1, 2, 3, 4], &element(request, 0, b"x")));
        let answer = [&b"\x30\x1d\x02\x04\x01\x02\x03\x04"[..], &[response], b"\x15\x0a\x01\x0d\x04\x00\x04\x0e"];
        assert_eq!(server.said, [&answer.concat()[..], b"StartTLS first"].concat(), "{request:x}");
        assert_eq!(server.outcome(), Outcome::Waiting, "{request:x}");
    }
    let mut server = Side::server("ldap");
    server.segment(&ldap(&[1], &element(0x50, 0, b"x")));
    assert_eq!((server.said.len(), server.outcome()), (0, Outcome::Waiting));
    server.segment(&ldap(&[1], &element(0x7f, 0, b"x")));
    assert!(is_unexpected(&server), "{:?}", server.outcome());
}

/// X.690 section 8.1.3.5: the length may have more bytes than it needs. Windows sends four.
#[test]
fn lengths_of_ldap_may_have_the_long_form() {
    for long in 0..=4 {
        let request = element(0x77, long, &element(0x80, long, OID));
        let message = element(0x30, long, &[&element(0x02, long, &[1]), &request[..]].concat());
        let mut server = Side::server("ldap");
        message.chunks(1).for_each(|byte| server.segment(byte));
        assert_eq!(server.outcome(), Outcome::Agreed(Vec::new()), "{long}");
    }
    for (message, is_accepted) in [
        (ldap(&[1], &element(0x63, 2, &[0; 8192 - 3 - 4])), true),
        (ldap(&[1], &element(0x63, 2, &[0; 8192 - 3 - 3])), false),
        (ldap(&[1; 5], &element(0x63, 0, b"x")), false),
        (ldap(&[], &element(0x63, 0, b"x")), false),
        (ldap(&[1], &[]), false),
        // A value, an unknown field after the name, and another operation.
        (ldap(&[1], &element(0x77, 0, &[&element(0x80, 0, OID), &b"\x81\x01x"[..]].concat())), true),
        (ldap(&[1], &element(0x77, 0, &element(0x80, 0, b"1.2"))), true),
        (ldap(&[1], &[&element(0x77, 0, &element(0x80, 0, OID))[..], b"x"].concat()), false),
    ] {
        let mut server = Side::server("ldap");
        server.segment(&message);
        assert_eq!(server.outcome() == Outcome::Waiting, is_accepted, "{}", message.len());
        assert_eq!(is_unexpected(&server), !is_accepted, "{}", message.len());
    }
    // With controls, which say nothing about TLS.
    let mut server = Side::server("ldap");
    let request = [element(0x77, 0, &element(0x80, 0, OID)), element(0xa0, 0, b"")].concat();
    server.segment(&ldap(&[1], &request));
    assert_eq!(server.outcome(), Outcome::Agreed(Vec::new()));
}

#[test]
fn a_request_of_xmpp_may_have_an_end_tag() {
    let open = b"<stream:stream>";
    let request = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>";
    for (end, is_agreed) in [(&b"</starttls>"[..], true), (b"<auth/>", false), (b"</stream:stream>", false)] {
        let mut server = Side::server("xmpp");
        [open, &request[..], end].concat().chunks(1).for_each(|byte| server.segment(byte));
        assert_eq!(server.outcome() == Outcome::Agreed(Vec::new()), is_agreed);
        assert_eq!(is_unexpected(&server), !is_agreed);
    }
}

#[test]
fn a_client_refuses_tags_and_codes_in_the_wrong_place() {
    let offer = Say(b"<stream:stream><stream:features><starttls/></stream:features>");
    let cases: [(&str, &[Do]); 12] = [
        ("xmpp", &[Say(b"<stream:stream><stream:error>")]),
        ("xmpp", &[Say(b"<?xml version='1.0'?><?xml version='1.0'?>")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features><!DOCTYPE a>")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features><a>text<?b?>")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features>text<starttls/>")]),
        ("xmpp", &[offer, Say(b"<success/>")]),
        ("xmpp", &[offer, Say(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'><a/>")]),
        ("smtp", &[Say(b"354 go\r\n")]),
        ("smtp", &[Say(b"120 soon\r\n")]),
        ("ftp", &[Say(b"220 hi\r\n"), Say(b"120 soon\r\n")]),
        ("ftp", &[Say(b"331 hi\r\n")]),
        ("ftp", &[Say(b"2200 hi\r\n")]),
    ];
    for (dialogue, script) in cases {
        let outcome = at_every_cut(Side::client, dialogue, script);
        assert!(matches!(outcome, Outcome::Failed(DialogueError::Unexpected(_))), "{dialogue}: {outcome:?}");
    }
}

/// The server answers this line, and then waits for the next one.
fn assert_answer(dialogue: &str, line: &str, answer: &str) {
    let mut server = Side::server(dialogue);
    server.said.clear();
    server.segment(format!("{line}\r\n").as_bytes());
    assert_eq!(String::from_utf8_lossy(&server.said), format!("{answer}\r\n"), "{dialogue}: {line}");
    assert_eq!(server.outcome(), Outcome::Waiting);
}

#[test]
fn servers_answer_the_commands_that_clients_send_before_they_ask_for_tls() {
    let sieve = "\"IMPLEMENTATION\" \"bowline\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK";
    for (dialogue, command, answer) in [
        ("smtp", "HELO me", "250 ok"),
        ("smtp", "ehlo me", "250-ready\r\n250 STARTTLS"),
        ("smtp", "LHLO me", "530 5.7.0 must issue a STARTTLS command first"),
        ("smtp", "STARTTLS now", "501 5.5.4 STARTTLS has no parameters"),
        ("lmtp", "LHLO me", "250-ready\r\n250 STARTTLS"),
        ("pop3", "CAPA", "+OK\r\nSTLS\r\n."),
        ("pop3", "NOOP", "+OK"),
        ("pop3", "USER me", "-ERR STLS first"),
        ("nntp", "CAPABILITIES", "101 capabilities\r\nVERSION 2\r\nSTARTTLS\r\n."),
        ("nntp", "STARTTLS now", "501 STARTTLS has no arguments"),
        ("nntp", "GROUP x", "483 STARTTLS first"),
        ("sieve", "CAPABILITY", sieve),
        ("sieve", "NOOP", "OK"),
        ("sieve", "LISTSCRIPTS", "NO (ENCRYPT-NEEDED) \"STARTTLS first\""),
        ("irc", "CAP LS 302", ":example.org CAP * LS :tls"),
        ("irc", "NICK me", ":example.org 451 * :STARTTLS first"),
        ("ftp", "AUTH SSL", "504 AUTH TLS is known only"),
        ("ftp", "FEAT", "211-features\r\n AUTH TLS\r\n211 end"),
        ("ftp", "NOOP", "200 ok"),
        ("ftp", "USER me", "530 AUTH TLS first"),
        ("line:XTLS", "HELLO", "500 XTLS first"),
    ] {
        assert_answer(dialogue, command, answer);
    }
}

/// RFC 9051, section 6
#[test]
fn an_imap_server_answers_a_command_with_its_tag_unless_the_tag_could_break_the_line() {
    let (longest, longer) = ("t".repeat(100), "t".repeat(101));
    let bad = "* BAD no command";
    for (tag, command, answer) in [
        ("a", " CAPABILITY", "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na OK done"),
        ("a.1", " noop", "a.1 OK done"),
        ("a", " STARTTLS now", "a BAD STARTTLS has no arguments"),
        ("a", " LOGIN me x", "a NO [PRIVACYREQUIRED] STARTTLS first"),
        ("a", "", bad),
        ("a(", " NOOP", bad),
        ("a\x7f", " NOOP", bad),
        ("+", " STARTTLS", bad),
        (&longer, " NOOP", bad),
        (&longest, " NOOP", &format!("{longest} OK done")),
    ] {
        assert_answer("imap", &format!("{tag}{command}"), answer);
    }
}

#[test]
fn the_lengths_of_postgres_and_mysql_have_limits() {
    let startup = |length: u32, code: u32| [length.to_be_bytes(), code.to_be_bytes()].concat();
    let packet = |length: u32, number: u8, flags: u32| {
        let content = [&flags.to_le_bytes()[..], &vec![0; length as usize - 4]].concat();
        [&length.to_le_bytes()[..3], &[number], &content].concat()
    };
    let long = |length: u32| [startup(length, 0x3_0000), vec![0; length as usize - 8]].concat();
    // The message, and whether the server answers.
    for (dialogue, message, answer) in [
        ("postgres", startup(7, 80_877_103), None),
        ("postgres", [startup(9, 80_877_103), vec![0]].concat(), None),
        ("postgres", [startup(9, 80_877_104), vec![0]].concat(), None),
        ("postgres", startup(8, 0x2_ffff), None),
        ("postgres", startup(8, 0x3_ffff), Some(b"E")),
        ("postgres", startup(8, 0x4_0000), None),
        ("postgres", long(10_000), Some(b"E")),
        ("postgres", long(10_001), None),
        ("mysql", packet(33, 1, 0x800), None),
        ("mysql", packet(31, 1, 0x800), None),
        ("mysql", packet(32, 2, 0x800), None),
        ("mysql", packet(32, 2, 0), None),
        ("mysql", packet(8192, 1, 0), Some(b"\x18")),
        ("mysql", packet(8193, 1, 0), None),
        // A length of which only the two lower bytes are valid.
        ("mysql", [&[32, 0, 1, 1, 0, 8, 0, 0][..], &[0; 28]].concat(), None),
    ] {
        let mut server = Side::server(dialogue);
        server.said.clear();
        server.segment(&message);
        assert!(is_unexpected(&server), "{dialogue}, {}: {:?}", message.len(), server.outcome());
        assert_eq!(server.said.first(), answer.map(|[first]| first), "{dialogue}, {}", message.len());
        if answer == Some(b"E") {
            // The length of a message of PostgreSQL counts itself, but not the type before it.
            let length = u32::from_be_bytes(*server.said[1..].first_chunk().unwrap());
            assert_eq!(length as usize, server.said.len() - 1);
        }
    }
}
