//! The commands of RFC 5321, as lines.

/// A valid command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Helo(&'a str),
    Ehlo(&'a str),
    StartTls,
    Mail { from: &'a str, size: Option<u64> },
    Rcpt { to: &'a str },
    Data,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
}

/// The answer to a line that is not a command.
pub(crate) type Refusal = &'static str;

impl<'a> Command<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self, Refusal> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let bare = |command| if rest.is_empty() { Ok(command) } else { Err("501 5.5.4 no argument, please") };
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => Ok(Self::Helo(name(rest)?)),
            "EHLO" => Ok(Self::Ehlo(name(rest)?)),
            "STARTTLS" => bare(Self::StartTls),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => bare(Self::Data),
            "RSET" => bare(Self::Rset),
            "QUIT" => bare(Self::Quit),
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Vrfy),
            "HELP" => Ok(Self::Help),
            "EXPN" | "AUTH" | "TURN" | "ETRN" | "BDAT" => Err("502 5.5.1 not implemented"),
            _ => Err("500 5.5.2 unknown command"),
        }
    }
}

fn name(text: &str) -> Result<&str, Refusal> {
    let is_name = !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name { Ok(text) } else { Err("501 5.5.4 a name is missing") }
}

fn mail(rest: &str) -> Result<Command<'_>, Refusal> {
    let (from, parameters) = path(rest, "FROM:")?;
    let mut size = None;
    for parameter in parameters.split_ascii_whitespace() {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (key.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", digits) => size = Some(digits.parse().map_err(|_| "501 5.5.4 SIZE is a number")?),
            ("BODY", "7BIT" | "8BITMIME") => {}
            _ => return Err("555 5.5.4 unknown parameter"),
        }
    }
    Ok(Command::Mail { from, size })
}

fn rcpt(rest: &str) -> Result<Command<'_>, Refusal> {
    match path(rest, "TO:")? {
        ("", _) => Err("501 5.1.3 no such address"),
        (to, "") => Ok(Command::Rcpt { to }),
        _ => Err("555 5.5.4 unknown parameter"),
    }
}

/// `FROM:<a@b> parameters`. A space after the colon is accepted, as other servers do.
fn path<'a>(text: &'a str, key: &str) -> Result<(&'a str, &'a str), Refusal> {
    const WRONG: Refusal = "501 5.5.4 <address> expected";
    let head = text.get(..key.len()).filter(|head| head.eq_ignore_ascii_case(key)).ok_or(WRONG)?;
    let (address, rest) =
        text[head.len()..].trim_start().strip_prefix('<').and_then(|text| text.split_once('>')).ok_or(WRONG)?;
    let is_address = address.len() <= 254 && address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'<');
    let is_apart = rest.is_empty() || rest.starts_with(' ');
    if is_address && is_apart { Ok((address, rest.trim())) } else { Err("501 5.1.3 no such address") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_or_refused_with_the_code_of_the_rfc() {
        let mail = |from, size| Ok(Command::Mail { from, size });
        let cases = [
            ("ehlo there", Ok(Command::Ehlo("there"))),
            ("EHLO", Err("501 5.5.4 a name is missing")),
            ("mail from:<a@b> size=5 body=8bitmime", mail("a@b", Some(5))),
            ("MAIL FROM: <>", mail("", None)),
            ("MAIL FROM:<a@b>SIZE=5", Err("501 5.1.3 no such address")),
            ("MAIL FROM:<a@b> SIZE=x", Err("501 5.5.4 SIZE is a number")),
            ("MAIL FROM:<a@b> RET=HDRS", Err("555 5.5.4 unknown parameter")),
            ("MAIL a@b", Err("501 5.5.4 <address> expected")),
            ("MAIL FRÖM:<a@b>", Err("501 5.5.4 <address> expected")),
            ("RCPT TO:<c@d>", Ok(Command::Rcpt { to: "c@d" })),
            ("RCPT TO:<>", Err("501 5.1.3 no such address")),
            ("RCPT TO:<a b@c>", Err("501 5.1.3 no such address")),
            ("DATA now", Err("501 5.5.4 no argument, please")),
            ("NOOP as you like", Ok(Command::Noop)),
            ("AUTH PLAIN x", Err("502 5.5.1 not implemented")),
            ("GET / HTTP/1.1", Err("500 5.5.2 unknown command")),
            ("", Err("500 5.5.2 unknown command")),
        ];
        for (line, expected) in cases {
            assert_eq!(Command::parse(line), expected, "{line}");
        }
    }
}
