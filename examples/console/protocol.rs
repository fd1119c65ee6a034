//! One connection of the console, on the callback face: the same commands as `service.rs`, without ever waiting.

use std::sync::Arc;
use std::time::Duration;

use bowline::protocol::{
    AfterRead, Handle, Outcome, Producer, Protocol, PullProducer, Reading, Runner, Transport, UpgradableTransport,
};
use bowline::{End, Error, Incoming, Keepalive, Reason, StartTls, UpgradeError};
use sha2::{Digest, Sha256};

use crate::Console;
use crate::args::Kind;
use crate::command::{Command, HELP};
use crate::common::info::{info, to_json};
use crate::pattern::{PATTERN, Sequence};
use crate::service::{MAX_LINE, on_off};

/// A producer sends larger amounts than this, at the speed of the peer.
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

/// What the next bytes are.
enum State {
    /// Nothing yet: the handshake of a TLS port has to be done first.
    Silent,
    /// Commands.
    Prompt,
    /// Data to be summed.
    Summing(Sha256, u64),
    /// Data that nobody asked for, behind our own end.
    Ignoring,
}

impl Service {
    fn new(kind: Kind, number: u64, console: Arc<Console>) -> Self {
        Self { kind, number, console, state: State::Silent, handle: None }
    }

    fn greet(&mut self, transport: &mut dyn UpgradableTransport) {
        self.state = State::Prompt;
        say(transport, &format!("220 bowline console {}", self.kind.name()));
    }

    /// Obeys one command after the other, until one of them needs time or what is left is no whole line. Says how much was
    /// done.
    fn obey_all(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        let mut done = 0;
        // rule: write-10: lines stay unread while many answers are unsent.
        while matches!(self.state, State::Prompt) && transport.reading() == Reading::Open {
            let rest = &data[done..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n').filter(|end| *end <= MAX_LINE + 1) else {
                if rest.len() > MAX_LINE + usize::from(rest.get(MAX_LINE) == Some(&b'\r')) {
                    done += too_long(transport, rest);
                }
                return Ok(done);
            };
            let line = &rest[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_LINE {
                return Ok(done + too_long(transport, rest));
            }
            done += end + 1;
            match Command::parse(line) {
                Some(Command::StartTls) if self.kind != Kind::Tcp && has_too_many_layers(transport) => {
                    say(transport, "500 too many layers");
                }
                Some(Command::StartTls) if self.kind != Kind::Tcp => {
                    self.start_tls(transport)?;
                    // What is behind the line is leftover: the transport judges it.
                    return Ok(done);
                }
                Some(Command::StopTls) if transport.is_secure() => {
                    say(transport, "220 going plain");
                    transport.stop_tls()?;
                    return Ok(done);
                }
                Some(command) => self.obey(transport, command)?,
                None => say(transport, "500 unknown command"),
            }
            if transport.dropped() > 0 {
                // Nothing leaves any more: what else was asked for is not made. The reason tells why.
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

    fn obey(&mut self, transport: &mut dyn UpgradableTransport, command: Command<'_>) -> Outcome {
        match command {
            Command::Echo(text) => transport.write_sequence(&mut [text, b"\r\n"].into_iter()),
            Command::Send(n) => produce(transport, Pattern::new(n)),
            Command::SendSeq(parts, n) => transport.write_sequence(&mut Sequence::new(parts, n).slices()),
            Command::TooLarge => say(transport, "500 too large"),
            Command::Tiny(n) => produce(transport, Pattern::tiny(n)),
            Command::Close(n) => {
                produce(transport, Pattern::new(n));
                // rule: close-5: the close waits for the producer.
                transport.close();
                self.state = State::Ignoring;
            }
            Command::Half(n) => {
                produce(transport, Pattern::new(n));
                transport.close_write();
                transport.resume_reading();
                self.state = State::Ignoring;
            }
            Command::Abort(n) => {
                // Written bytes leave after the turn. The abort discards them, so writing more would have no effect.
                Pattern::new(n).write(transport, MAX_TURN);
                transport.abort();
                self.state = State::Ignoring;
            }
            Command::Sum => {
                say(transport, "250 go");
                self.state = State::Summing(Sha256::new(), 0);
            }
            Command::Pause(ms) => {
                transport.pause_reading();
                transport.set_timer(Some(Duration::from_millis(ms)));
            }
            Command::StartTls => say(transport, "500 no STARTTLS on this port"),
            Command::StopTls => say(transport, "500 not secure"),
            Command::Info => {
                let (host, peer) = (transport.local_addr(), transport.peer_addr());
                say(transport, &to_json(&info(self.kind.name(), &host, &peer, transport.tls().as_deref())));
            }
            Command::Nodelay(on) => {
                transport.set_nodelay(on)?;
                let on = transport.nodelay()?;
                say(transport, &format!("250 nodelay={}", on_off(on)));
            }
            Command::Keepalive(on) => {
                transport.set_keepalive(on.then(Keepalive::new))?;
                let on = transport.keepalive()?.is_some();
                say(transport, &format!("250 keepalive={}", on_off(on)));
            }
            Command::Help => say(transport, HELP),
            Command::Quit => {
                say(transport, "221 bye");
                transport.close();
                self.state = State::Ignoring;
            }
        }
        Ok(())
    }

    fn start_tls(&self, transport: &mut dyn UpgradableTransport) -> Outcome {
        say(transport, "220 go ahead");
        let how = StartTls::server(&self.console.tls);
        let how = self.console.leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
        Ok(transport.start_tls(how)?)
    }
}

impl Protocol for Service {
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.console.log.made(self.number, self.kind.name(), transport.peer_addr().to_string());
        self.handle = Some(transport.handle());
        if self.kind != Kind::Tls {
            self.greet(transport);
        }
        Ok(())
    }

    fn handshake_completed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let (host, peer) = (transport.local_addr(), transport.peer_addr());
        let facts = info(self.kind.name(), &host, &peer, transport.tls().as_deref());
        self.console.log.secured(self.number, facts);
        if matches!(self.state, State::Silent) {
            self.greet(transport);
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        self.obey_all(transport, data)
    }

    fn timer_fired(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        say(transport, "250 resumed");
        transport.resume_reading();
        Ok(())
    }

    /// What was asked before is answered, also behind the peer's end.
    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        match end {
            End::Clean => self.console.log.read_closed(self.number, "clean"),
            End::Truncated => self.console.log.read_closed(self.number, "truncated"),
            // No end of what was to be read, but an answer to our close that is none: the reason tells.
            End::Unconfirmed => {}
        }
        if let (State::Summing(hash, count), End::Clean) = (&mut self.state, end) {
            let sum = std::mem::take(hash).finalize();
            say(transport, &format!("{count} {sum:x}"));
        }
        transport.close();
        Ok(AfterRead::KeepWriting)
    }

    fn write_closed(&mut self, _: &mut dyn UpgradableTransport) -> Outcome {
        self.console.log.write_closed(self.number);
        Ok(())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let counts = self.handle.as_ref().map_or((0, 0), |handle| (handle.received(), handle.sent()));
        let report = self.handle.as_ref().and_then(|handle| handle.control().report());
        self.console.log.lost(self.number, reason, report.and_then(|report| report.bound), counts.0, counts.1);
    }
}

fn say(transport: &mut (impl Transport + ?Sized), line: &str) {
    transport.write_sequence(&mut [line.as_bytes(), b"\r\n"].into_iter());
}

fn has_too_many_layers(transport: &mut dyn UpgradableTransport) -> bool {
    matches!(transport.may_start_tls(), Err(Error::Upgrade(UpgradeError::TooManyLayers { .. })))
}

/// What is left of such a line counts as done: nothing more is read.
fn too_long(transport: &mut dyn UpgradableTransport, rest: &[u8]) -> usize {
    say(transport, "500 line too long");
    transport.close();
    rest.len().min(MAX_LINE + 1)
}

/// Writes a small amount at once. A producer sends a larger one, and no command is read until it has left; if the connection is
/// lost, nothing is produced.
fn produce(transport: &mut dyn UpgradableTransport, mut pattern: Pattern) {
    if pattern.left <= MAX_AT_ONCE {
        pattern.write(transport, MAX_AT_ONCE);
        return;
    }
    transport.pause_reading();
    // There is no other one: commands wait until this one is done.
    let _ = transport.register_producer(Producer::pull(pattern));
}

/// The pattern, as a producer that is asked.
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

    fn write(&mut self, transport: &mut (impl Transport + ?Sized), most: u64) {
        let mut room = most;
        while self.left > 0 && room > 0 {
            let n = self.left.min(room).min(self.piece as u64);
            if self.piece == 1 {
                transport.write(b"x");
            } else {
                let start = (self.done % 26) as usize;
                transport.write(&PATTERN[start..start + n as usize]);
            }
            self.left -= n;
            self.done += n;
            room -= n;
        }
    }
}

impl PullProducer for Pattern {
    fn produce(&mut self, transport: &mut dyn Transport) -> Outcome {
        self.write(transport, MAX_TURN);
        if self.left == 0 {
            transport.unregister_producer();
            transport.resume_reading();
        }
        Ok(())
    }

    fn stop(&mut self) {}
}
