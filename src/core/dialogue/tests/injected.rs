//! Bytes that an attacker injects, at each place of a dialogue.

use super::scripts::{TO_CLIENTS, TO_SERVERS};
use super::{Do, Outcome, Say, Side};
use crate::error::DialogueError;

/// The steps of a script in which the peer sends something.
fn places(script: &[Do]) -> Vec<usize> {
    (0..script.len()).filter(|n| matches!(script[*n], Say(_))).collect()
}

/// Plays the script up to `place`. There, the peer sends the bytes `said` and not those of the script. This is done
/// twice: the two parts of `said` arrive in one segment, and then in two.
fn with(side: fn(&str) -> Side, dialogue: &str, script: &[Do], place: usize, said: (&[u8], &[u8])) -> [Outcome; 2] {
    [false, true].map(|is_cut| {
        let mut peer = side(dialogue);
        peer.play(&script[..place], Some(0));
        if is_cut {
            peer.segment(said.0);
            peer.segment(said.1);
        } else {
            peer.segment(&[said.0, said.1].concat());
        }
        peer.outcome()
    })
}

fn said(script: &[Do], place: usize) -> &'static [u8] {
    if let Say(bytes) = script[place] { bytes } else { b"" }
}

/// The start of the last line, tag or message of these bytes.
fn last_unit(dialogue: &str, bytes: &[u8]) -> usize {
    match dialogue {
        "ldap" | "postgres" | "mysql" => 0,
        "xmpp" | "xmpp-server" => bytes.windows(2).position(|two| two == b"<p").unwrap_or(0),
        _ => bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1),
    }
}

/// rule: upgrade-2, upgrade-11
#[test]
fn a_client_takes_no_byte_after_the_go_ahead() {
    for (dialogue, script) in TO_CLIENTS {
        let place = *places(script).last().unwrap();
        for outcome in with(Side::client, dialogue, script, place, (said(script, place), b"X")) {
            match outcome {
                Outcome::Agreed(left) => assert_eq!(left, b"X", "{dialogue}"),
                // MySQL's server has no go-ahead: these bytes came before the client's request left.
                Outcome::Failed(DialogueError::Early(words)) => {
                    assert_eq!((dialogue, words.as_bytes()), ("mysql", &b"X"[..]));
                }
                other => panic!("{dialogue}: {other:?}"),
            }
        }
    }
}

/// rule: upgrade-3
#[test]
fn a_client_refuses_an_answer_that_came_before_its_question() {
    for (dialogue, script) in TO_CLIENTS {
        let places = places(script);
        for pair in places.windows(2) {
            let early = said(script, pair[1]);
            let [glued, cut] = with(Side::client, dialogue, script, pair[0], (said(script, pair[0]), early));
            assert!(matches!(glued, Outcome::Failed(DialogueError::Early(_))), "{dialogue}: {glued:?}");
            // If the second answer comes in a segment of its own, it comes after our next question, so it is the answer
            // to that question.
            assert!(!matches!(cut, Outcome::Failed(_)), "{dialogue}: {cut:?}");
            let [glued, cut] = with(Side::client, dialogue, script, pair[0], (said(script, pair[0]), b"X"));
            assert!(matches!(glued, Outcome::Failed(DialogueError::Early(_))), "{dialogue}: {glued:?}");
            assert_eq!(cut, Outcome::Waiting, "{dialogue}");
        }
    }
}

/// rule: upgrade-2
#[test]
fn a_client_refuses_a_byte_before_and_inside_the_go_ahead() {
    // The dialogues for unknown protocols are left out, because they accept any line as an answer.
    for (dialogue, script) in TO_CLIENTS.into_iter().filter(|(dialogue, _)| !dialogue.starts_with("line:")) {
        let place = *places(script).last().unwrap();
        let all = said(script, place);
        let begin = last_unit(dialogue, all);
        // Offsets at the start of the go-ahead and inside its first word. (The name of an IRC server can be any text.)
        let inside: &[usize] = match dialogue {
            "postgres" => &[0],
            "irc" => &[0, 14, 15],
            _ => &[0, 1, 2],
        };
        for at in inside.iter().map(|inside| begin + inside) {
            for (first, second) in [(&b"X"[..], &b""[..]), (b"\0", b""), (b"X", b"\r\n")] {
                let before = [&all[..at], first].concat();
                let behind = [second, &all[at..]].concat();
                for outcome in with(Side::client, dialogue, script, place, (&before, &behind)) {
                    assert!(!matches!(outcome, Outcome::Agreed(_)), "{dialogue} at {at}: {outcome:?}");
                }
            }
        }
    }
}

/// rule: upgrade-2, upgrade-3
#[test]
fn a_server_sends_no_go_ahead_if_plaintext_follows_the_command() {
    for (dialogue, script) in TO_SERVERS {
        let place = *places(script).last().unwrap();
        let [glued, cut] = with(Side::server, dialogue, script, place, (said(script, place), b"X"));
        assert!(matches!(glued, Outcome::Failed(DialogueError::Early(_))), "{dialogue}: {glued:?}");
        assert_eq!(cut, Outcome::Agreed(b"X".to_vec()), "{dialogue}");
        let hello = b"\x16\x03\x01\x02\x00\x01";
        for outcome in with(Side::server, dialogue, script, place, (said(script, place), hello)) {
            assert_eq!(outcome, Outcome::Agreed(hello.to_vec()), "{dialogue}");
        }
    }
}

/// rule: upgrade-2
#[test]
fn a_server_takes_no_changed_command_for_one_that_asks_for_tls() {
    for (dialogue, script) in TO_SERVERS {
        let place = *places(script).last().unwrap();
        let all = said(script, place);
        for at in 0..all.trim_ascii_end().len() {
            for injected in [&b"X"[..], b"\0", b"\r"] {
                let changed = [&all[..at], injected].concat();
                for outcome in with(Side::server, dialogue, script, place, (&changed, &all[at..])) {
                    // An IMAP client chooses its tag, so another letter in the tag is still a valid command.
                    let is_tag = dialogue == "imap" && at <= 3 && injected == b"X";
                    // The spaces before a line of an unknown protocol have no meaning.
                    assert!(is_tag || !matches!(outcome, Outcome::Agreed(_)), "{dialogue} at {at}: {outcome:?}");
                }
            }
        }
    }
}
