//! Protocols of lines.

use std::io;

use tokio::io::AsyncWriteExt;

use super::{Plain, read_to, refusal};

/// `line:CMD`: a greeting, the command, an answer. An answer that is a refusal in one of the usual tongues is one.
pub(super) async fn any(peer: &mut impl Plain, command: &str) -> io::Result<String> {
    let greeting = line(peer).await?;
    if is_no(&greeting) {
        return Err(refusal(&greeting));
    }
    let answer = ask(peer, command).await?;
    if is_no(&answer) { Err(refusal(&answer)) } else { Ok(greeting + "\r\n") }
}

/// RFC 3207
pub(super) async fn smtp(peer: &mut impl Plain) -> io::Result<String> {
    let greeting = reply(peer, "220").await?;
    say(peer, "EHLO localhost").await?;
    let offers = reply(peer, "250").await?;
    let is_starttls = |offer: &String| offer.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"));
    if !offers.iter().any(is_starttls) {
        return Err(refusal("EHLO lists no STARTTLS"));
    }
    say(peer, "STARTTLS").await?;
    reply(peer, "220").await.map(|_| text(&greeting))
}

/// RFC 9051 section 6.2.1. A server that greets with PREAUTH is past the state in which it may be asked.
pub(super) async fn imap(peer: &mut impl Plain) -> io::Result<String> {
    let greeting = line(peer).await?;
    if !starts(&greeting, "* OK") {
        return Err(refusal(&greeting));
    }
    let mut answer = ask(peer, "a1 STARTTLS").await?;
    while answer.starts_with("* ") {
        answer = line(peer).await?;
    }
    if starts(&answer, "a1 OK") { Ok(greeting + "\r\n") } else { Err(refusal(&answer)) }
}

/// RFC 2595 section 4
pub(super) async fn pop3(peer: &mut impl Plain) -> io::Result<String> {
    let greeting = line(peer).await?;
    let answer = if starts(&greeting, "+OK") { ask(peer, "STLS").await? } else { greeting.clone() };
    if starts(&answer, "+OK") { Ok(greeting + "\r\n") } else { Err(refusal(&answer)) }
}

/// RFC 4217 section 4
pub(super) async fn ftp(peer: &mut impl Plain) -> io::Result<String> {
    let greeting = reply(peer, "220").await?;
    say(peer, "AUTH TLS").await?;
    reply(peer, "234").await.map(|_| text(&greeting))
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// A server that goes on and on with one reply is not waited for.
const MOST_LINES: usize = 1000;

/// All lines of a reply with this code; the last one has no dash behind the code (RFC 5321 section 4.2.1). FTP's may
/// have lines without a code in between (RFC 959 section 4.2).
async fn reply(peer: &mut impl Plain, code: &str) -> io::Result<Vec<String>> {
    let mut lines = vec![line(peer).await?];
    let given = lines[0].get(..3).unwrap_or_default().to_owned();
    let mut is_last = lines[0].get(3..4) != Some("-");
    while !is_last {
        if lines.len() == MOST_LINES {
            return Err(refusal("the answer is too long"));
        }
        let next = line(peer).await?;
        is_last = next.get(..3) == Some(&given) && next.get(3..4) != Some("-");
        lines.push(next);
    }
    if given == code { Ok(lines) } else { Err(refusal(&lines.join(" "))) }
}

async fn ask(peer: &mut impl Plain, command: &str) -> io::Result<String> {
    say(peer, command).await?;
    line(peer).await
}

async fn say(peer: &mut impl Plain, command: &str) -> io::Result<()> {
    peer.write_all(format!("{command}\r\n").as_bytes()).await
}

async fn line(peer: &mut impl Plain) -> io::Result<String> {
    Ok(read_to(peer, b'\n').await?.trim_end_matches(['\r', '\n']).to_owned())
}

fn starts(line: &str, with: &str) -> bool {
    line.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
}

/// A 4xx or 5xx code, `-ERR`, or the words NO, BAD, ERR and ERROR.
fn is_no(answer: &str) -> bool {
    let first = answer.split_ascii_whitespace().next().unwrap_or_default();
    let code = first.as_bytes();
    let is_code = code.len() >= 3 && code[..3].iter().all(u8::is_ascii_digit) && matches!(code[0], b'4' | b'5');
    is_code || ["-ERR", "NO", "BAD", "ERR", "ERROR"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
