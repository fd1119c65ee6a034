//! The dialogues before TLS. The outcome must not depend on the segments in which the peer's bytes arrive, and no byte
//! that came with the go-ahead may be read as part of the dialogue.

use bowline::DialogueError;
use bowline::starttls::{Client, Dialogue, Server};

use super::bytes::Bytes;
use super::text;

fn all() -> Vec<Dialogue> {
    let mut all: Vec<Dialogue> = Dialogue::all().collect();
    all.push("line:STARTTLS".parse().expect("it is a dialogue"));
    all
}

/// One side of a dialogue.
enum Side {
    Client(Client),
    Server(Server),
}

impl Side {
    fn receive(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        match self {
            Self::Client(side) => side.receive(bytes),
            Self::Server(side) => side.receive(bytes),
        }
    }

    fn output(&mut self, unread: &[u8]) -> Result<Vec<u8>, DialogueError> {
        match self {
            Self::Client(side) => side.output(unread),
            Self::Server(side) => side.output(unread),
        }
    }

    fn is_agreed(&self) -> bool {
        match self {
            Self::Client(side) => side.is_agreed(),
            Self::Server(side) => side.is_agreed(),
        }
    }
}

fn side(which: u8, dialogue: &Dialogue) -> Side {
    match which & 1 {
        0 => Side::Client(Client::new(dialogue.clone(), "example.org")),
        _ => Side::Server(Server::new(dialogue.clone()).name("example.org")),
    }
}

/// Everything that a side has said, the error, and the number of bytes that it has read.
fn talk(mut side: Side, bytes: &[u8], step: usize) -> (Vec<u8>, Option<DialogueError>, bool, usize) {
    let (mut said, mut read, mut arrived) = (Vec::new(), 0, 0);
    loop {
        loop {
            let before = (said.len(), read);
            match side.output(&bytes[read..arrived]) {
                Ok(out) => said.extend(out),
                Err(error) => return (said, Some(error), false, read),
            }
            if side.is_agreed() {
                return (said, None, true, read);
            }
            match side.receive(&bytes[read..arrived]) {
                Ok(n) => read += n,
                Err(error) => {
                    // A side that fails still sends its last answer.
                    said.extend(side.output(&[]).unwrap_or_default());
                    return (said, Some(error), false, read);
                }
            }
            assert!(read <= arrived);
            if (said.len(), read) == before {
                break;
            }
        }
        if arrived == bytes.len() {
            return (said, None, false, read);
        }
        arrived = (arrived + step).min(bytes.len());
    }
}

pub fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let (all, which) = (all(), input.byte());
    let dialogue = &all[usize::from(which >> 1) % all.len()];
    let step = 1 + input.below(40);
    let bytes = input.rest();
    let by_byte = talk(side(which, dialogue), bytes, 1);
    if let Some(error) = &by_byte.1 {
        text::check(error);
    }
    assert!(by_byte.0.len() <= 1 << 20, "{} bytes are said for {}", by_byte.0.len(), bytes.len());
    // In larger segments, bytes of the peer may come too early, and are refused. So such a peer gets no further than
    // one whose bytes come one by one.
    let by_step = talk(side(which, dialogue), bytes, step);
    if by_step.2 {
        assert!(by_byte.2, "{dialogue:?}: agreed in segments of {step} only");
        // A server of XMPP chooses a random id for each stream.
        assert_eq!((by_byte.0.len(), by_byte.3), (by_step.0.len(), by_step.3), "{dialogue:?}");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // These are the words of the other side. They are a valid answer in some of the states.
    let talks: [&[u8]; 12] = [
        b"220 hello\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n",
        b"EHLO x\r\nSTARTTLS\r\n",
        b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\na1 OK\r\na2 OK\r\n",
        b"a CAPABILITY\r\nb STARTTLS\r\n",
        b"+OK hi\r\n+OK\r\n",
        b"CAPA\r\nSTLS\r\n",
        b"S",
        &[0, 0, 0, 8, 4, 210, 22, 47],
        b"\"STARTTLS\"\r\nOK\r\nOK\r\n",
        b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        &[0x30, 0x1d, 2, 1, 1, 0x77, 0x18, 0x80, 0x16],
        b"200 hi\r\n382 go\r\n",
    ];
    let count = all().len() as u8;
    talks.iter().flat_map(|talk| (0..2 * count).map(move |which| [&[which, 7][..], talk].concat())).collect()
}
