//! One connection of the console with the callback API. It has the same commands as `service.rs`, and never waits.

use std::sync::Arc;
use std::time::Duration;

use bowline::protocol::{AfterRead, CallbackResult, Conn, Handle, Producer, Protocol, PullProducer, Reading, Runner};
use bowline::{End, Error, Incoming, Keepalive, Reason, StartTls, UpgradeError};
use sha2::{Digest, Sha256};

use crate::Console;
use crate::args::Kind;
use crate::command::{Command, HELP};
use crate::common::info::{info, to_json};
use crate::pattern::{PATTERN, Sequence};
use crate::service::{MAX_LINE, on_off};

/// Larger amounts than this are sent by a producer, at the speed of the peer.
const MAX_AT_ONCE: u64 = 16 << 10;
/// The most bytes that are produced in one turn.
const MAX_TURN: u64 = 256 << 10;

/// Serves one connection to its end.
pub(crate) async fn serve(kind: Kind, incoming: Incoming, number: u64, console: Arc<Console>) {
    let tls = (kind == Kind::Tls).then_some(&console.tls);
    let runner = Runner::accept(Service::new(kind, number, Arc::clone(&console)), incoming, tls);
    runner.run().await;
}

struct Service {
    kind: Kind,
    number: u64,
    console: Arc<Console>,
    state: State,
    handle: Option<Handle>,
}

/// The meaning of the next bytes.
enum State {
    /// No bytes are expected yet: the handshake of a TLS port has to finish first.
    Silent,
    /// Commands.
    Prompt,
    /// Data to be summed.
    Summing(Sha256, u64),
    /// Data after our own end, which is ignored.
    Ignoring,
}

impl Service {
    fn new(kind: Kind, number: u64, console: Arc<Console>) -> Self {
        Self { kind, number, console, state: State::Silent, handle: None }
    }

    fn greet(&mut self, conn: &mut dyn Conn) {
        self.state = State::Prompt;
        say(conn, &format!("220 bowline console {}", self.kind.name()));
    }

    /// Carries out one command after the other, until a command needs time or the rest is not a whole line. Returns the
    /// number of processed bytes.
    fn obey_all(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        let mut done = 0;
        // rule: write-10: lines stay unread while many answers are unsent.
        while matches!(self.state, State::Prompt) && conn.reading() == Reading::Open {
            let rest = &data[done..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end <= MAX_LINE + 1) else {
                if rest.len() > MAX_LINE + usize::from(rest.get(MAX_LINE) == Some(&b'\r')) {
                    done += too_long(conn, rest);
                }
                return Ok(done);
            };
            let line = &rest[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_LINE {
                return Ok(done + too_long(conn, rest));
            }
            done += end + 1;
            match Command::parse(line) {
                Some(Command::StartTls) if self.kind != Kind::Tcp && has_too_many_layers(conn) => {
                    say(conn, "500 too many layers");
                }
                Some(Command::StartTls) if self.kind != Kind::Tcp => {
                    self.start_tls(conn)?;
                    // The bytes after the line are leftover, and the transport decides about them.
                    return Ok(done);
                }
                Some(Command::StopTls) if conn.is_secure() => {
                    say(conn, "220 going plain");
                    conn.stop_tls()?;
                    return Ok(done);
                }
                Some(command) => self.obey(conn, command)?,
                None => say(conn, "500 unknown command"),
            }
            if conn.dropped() > 0 {
                // Nothing can be sent any more, so further commands are ignored. The connection's reason says why.
                self.state = State::Ignoring;
            }
        }
        match &mut self.state {
            State::Silent | State::Prompt => return Ok(done),
            State::Summing(hash, count) => {
                hash.update(&data[done..]);
                *count += (data.len() - done) as u64;
            }
            State::Ignoring => {}
        }
        Ok(data.len())
    }

    fn obey(&mut self, conn: &mut dyn Conn, command: Command<'_>) -> CallbackResult {
        match command {
            Command::Echo(text) => conn.write_sequence(&mut [text, b"\r\n"].into_iter()),
            Command::Send(n) => produce(conn, Pattern::new(n)),
            Command::SendSeq(parts, n) => conn.write_sequence(&mut Sequence::new(parts, n).slices()),
            Command::TooLarge => say(conn, "500 too large"),
            Command::Tiny(n) => produce(conn, Pattern::tiny(n)),
            Command::Close(n) => {
                produce(conn, Pattern::new(n));
                // rule: close-5: the close waits for the producer.
                conn.close();
                self.state = State::Ignoring;
            }
            Command::Half(n) => {
                produce(conn, Pattern::new(n));
                conn.close_write();
                conn.resume_reading();
                self.state = State::Ignoring;
            }
            Command::Abort(n) => {
                // Written bytes leave after this callback, and the abort discards them. So writing more than one turn's
                // bytes would have no effect.
                Pattern::new(n).write(conn, MAX_TURN);
                conn.abort();
                self.state = State::Ignoring;
            }
            Command::Sum => {
                say(conn, "250 go");
                self.state = State::Summing(Sha256::new(), 0);
            }
            Command::Pause(ms) => {
                conn.pause_reading();
                conn.set_timer(Some(Duration::from_millis(ms)));
            }
            Command::StartTls => say(conn, "500 no STARTTLS on this port"),
            Command::StopTls => say(conn, "500 not secure"),
            Command::Info => {
                let (host, peer) = (conn.local_addr(), conn.peer_addr());
                say(conn, &to_json(&info(self.kind.name(), &host, &peer, conn.tls().as_deref())));
            }
            Command::Nodelay(on) => {
                conn.set_nodelay(on)?;
                let on = conn.nodelay()?;
                say(conn, &format!("250 nodelay={}", on_off(on)));
            }
            Command::Keepalive(on) => {
                conn.set_keepalive(on.then(Keepalive::new))?;
                let on = conn.keepalive()?.is_some();
                say(conn, &format!("250 keepalive={}", on_off(on)));
            }
            Command::Help => say(conn, HELP),
            Command::Quit => {
                say(conn, "221 bye");
                conn.close();
                self.state = State::Ignoring;
            }
        }
        Ok(())
    }

    fn start_tls(&self, conn: &mut dyn Conn) -> CallbackResult {
        say(conn, "220 go ahead");
        let how = StartTls::server(&self.console.tls);
        let how = self.console.leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
        Ok(conn.start_tls(how)?)
    }
}

impl Protocol for Service {
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.console.log.made(self.number, self.kind.name(), conn.peer_addr().to_string());
        self.handle = Some(conn.handle());
        if self.kind != Kind::Tls {
            self.greet(conn);
        }
        Ok(())
    }

    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let (host, peer) = (conn.local_addr(), conn.peer_addr());
        let facts = info(self.kind.name(), &host, &peer, conn.tls().as_deref());
        self.console.log.secured(self.number, facts);
        if matches!(self.state, State::Silent) {
            self.greet(conn);
        }
        Ok(())
    }

    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        self.obey_all(conn, data)
    }

    fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        say(conn, "250 resumed");
        conn.resume_reading();
        Ok(())
    }

    /// Commands that came before the peer's end are still answered.
    fn read_closed(&mut self, conn: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        match end {
            End::Clean => self.console.log.read_closed(self.number, "clean"),
            End::Truncated => self.console.log.read_closed(self.number, "truncated"),
            // This is not the normal end of the peer's data, but a wrong answer to our close. The reason says so.
            End::Unconfirmed => {}
        }
        if let (State::Summing(hash, count), End::Clean) = (&mut self.state, end) {
            let sum = std::mem::take(hash).finalize();
            say(conn, &format!("{count} {sum:x}"));
        }
        conn.close();
        Ok(AfterRead::KeepWriting)
    }

    fn write_closed(&mut self, _: &mut dyn Conn) -> CallbackResult {
        self.console.log.write_closed(self.number);
        Ok(())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let counts = self.handle.as_ref().map_or((0, 0), |handle| (handle.received(), handle.sent()));
        let report = self.handle.as_ref().and_then(|handle| handle.control().report());
        self.console.log.lost(self.number, reason, report.and_then(|report| report.limit), counts.0, counts.1);
    }
}

fn say(conn: &mut (impl Conn + ?Sized), line: &str) {
    conn.write_sequence(&mut [line.as_bytes(), b"\r\n"].into_iter());
}

fn has_too_many_layers(conn: &mut dyn Conn) -> bool {
    matches!(conn.may_start_tls(), Err(Error::Upgrade(UpgradeError::TooManyLayers { .. })))
}

/// The rest of the line counts as processed, because nothing more is read.
fn too_long(conn: &mut dyn Conn, rest: &[u8]) -> usize {
    say(conn, "500 line too long");
    conn.close();
    rest.len().min(MAX_LINE + 1)
}

/// Writes a small amount at once. A producer sends a larger one, and no command is read until it has been sent. If the
/// connection is lost, nothing is produced.
fn produce(conn: &mut dyn Conn, mut pattern: Pattern) {
    if pattern.left <= MAX_AT_ONCE {
        pattern.write(conn, MAX_AT_ONCE);
        return;
    }
    conn.pause_reading();
    // No other producer can exist, because commands wait until this one is done.
    let _ = conn.register_producer(Producer::pull(pattern));
}

/// The pattern as a producer that the transport calls for each piece.
struct Pattern {
    left: u64,
    done: u64,
    piece: usize,
}

impl Pattern {
    fn new(left: u64) -> Self {
        Self { left, done: 0, piece: PATTERN.len() - 26 }
    }

    /// Single bytes, all of them `x`.
    fn tiny(left: u64) -> Self {
        Self { piece: 1, ..Self::new(left) }
    }

    fn write(&mut self, conn: &mut (impl Conn + ?Sized), most: u64) {
        let mut room = most;
        while self.left > 0 && room > 0 {
            let n = self.left.min(room).min(self.piece as u64);
            if self.piece == 1 {
                conn.write(b"x");
            } else {
                let start = (self.done % 26) as usize;
                conn.write(&PATTERN[start..start + n as usize]);
            }
            self.left -= n;
            self.done += n;
            room -= n;
        }
    }
}

impl PullProducer for Pattern {
    fn produce(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.write(conn, MAX_TURN);
        if self.left == 0 {
            conn.unregister_producer();
            conn.resume_reading();
        }
        Ok(())
    }

    fn stop(&mut self) {}
}
