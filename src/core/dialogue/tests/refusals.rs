//! Refusals and wrong answers of peers, and how much of them the error shows.

use super::{Do, Hear, Outcome, Say, Side, at_every_cut};
use crate::core::dialogue::{LONGEST, MOST_COMMANDS};
use crate::error::{Blame, DialogueError};

fn refusal(side: fn(&str) -> Side, dialogue: &str, script: &[Do]) -> DialogueError {
    match at_every_cut(side, dialogue, script) {
        Outcome::Failed(error) => {
            assert_eq!(error.blame(), Blame::Peer);
            error
        }
        other => panic!("{dialogue}: {other:?}"),
    }
}

#[test]
fn a_client_names_the_words_with_which_the_server_declines() {
    let (starttls, greeting) = (Hear(b"STARTTLS\r\n"), Say(b"220 ESMTP\r\n"));
    let ehlo = Hear(b"EHLO localhost\r\n");
    let cases: [(&str, &[Do], &str); 21] = [
        ("smtp", &[Say(b"554-go\r\n554 away\r\n")], r#""554-go\r\n554 away""#),
        ("smtp", &[greeting, ehlo, Say(b"502 what\r\n")], r#""502 what""#),
        ("smtp", &[greeting, ehlo, Say(b"250 STARTTLS\r\n"), starttls, Say(b"454 not now\r\n")], r#""454 not now""#),
        ("lmtp", &[Say(b"421\n")], r#""421""#),
        ("imap", &[Say(b"* PREAUTH hello\r\n")], r#""* PREAUTH hello""#),
        ("imap", &[Say(b"* OK\r\n"), Hear(b"a1 STARTTLS\r\n"), Say(b"a1 BAD what\r\n")], r#""a1 BAD what""#),
        ("imap", &[Say(b"* OK\r\n"), Hear(b"a1 STARTTLS\r\n"), Say(b"* BYE\r\n")], r#""* BYE""#),
        ("pop3", &[Say(b"+OK\r\n"), Hear(b"STLS\r\n"), Say(b"-ERR no\x1b[31m\r\n")], r#""-ERR no\x1b[31m""#),
        ("nntp", &[Say(b"200 hi\r\n"), starttls, Say(b"580 no\r\n")], r#""580 no""#),
        ("nntp", &[Say(b"502 no\r\n")], r#""502 no""#),
        ("sieve", &[Say(b"BYE {5}\r\nno\r\nx\r\n")], r#""BYE {5}\r\nno\r\nx""#),
        ("sieve", &[Say(b"\"STARTTLS\"\r\nOK\r\n"), starttls, Say(b"NO \"x\"\r\n")], r#""NO \"x\"""#),
        ("irc", &[starttls, Say(b":i 691 * :no\r\n")], r#"":i 691 * :no""#),
        ("irc", &[starttls, Say(b"ERROR :no\r\n")], r#""ERROR :no""#),
        ("ftp", &[Say(b"220 hi\r\n"), Hear(b"AUTH TLS\r\n"), Say(b"502 no\r\n")], r#""502 no""#),
        ("ldap", &[Say(b"\x30\x0d\x02\x01\x01\x78\x08\x0a\x01\x34\x04\x00\x04\x01x")], r#""result code 52: x""#),
        ("postgres", &[Say(b"N")], r#""N""#),
        ("mysql", &[Say(b"\x05\x00\x00\x00\xff\x10\x04no")], r#""no""#),
        ("line:X", &[Say(b"ERR no\n")], r#""ERR no""#),
        ("line:X", &[Say(b"hi\n"), Hear(b"X\r\n"), Say(b"501 no\n")], r#""501 no""#),
        (
            "xmpp-server",
            &[
                Say(b"<stream:stream><stream:features><starttls/></stream:features>"),
                Say(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
            ],
            r#""<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>""#,
        ),
    ];
    for (dialogue, script, words) in cases {
        let error = refusal(Side::client, dialogue, script);
        assert_eq!(error.to_string(), format!("the peer did not agree to TLS: it said {words}"), "{dialogue}");
        assert!(matches!(error, DialogueError::Declined(_)) && error.may_go_on());
    }
}

#[test]
fn a_client_says_that_the_server_offers_no_tls() {
    let cases: [(&str, &[Do]); 5] = [
        ("smtp", &[Say(b"220 hi\r\n"), Say(b"250-mail\r\n250 NOSTARTTLS\r\n")]),
        ("sieve", &[Say(b"\"SIEVE\" \"STARTTLS\"\r\nOK\r\n")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features><bind><starttls/></bind></stream:features>")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features/>")]),
        ("mysql", &[Say(b"\x17\x00\x00\x00\x0a5.0\x00\x01\x00\x00\x00abcdefgh\x00\xff\xf7\x2d\x02\x00")]),
    ];
    for (dialogue, script) in cases {
        let error = refusal(Side::client, dialogue, script);
        assert_eq!(error, DialogueError::NotOffered, "{dialogue}");
        assert!(error.may_go_on());
    }
}

#[test]
fn a_client_refuses_what_its_protocol_does_not_have() {
    let cases: [(&str, &[Do]); 23] = [
        ("smtp", &[Say(b"HTTP/1.1 400 Bad Request\r\n")]),
        ("smtp", &[Say(b"220 a\rb\r\n")]),
        ("smtp", &[Say(b"220-a\r\n250 b\r\n")]),
        ("smtp", &[Say(b"220 hi\r\n"), Say(b"250-mail\r\nX\r\n")]),
        ("smtp", &[Say(b"2200 go\r\n")]),
        ("imap", &[Say(b"* OKAY\r\n")]),
        ("imap", &[Say(b"* OK\r\n"), Say(b"a2 OK\r\n")]),
        ("pop3", &[Say(b"+OK\r\n"), Say(b"+OKAY\r\n")]),
        ("nntp", &[Say(b"200-a\r\n")]),
        ("sieve", &[Say(b"SIEVE\r\n")]),
        ("sieve", &[Say(b"12}\r\n")]),
        ("sieve", &[Say(b"\"STARTTLS\"\r\nOK\r\n"), Say(b"\"SIEVE\"\r\n")]),
        ("irc", &[Say(b":i PRIVMSG x :670\r\n")]),
        // A byte after the response, a byte after the message, and another operation name.
        ("ldap", &[Say(b"\x30\x0d\x02\x01\x01\x78\x08\x0a\x01\x00\x04\x00\x04\x00X")]),
        ("ldap", &[Say(b"\x30\x0d\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00X")]),
        ("ldap", &[Say(b"\x30\x0f\x02\x01\x01\x78\x0a\x0a\x01\x00\x04\x00\x04\x00\x8a\x011")]),
        ("ldap", &[Say(b"\x30\x85\x01\x01\x01\x01\x01")]),
        ("xmpp", &[Say(b"<stream:stream/>")]),
        ("xmpp", &[Say(b"<stream:stream>X<stream:features>")]),
        ("xmpp", &[Say(b"<stream:stream><stream:features></a>")]),
        ("postgres", &[Say(b"E")]),
        ("mysql", &[Say(b"\x00\x00\x01\x00\x0a")]),
        ("mysql", &[Say(b"\x01\x00\x00\x01\x0a")]),
    ];
    for (dialogue, script) in cases {
        let error = refusal(Side::client, dialogue, script);
        assert!(matches!(error, DialogueError::Unexpected(_)) && !error.may_go_on(), "{dialogue}: {error}");
    }
}

/// rule: upgrade-3
#[test]
fn an_irc_answer_that_began_before_the_question_is_refused_at_any_cut() {
    let answer = b":i 670 * :go\r\n";
    for early in 1..answer.len() {
        let settings = super::ClientSettings { name: String::new(), hello: None, mysql_capabilities: 0 };
        let mut machine = super::Machine::client(&super::named("irc"), &settings);
        machine.unread(&answer[..early]);
        machine.sent(machine.output().len());
        machine.receive(answer);
        let is_early = matches!(machine.failure(), Some(DialogueError::Early(_)));
        assert!(is_early, "{early}: {:?}", machine.failure());
    }
}

#[test]
fn what_a_peer_says_is_bounded_and_so_is_what_an_error_quotes() {
    for (dialogue, begin, each) in [
        ("smtp", &b""[..], &b"220-x\r\n"[..]),
        ("imap", b"* OK\r\n", b"* x\r\n"),
        ("irc", b"", b"NOTICE x\r\n"),
        ("pop3", b"", b"x"),
        ("sieve", b"\"A\" {99999999999}\r\n", b"x"),
        ("xmpp", b"<stream:stream><stream:features>", b"<a/>"),
    ] {
        let mut client = Side::client(dialogue);
        client.segment(begin);
        client.segment(&each.repeat(LONGEST + 1));
        assert_eq!(client.outcome(), Outcome::Failed(DialogueError::TooLong { limit: LONGEST }), "{dialogue}");
    }
    let mut client = Side::client("smtp");
    client.segment(&[&[0xff; 1000][..], b"\n"].concat());
    let Outcome::Failed(error) = client.outcome() else { panic!() };
    assert!(error.to_string().len() < 4 * 200 + 100, "{error}");
    assert!(error.to_string().contains("\\xff\"..."), "{error}");
}

#[test]
fn a_server_lets_a_client_leave_in_order() {
    let ldap = [(b"\x30\x05\x02\x01\x03\x42\x00", &b""[..])];
    for (dialogue, command, farewell) in [
        ("smtp", &b"QUIT\r\n"[..], &b"221 2.0.0 bye\r\n"[..]),
        ("imap", b"a LOGOUT\r\n", b"* BYE\r\na OK done\r\n"),
        ("pop3", b"QUIT\r\n", b"+OK bye\r\n"),
        ("nntp", b"QUIT\r\n", b"205 bye\r\n"),
        ("sieve", b"LOGOUT\r\n", b"OK\r\n"),
        ("irc", b"QUIT :x\r\n", b"ERROR :bye\r\n"),
        ("ftp", b"QUIT\r\n", b"221 bye\r\n"),
        ("ldap", ldap[0].0, ldap[0].1),
        ("xmpp", b"<stream:stream></stream:stream>", b"</stream:stream>"),
    ] {
        let mut server = Side::server(dialogue);
        server.segment(command);
        assert_eq!(server.outcome(), Outcome::Failed(DialogueError::Left), "{dialogue}");
        assert!(server.said.ends_with(farewell), "{dialogue}");
    }
}

#[test]
fn a_server_says_that_it_needs_tls_to_a_client_that_begins_without() {
    let startup = b"\0\0\0\x13\0\x03\0\0user\0root\0\0";
    let login = b"\x24\0\0\x01\x85\xa6\x03\0\0\0\0\x01\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0root";
    for (dialogue, said, farewell) in [
        ("postgres", &startup[..], &b"\0MTLS is required\0\0"[..]),
        ("mysql", login, b"\x18\0\0\x02\xff\x57\x0c#HY000TLS is required"),
        ("xmpp", b"<stream:stream><auth>", b"</stream:error></stream:stream>"),
        ("xmpp", b"<html>", b"</stream:error></stream:stream>"),
        ("xmpp", b"<stream:stream><starttls/>", b"</stream:error></stream:stream>"),
    ] {
        let mut server = Side::server(dialogue);
        server.segment(said);
        let outcome = server.outcome();
        assert!(matches!(outcome, Outcome::Failed(DialogueError::Unexpected(_))), "{dialogue}: {outcome:?}");
        assert!(server.said.ends_with(farewell), "{dialogue}: {}", server.said.escape_ascii());
    }
}

/// An owner without a connection gets the last answer before the error.
#[test]
fn the_answer_that_explains_a_failure_is_given_first() {
    let mut server = Side::server("postgres").machine;
    assert_eq!(server.take(b"\0\0\0\x13\0\x03\0\0user\0root\0\0"), Ok(19));
    assert!(server.give(b"").unwrap().starts_with(b"E"));
    assert!(matches!(server.give(b""), Err(DialogueError::Unexpected(_))));
}

#[test]
fn a_server_answers_a_bounded_number_of_commands() {
    let mut server = Side::server("smtp");
    server.segment(&b"NOOP\r\n".repeat(MOST_COMMANDS - 1));
    assert_eq!(server.outcome(), Outcome::Waiting);
    server.segment(b"NOOP\r\n");
    let expected = DialogueError::TooManyCommands { limit: MOST_COMMANDS };
    assert_eq!(server.outcome(), Outcome::Failed(expected));
}

#[test]
fn a_name_cannot_bring_a_line_or_a_tag_of_its_own() {
    let settings =
        super::ClientSettings { name: "a'><x".into(), hello: Some("me\r\nQUIT\r\n".into()), mysql_capabilities: 0 };
    let mut client = Side::new(super::Machine::client(&super::named("smtp"), &settings));
    client.segment(b"220 hi\r\n");
    assert_eq!(client.said, b"EHLO meQUIT\r\n");
    let client = Side::new(super::Machine::client(&super::named("xmpp"), &settings));
    assert!(
        client.said.escape_ascii().to_string().contains("to=\\'a&apos;>&lt;x\\'"),
        "{}",
        client.said.escape_ascii()
    );
}
