//! Line-based protocols.

use std::io;

use super::{Plain, Talk, refusal, refused};

/// `line:CMD`: a greeting, the command, an answer. The answer counts as a refusal if it is one in a common protocol.
pub(super) async fn any(talk: &mut Talk<'_, impl Plain>, command: &str) -> io::Result<String> {
    let greeting = talk.line().await?;
    if is_no(&greeting) {
        return Err(refused(&greeting));
    }
    let answer = ask(talk, command).await?;
    if is_no(&answer) { Err(refused(&answer)) } else { Ok(greeting + "\r\n") }
}

/// RFC 3207
pub(super) async fn smtp(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    let greeting = reply(talk, "220", Inside::Coded).await?;
    say(talk, "EHLO localhost").await?;
    let offers = reply(talk, "250", Inside::Coded).await?;
    let is_starttls = |offer: &String| offer.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"));
    if !offers.iter().any(is_starttls) {
        return Err(refusal("EHLO lists no STARTTLS"));
    }
    say(talk, "STARTTLS").await?;
    reply(talk, "220", Inside::Coded).await.map(|_| text(&greeting))
}

/// RFC 9051 section 6.2.1. A server that greets with PREAUTH has left the state in which STARTTLS is allowed. Its unsolicited
/// responses have no tag (section 7), and may come at any time.
pub(super) async fn imap(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    const UNTAGGED: &str = "* ";
    let greeting = talk.line().await?;
    if !starts(&greeting, "* OK") {
        return Err(refused(&greeting));
    }
    let are_untagged =
        |unread: &[u8]| unread.split_inclusive(|c| *c == b'\n').all(|l| l.starts_with(UNTAGGED.as_bytes()));
    talk.say_beside(b"a1 STARTTLS\r\n", are_untagged).await?;
    let mut answer = talk.line().await?;
    while answer.starts_with(UNTAGGED) && !starts(&answer, "* BYE") {
        answer = talk.line().await?;
    }
    if starts(&answer, "a1 OK") { Ok(greeting + "\r\n") } else { Err(refused(&answer)) }
}

/// RFC 2595 section 4
pub(super) async fn pop3(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    let greeting = talk.line().await?;
    let answer = if starts(&greeting, "+OK") { ask(talk, "STLS").await? } else { greeting.clone() };
    if starts(&answer, "+OK") { Ok(greeting + "\r\n") } else { Err(refused(&answer)) }
}

/// RFC 4217 section 4
pub(super) async fn ftp(talk: &mut Talk<'_, impl Plain>) -> io::Result<String> {
    let greeting = reply(talk, "220", Inside::Free).await?;
    say(talk, "AUTH TLS").await?;
    reply(talk, "234", Inside::Free).await.map(|_| text(&greeting))
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// The form of the lines between the first and the last line of a reply.
#[derive(Clone, Copy)]
enum Inside {
    /// The code and a dash (RFC 5321 section 4.2.1).
    Coded,
    /// Anything but the code and a space (RFC 959 section 4.2).
    Free,
}

/// All lines of a reply with this code.
async fn reply(talk: &mut Talk<'_, impl Plain>, code: &str, inside: Inside) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let line = talk.line().await?;
        let rest = line.strip_prefix(code);
        let is_last = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        let goes_on = match inside {
            Inside::Free if !lines.is_empty() => true,
            Inside::Free | Inside::Coded => rest.is_some_and(|rest| rest.starts_with('-')),
        };
        if !is_last && !goes_on {
            return Err(refused(&line));
        }
        lines.push(line);
        if is_last {
            return Ok(lines);
        }
    }
}

async fn ask(talk: &mut Talk<'_, impl Plain>, command: &str) -> io::Result<String> {
    say(talk, command).await?;
    talk.line().await
}

async fn say(talk: &mut Talk<'_, impl Plain>, command: &str) -> io::Result<()> {
    talk.say(format!("{command}\r\n").as_bytes()).await
}

/// Whether a line begins with these complete words, not with longer words that begin alike.
fn starts(line: &str, with: &str) -> bool {
    line.split_at_checked(with.len())
        .is_some_and(|(begin, rest)| begin.eq_ignore_ascii_case(with) && (rest.is_empty() || rest.starts_with(' ')))
}

/// A 4xx or 5xx code, `-ERR`, or the words NO, BAD, ERR and ERROR.
fn is_no(answer: &str) -> bool {
    let first = answer.split_ascii_whitespace().next().unwrap_or_default();
    let code = first.as_bytes();
    let is_code = code.len() >= 3 && code[..3].iter().all(u8::is_ascii_digit) && matches!(code[0], b'4' | b'5');
    is_code || ["-ERR", "NO", "BAD", "ERR", "ERROR"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
