//! The message that goes with the sockets: how many there are, and their names. It consists of lines of ASCII, so that
//! a person can read it in a trace of system calls.

use std::io;

use crate::escape::escaped;

/// The largest number of sockets. The system passes at most 253 descriptors with one message (`SCM_MAX_FD`, unix(7)).
pub(super) const MOST_SOCKETS: usize = 200;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// The size of the longest message, in bytes.
pub(super) const LONGEST: usize = 64 + MOST_SOCKETS * (LONGEST_NAME + 1);

/// The beginning of a message. A change of the protocol changes the number.
const GREETING: &str = "bowline-handover 1 ";

/// From the successor: it accepts connections.
pub(super) const READY: u8 = b'r';

/// From the predecessor: it has removed its Unix socket.
pub(super) const CLOSED: u8 = b'c';

/// Checks that this is a valid name for a socket.
pub(super) fn check_name(name: &str) -> io::Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(invalid(format!(
        "{name:?} is not a name for a socket: a name has 1 to {LONGEST_NAME} letters, digits, and signs of \"-_.\""
    )))
}

/// The message for sockets with these names.
pub(super) fn encode<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    let mut message = format!("{GREETING}{}\n", names.len()).into_bytes();
    for name in names {
        message.extend_from_slice(name.as_bytes());
        message.push(b'\n');
    }
    message
}

/// The names in a message. `None` while it is incomplete.
pub(super) fn decode(message: &[u8]) -> io::Result<Option<Vec<String>>> {
    let begun = &message[..message.len().min(GREETING.len())];
    if !GREETING.as_bytes().starts_with(begun) {
        let found = escaped(&message[..message.len().min(40)]).to_string();
        return Err(invalid(format!("the predecessor sent \"{found}\", where \"{GREETING}\" was expected")));
    }
    let mut lines = message.split(|byte| *byte == b'\n');
    let (Some(head), true) = (lines.next(), message.contains(&b'\n')) else { return too_long(message).map(|()| None) };
    let count = std::str::from_utf8(&head[GREETING.len()..]).ok().and_then(|count| count.parse::<usize>().ok());
    let Some(count @ 0..=MOST_SOCKETS) = count else {
        let found = escaped(&head[GREETING.len()..]).to_string();
        return Err(invalid(format!("the predecessor sends \"{found}\" sockets; at most {MOST_SOCKETS} are possible")));
    };
    // The text after the last line end is not a complete line.
    let mut lines: Vec<&[u8]> = lines.collect();
    lines.pop();
    if lines.len() < count {
        return too_long(message).map(|()| None);
    }
    if lines.len() > count || message.last() != Some(&b'\n') {
        return Err(invalid(format!("the predecessor sent more than {count} names")));
    }
    let named = |line: &&[u8]| {
        let name = String::from_utf8_lossy(line).into_owned();
        check_name(&name).map(|()| name)
    };
    lines.iter().map(named).collect::<io::Result<_>>().map(Some)
}

fn too_long(message: &[u8]) -> io::Result<()> {
    if message.len() < LONGEST {
        return Ok(());
    }
    Err(invalid(format!("the predecessor's message has no end within {LONGEST} bytes")))
}

pub(super) fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: handover-4
    #[test]
    fn a_message_is_decoded_at_every_cut() {
        let names = ["https", "metrics", "https"];
        let message = encode(names.into_iter());
        for cut in 0..message.len() {
            assert_eq!(decode(&message[..cut]).unwrap(), None, "{cut}");
        }
        assert_eq!(decode(&message).unwrap().unwrap(), names);
        assert_eq!(decode(&encode([].into_iter())).unwrap().unwrap(), [""; 0]);
    }

    // rule: handover-4
    #[test]
    fn a_message_that_is_none_is_refused_with_what_was_found() {
        let refused = |message: &[u8]| decode(message).unwrap_err().to_string();
        assert_eq!(
            refused(b"HTTP/1.1 400\x1b"),
            "the predecessor sent \"HTTP/1.1 400\\x1b\", where \"bowline-handover 1 \" was expected"
        );
        assert!(refused(b"bowline-handover 2 1\nhttps\n").contains("bowline-handover 2"));
        assert_eq!(
            refused(b"bowline-handover 1 201\n"),
            "the predecessor sends \"201\" sockets; at most 200 are possible"
        );
        assert_eq!(refused(b"bowline-handover 1 1\na\nb\n"), "the predecessor sent more than 1 names");
        assert!(refused(b"bowline-handover 1 1\na b\n").starts_with("\"a b\" is not a name for a socket"));
        let endless = [b"bowline-handover 1 1\n".as_slice(), &[b'x'; LONGEST]].concat();
        assert!(refused(&endless).contains("has no end within"));
    }
}
