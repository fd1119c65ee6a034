//! Each dialogue, on both sides, with the peer's bytes split at every place.

mod injected;
mod refusals;
mod scripts;
mod shapes;

use super::{ClientSettings, Dialogue, Machine, ServerSettings};
use crate::error::DialogueError;

/// One step of a transcript.
#[derive(Clone, Copy, Debug)]
enum Do {
    /// The peer sends this.
    Say(&'static [u8]),
    /// The machine has sent this.
    Hear(&'static [u8]),
}

use Do::{Hear, Say};

/// How a machine ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Both sides agreed to TLS, and these bytes are left over.
    Agreed(Vec<u8>),
    Failed(DialogueError),
    /// The machine waits for the peer.
    Waiting,
}

/// A machine with the buffer of its connection, and everything that the machine has sent.
struct Side {
    machine: Machine,
    unread: Vec<u8>,
    said: Vec<u8>,
}

impl Side {
    fn client(dialogue: &str) -> Self {
        let settings = ClientSettings { name: "example.org".into(), hello: None, mysql_capabilities: 0 };
        Self::new(Machine::client(&named(dialogue), &settings))
    }

    fn server(dialogue: &str) -> Self {
        let settings = ServerSettings { name: "example.org".into(), greeting: None };
        Self::new(Machine::server(&named(dialogue), &settings))
    }

    fn new(machine: Machine) -> Self {
        let mut side = Self { machine, unread: Vec::new(), said: Vec::new() };
        side.segment(b"");
        side
    }

    /// A segment arrives, and the machine does all that it can.
    fn segment(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            if !self.machine.output().is_empty() {
                self.machine.unread(&self.unread);
                let output = self.machine.output().to_vec();
                self.machine.sent(output.len());
                self.said.extend(output);
            }
            let taken = self.machine.receive(&self.unread);
            self.unread.drain(..taken);
            if self.machine.output().is_empty() {
                return;
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match self.machine.failure() {
            Some(error) => Outcome::Failed(error.clone()),
            None if self.machine.is_agreed() => Outcome::Agreed(self.unread.clone()),
            None => Outcome::Waiting,
        }
    }

    /// Plays a transcript. Each message of the peer is split at this offset or, without an offset, after each byte.
    fn play(&mut self, script: &[Do], cut: Option<usize>) -> Outcome {
        for step in script {
            match step {
                Say(bytes) => match cut {
                    Some(cut) => {
                        let (first, second) = bytes.split_at(cut.min(bytes.len()));
                        self.segment(first);
                        self.segment(second);
                    }
                    None => bytes.chunks(1).for_each(|byte| self.segment(byte)),
                },
                Hear(bytes) => {
                    let said = std::mem::take(&mut self.said);
                    assert_eq!(said.escape_ascii().to_string(), bytes.escape_ascii().to_string());
                }
            }
        }
        self.outcome()
    }
}

fn named(dialogue: &str) -> Dialogue {
    dialogue.parse().unwrap()
}

/// Plays a transcript with every split, and returns the outcome, which must be the same each time.
fn at_every_cut(side: fn(&str) -> Side, dialogue: &str, script: &[Do]) -> Outcome {
    let longest = script.iter().map(|step| if let Say(bytes) = step { bytes.len() } else { 0 }).max();
    let outcome = side(dialogue).play(script, Some(0));
    for cut in (1..longest.unwrap_or(0)).map(Some).chain([None]) {
        assert_eq!(side(dialogue).play(script, cut), outcome, "{dialogue}, cut at {cut:?}");
    }
    outcome
}

/// The name of each dialogue, and one command of a line.
fn names() -> impl Iterator<Item = String> {
    Dialogue::all().map(|dialogue| dialogue.to_string()).chain(["line:XTLS".into()])
}

#[test]
fn names_are_read_and_printed() {
    let names = names().collect::<Vec<_>>();
    let expected = "smtp lmtp imap pop3 nntp sieve irc ftp ldap xmpp xmpp-server postgres mysql line:XTLS";
    assert_eq!(names.join(" "), expected);
    for name in names.iter().map(String::as_str).chain(["line:XTLS now"]) {
        assert_eq!(named(name).to_string(), name);
    }
    assert_eq!(named("managesieve"), Dialogue::ManageSieve);
    assert_eq!(named("postgresql"), Dialogue::Postgres);
    for unknown in ["", "SMTP", "line", "line:", "line: ", "line:A\r\nB", "http"] {
        let error = unknown.parse::<Dialogue>().unwrap_err().to_string();
        assert!(error.ends_with("mysql, and line:COMMAND") && !error.contains('\n'), "{error}");
    }
}

/// Our client and our server agree to TLS in each dialogue, byte by byte and in whole segments.
#[test]
fn both_sides_agree_with_each_other() {
    for name in names() {
        for is_cut in [false, true] {
            let (mut client, mut server) = (Side::client(&name), Side::server(&name));
            for _ in 0..20 {
                hand_over(&mut server, &mut client, is_cut);
                hand_over(&mut client, &mut server, is_cut);
            }
            assert_eq!(client.outcome(), Outcome::Agreed(Vec::new()), "{name}");
            assert_eq!(server.outcome(), Outcome::Agreed(Vec::new()), "{name}");
        }
    }
}

fn hand_over(from: &mut Side, to: &mut Side, is_cut: bool) {
    let said = std::mem::take(&mut from.said);
    let size = if is_cut { 1 } else { said.len().max(1) };
    said.chunks(size).for_each(|segment| to.segment(segment));
}
