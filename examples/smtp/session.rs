//! One client: commands, one mail after the other, and TLS in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bowline::StartTls;
use bowline::protocol::{CallbackResult, Handle, MessageConn, MessageProtocol};
use bowline::starttls::{Dialogue, Server};
use tokio_util::codec::{LinesCodec, LinesCodecError};

use crate::Service;
use crate::command::Command;
use crate::data::{Data, Fault};
use crate::maildir::Spool;

/// The longest command, without CRLF: RFC 5321 requires 512, and a little more for the parameters of MAIL.
const MAX_LINE: usize = 1000;
/// The most recipients of a mail: RFC 5321, section 4.5.3.1.8, requires at least a hundred.
const MAX_RECIPIENTS: usize = 100;
/// A client that makes this many mistakes is disconnected.
const MAX_ERRORS: u32 = 20;

type Conn<'a> = MessageConn<'a, LinesCodec>;

pub(crate) struct Session {
    service: Arc<Service>,
    /// Answers the client's commands before TLS, if TLS is required.
    plaintext: Option<Server>,
    greeting: Option<String>,
    mail: Option<Mail>,
    data: Option<Incoming>,
    errors: u32,
    /// A mail is on its way to the disk; its answer is not sent yet.
    is_delivering: Arc<AtomicBool>,
}

/// The mail after DATA, as far as it has arrived.
struct Incoming {
    data: Data,
    spool: Arc<Mutex<Spool>>,
    begun: Instant,
}

impl Incoming {
    /// The time limit for the next bytes. The whole mail has the time of a command, plus a second for each KiB that has
    /// arrived. So a client that sends one byte from time to time is cut off, as a silent client is.
    fn patience(&self, silence: Duration) -> Duration {
        let earned = Duration::from_secs(self.data.length() as u64 >> 10);
        silence.saturating_add(earned).saturating_sub(self.begun.elapsed()).min(silence)
    }
}

/// A mail in progress.
struct Mail {
    from: String,
    to: Vec<String>,
}

impl Session {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let is_delivering = Arc::default();
        let greeting = &b"220 bowline ESMTP\r\n"[..];
        let plaintext = service.requires_tls.then(|| Server::new(Dialogue::Smtp).greeting(greeting));
        Self { service, plaintext, greeting: None, mail: None, data: None, errors: 0, is_delivering }
    }

    fn obey(&mut self, conn: &mut Conn<'_>, command: Command<'_>) -> CallbackResult {
        match (command, &mut self.mail) {
            (Command::Helo(name), _) => {
                self.greet(name);
                say(conn, "250 bowline");
            }
            (Command::Ehlo(name), _) => {
                self.greet(name);
                self.offer(conn);
            }
            (Command::StartTls, _) => self.start_tls(conn)?,
            (Command::Mail { .. } | Command::Rcpt { .. } | Command::Data, _) if self.greeting.is_none() => {
                self.refuse(conn, "503 5.5.1 EHLO first");
            }
            (Command::Mail { .. }, Some(_)) => self.refuse(conn, "503 5.5.1 one mail at a time"),
            (Command::Mail { size: Some(size), .. }, None) if size > self.service.max_size as u64 => {
                self.refuse(conn, "552 5.3.4 too big");
            }
            (Command::Mail { from, .. }, None) => {
                self.mail = Some(Mail { from: from.to_owned(), to: Vec::new() });
                say(conn, "250 2.1.0 go on");
            }
            (Command::Rcpt { .. } | Command::Data, None) => self.refuse(conn, "503 5.5.1 MAIL first"),
            (Command::Rcpt { .. }, Some(mail)) if mail.to.len() == MAX_RECIPIENTS => {
                self.refuse(conn, "452 4.5.3 too many recipients");
            }
            (Command::Rcpt { to }, Some(mail)) => {
                mail.to.push(to.to_owned());
                say(conn, "250 2.1.5 go on");
            }
            (Command::Data, Some(mail)) if mail.to.is_empty() => self.refuse(conn, "503 5.5.1 RCPT first"),
            (Command::Data, Some(mail)) => {
                let header = header(self.greeting.as_deref().unwrap_or_default(), conn, mail);
                let data = Data::new(self.service.max_size, header.into_bytes());
                self.data = Some(Incoming { data, spool: Arc::default(), begun: Instant::now() });
                conn.set_raw();
                say(conn, "354 end with a dot");
            }
            (Command::Rset, _) => {
                self.mail = None;
                say(conn, "250 2.0.0 forgotten");
            }
            (Command::Noop, _) => say(conn, "250 2.0.0 nothing done"),
            (Command::Vrfy, _) => say(conn, "252 2.1.5 cannot verify; send the mail to find out"),
            (Command::Help, _) => say(conn, "214 2.0.0 RFC 5321"),
            (Command::Quit, _) => {
                say(conn, "221 2.0.0 bye");
                conn.close();
            }
        }
        Ok(())
    }

    fn greet(&mut self, name: &str) {
        self.greeting = Some(name.to_owned());
        self.mail = None;
    }

    fn offer(&self, conn: &mut Conn<'_>) {
        let tls = if self.may_start_tls(conn) { "250-STARTTLS\r\n" } else { "" };
        let size = self.service.max_size;
        say(
            conn,
            &format!(
                "250-bowline\r\n{tls}250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE {size}"
            ),
        );
    }

    fn may_start_tls(&self, conn: &Conn<'_>) -> bool {
        self.service.tls.is_some() && !conn.is_secure()
    }

    /// The answer is sent in plaintext. RFC 3207: the client waits for the answer before it sends more. Bytes that came
    /// before the answer are refused.
    fn start_tls(&mut self, conn: &mut Conn<'_>) -> CallbackResult {
        match &self.service.tls {
            _ if conn.is_secure() => self.refuse(conn, "503 5.5.1 TLS is already active"),
            None => self.refuse(conn, "454 4.7.0 TLS is not available"),
            Some(tls) => {
                say(conn, "220 2.0.0 go ahead");
                conn.start_tls(StartTls::server(tls).leftover(bowline::Leftover::Refuse))?;
            }
        }
        Ok(())
    }

    /// Passes a line to the dialogue before TLS. `false`: there is none, or no more.
    fn hear_plaintext(&mut self, conn: &mut Conn<'_>, line: &str) -> CallbackResult<bool> {
        let Some(server) = &mut self.plaintext else { return Ok(false) };
        let heard = server.receive(format!("{line}\r\n").as_bytes());
        speak(conn, server);
        // The dialogue reports that it has failed only after its last answer was taken.
        let is_over = heard.is_err() || server.receive(b"").is_err();
        match &self.service.tls {
            _ if is_over => conn.close(),
            Some(tls) if server.is_agreed() => {
                conn.start_tls(StartTls::server(tls).leftover(bowline::Leftover::Refuse))?;
            }
            Some(_) | None => {}
        }
        Ok(true)
    }

    fn refuse(&mut self, conn: &mut Conn<'_>, reply: &str) {
        say(conn, reply);
        self.errors += 1;
        if self.errors == MAX_ERRORS {
            say(conn, "421 4.7.0 too many errors");
            conn.close();
        }
    }

    /// Another thread writes a piece of the mail to the disk. Nothing is read meanwhile.
    fn spool(&mut self, conn: &mut Conn<'_>) {
        let Some(incoming) = &mut self.data else { return };
        let Some(piece) = incoming.data.take_piece() else { return };
        conn.pause_reading();
        let (service, spool, handle) = (Arc::clone(&self.service), Arc::clone(&incoming.spool), conn.handle());
        tokio::task::spawn_blocking(move || {
            lock(&spool).write(&service.maildir, &piece);
            handle.resume_reading();
        });
    }

    /// The mail is complete, and another thread writes its last piece to the disk. No command is processed meanwhile,
    /// because the answer to the mail comes first.
    fn deliver(&mut self, conn: &mut Conn<'_>, spool: Arc<Mutex<Spool>>, rest: Vec<u8>) {
        conn.pause_reading();
        conn.set_timer(None);
        self.is_delivering.store(true, Ordering::SeqCst);
        let (service, handle) = (Arc::clone(&self.service), conn.handle());
        let is_delivering = Arc::clone(&self.is_delivering);
        tokio::task::spawn_blocking(move || {
            let delivered = lock(&spool).deliver(&service.maildir, &rest);
            if let Err(error) = &delivered {
                eprintln!("smtp: {error}");
            }
            handle.write(if delivered.is_ok() { "250 2.0.0 delivered\r\n" } else { "451 4.3.0 try again later\r\n" });
            is_delivering.store(false, Ordering::SeqCst);
            go_on(&service, &handle);
        });
    }
}

fn lock(spool: &Mutex<Spool>) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The header lines that we add to a mail. `name` is the name that the client gave in its greeting.
fn header(name: &str, conn: &Conn<'_>, mail: &Mail) -> String {
    let with = if conn.is_secure() { "ESMTPS" } else { "ESMTP" };
    let peer = conn.peer_addr();
    let to: String = mail.to.iter().map(|to| format!("Delivered-To: {to}\n")).collect();
    let date = date(SystemTime::now());
    format!("Return-Path: <{}>\n{to}Received: from {name} ({peer}) by bowline with {with};\n\t{date}\n", mail.from)
}

/// Continues the connection after a delivery, or ends it if the drain has waited for the answer. The delivery has
/// already cleared its flag: of the delivery and the drain, the later one sees the other.
fn go_on(service: &Service, handle: &Handle) {
    if service.is_draining.load(Ordering::SeqCst) {
        handle.set_timer(Some(Duration::ZERO));
    } else {
        handle.set_timer(Some(service.timeout));
        handle.resume_reading();
    }
}

impl MessageProtocol for Session {
    type Codec = LinesCodec;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new_with_max_length(MAX_LINE)
    }

    fn connection_made(&mut self, conn: &mut Conn<'_>) -> CallbackResult {
        conn.set_timer(Some(self.service.timeout));
        match &mut self.plaintext {
            Some(server) => speak(conn, server),
            None => say(conn, "220 bowline ESMTP"),
        }
        Ok(())
    }

    /// RFC 3207, section 4.2: the server discards everything that the client said in plaintext.
    fn handshake_completed(&mut self, conn: &mut Conn<'_>) -> CallbackResult {
        conn.set_timer(Some(self.service.timeout));
        self.plaintext = None;
        self.greeting = None;
        self.mail = None;
        Ok(())
    }

    fn message_received(&mut self, conn: &mut Conn<'_>, line: String) -> CallbackResult {
        // The timer restarts only after a whole command, not after each byte.
        conn.set_timer(Some(self.service.timeout));
        if self.hear_plaintext(conn, &line)? {
            return Ok(());
        }
        match Command::parse(&line) {
            Ok(command) => self.obey(conn, command)?,
            Err(refusal) => self.refuse(conn, refusal),
        }
        Ok(())
    }

    fn raw_received(&mut self, conn: &mut Conn<'_>, bytes: &[u8]) -> CallbackResult<usize> {
        let silence = self.service.timeout;
        let Some(incoming) = &mut self.data else { return Ok(bytes.len()) };
        let Some(end) = incoming.data.feed(bytes) else {
            conn.set_timer(Some(incoming.patience(silence)));
            self.spool(conn);
            return Ok(bytes.len());
        };
        conn.set_timer(Some(silence));
        conn.set_codec(self.codec());
        let (incoming, mail) = (self.data.take(), self.mail.take());
        match (incoming.map(|incoming| (incoming.data.finish(), incoming.spool)), mail) {
            (Some((Ok(rest), spool)), Some(_)) => self.deliver(conn, spool, rest),
            (Some((Err(Fault::TooBig), _)), _) => self.refuse(conn, "552 5.3.4 too big"),
            (Some((Err(Fault::BareLineEnd), _)), _) => self.refuse(conn, "550 5.5.2 each line must end with CR LF"),
            (None, _) | (_, None) => self.refuse(conn, "503 5.5.1 MAIL first"),
        }
        Ok(end)
    }

    fn frame_error(&mut self, conn: &mut Conn<'_>, error: LinesCodecError) -> CallbackResult {
        self.refuse(
            conn,
            match error {
                LinesCodecError::MaxLineLengthExceeded => "500 5.5.2 line too long",
                LinesCodecError::Io(_) => "500 5.5.2 no text",
            },
        );
        Ok(())
    }

    /// The client was silent for too long, or the service is stopping.
    fn timer_fired(&mut self, conn: &mut Conn<'_>) -> CallbackResult {
        let is_draining = self.service.is_draining.load(Ordering::SeqCst);
        if !self.is_delivering.load(Ordering::SeqCst) {
            say(conn, if is_draining { "421 4.3.2 shutting down" } else { "421 4.4.2 timed out" });
            conn.close();
        }
        Ok(())
    }
}

/// Sends the answer of the dialogue. The upgrade refuses bytes that came after the command that asks for TLS.
fn speak(conn: &mut Conn<'_>, server: &mut Server) {
    if let Ok(output) = server.output(b"") {
        conn.write(&output);
    }
}

fn say(conn: &mut Conn<'_>, reply: &str) {
    conn.write_sequence(&mut [reply.as_bytes(), b"\r\n"].into_iter());
}

/// Prints a time in the format of RFC 5322.
fn date(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in cycles of 400 years, which begin 719,468 days before 1970.
    let (cycle, day_of_cycle) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = cycle * 400 + year + u64::from(month < 2);
    let weekday = DAYS[(days % 7) as usize];
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {day} {} {year} {hour:02}:{minute:02}:{second:02} +0000", MONTHS[month as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_rfc_5322() {
        for (seconds, expected) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_826_449, "Tue, 29 Feb 2000 12:14:09 +0000"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
