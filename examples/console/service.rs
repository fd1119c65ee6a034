//! One connection of the console with the async API.

use std::future::{poll_fn, ready as at_once};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline::{
    End, Error, Incoming, Keepalive, SocketOptions, StartTls, TcpConnection, TlsTransport, Transport,
    UpgradableConnection, UpgradeError,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

use crate::Console;
use crate::args::Kind;
use crate::command::{Command, HELP};
use crate::common::info::{Fields, info, to_json};
use crate::pattern::{Sequence, pieces};

/// The longest line, without its end.
pub(crate) const MAX_LINE: usize = 4096;
/// The most bytes that are written before an abort, even if the peer reads them at once.
const MAX_ABORT: u64 = 64 << 20;

/// Serves one connection to its end.
pub(crate) async fn serve(kind: Kind, incoming: Incoming, number: u64, console: Arc<Console>) {
    console.log.made(number, kind.name(), incoming.peer_addr().to_string());
    match begin(kind, incoming, &console).await {
        Ok(connection) => Service::new(kind, connection, number, Arc::clone(&console)).run().await,
        Err(error) => console.log.lost(number, &error.into(), None, 0, 0),
    }
}

async fn begin(
    kind: Kind,
    incoming: Incoming,
    console: &Console,
) -> Result<UpgradableConnection<TcpConnection>, Error> {
    match kind {
        Kind::Tcp | Kind::StartTls => Ok(incoming.into_upgradable()),
        Kind::Tls => incoming.handshake_upgradable(&console.tls).await,
    }
}

struct Service {
    kind: Kind,
    connection: UpgradableConnection<TcpConnection>,
    number: u64,
    console: Arc<Console>,
    received: u64,
    sent: u64,
    read_closed: bool,
    write_closed: bool,
}

impl Service {
    fn new(kind: Kind, connection: UpgradableConnection<TcpConnection>, number: u64, console: Arc<Console>) -> Self {
        Self { kind, connection, number, console, received: 0, sent: 0, read_closed: false, write_closed: false }
    }

    /// Carries out commands until the peer or a command ends the connection, or the drain starts. Then it closes the
    /// transport and returns the report.
    async fn run(mut self) {
        if self.connection.is_secure() {
            self.tell_secured();
        }
        let (console, control) = (Arc::clone(&self.console), self.connection.control());
        tokio::select! {
            // A failed operation is not reported here, because the report of the close contains the reason.
            _ = self.obey_all() => {}
            () = control.draining() => {}
        }
        self.tell_ends();
        let report = self.connection.close().await;
        self.tell_ends();
        console.log.lost(self.number, &report.reason, report.limit, self.received, self.sent);
    }

    async fn obey_all(&mut self) -> io::Result<()> {
        self.say(&format!("220 bowline console {}", self.kind.name())).await?;
        let mut line = Vec::new();
        while self.read_line(&mut line).await? {
            let Some(command) = Command::parse(&line) else {
                self.say("500 unknown command").await?;
                continue;
            };
            let is_last = command.is_last();
            self.obey(command).await?;
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn obey(&mut self, command: Command<'_>) -> io::Result<()> {
        match command {
            Command::Echo(text) => self.write(&[text, b"\r\n"].concat()).await,
            Command::Send(n) => self.send(n).await,
            Command::SendSeq(parts, n) => self.send_sequence(parts, n).await,
            Command::TooLarge => self.say("500 too large").await,
            Command::Tiny(n) => self.tiny(n).await,
            Command::Close(n) => self.send_last(n).await,
            Command::Half(n) => self.half(n).await,
            Command::Abort(n) => self.abort(n).await,
            Command::Sum => self.sum().await,
            Command::Pause(ms) => self.pause(ms).await,
            Command::StartTls if self.kind == Kind::Tcp => self.say("500 no STARTTLS on this port").await,
            Command::StartTls => self.start_tls().await,
            Command::StopTls if !self.connection.is_secure() => self.say("500 not secure").await,
            Command::StopTls => self.stop_tls().await,
            Command::Info => self.say(&to_json(&self.info())).await,
            Command::Nodelay(on) => self.nodelay(on).await,
            Command::Keepalive(on) => self.keepalive(on).await,
            Command::Help => self.say(HELP).await,
            Command::Quit => self.say("221 bye").await,
        }
    }

    async fn send_sequence(&mut self, parts: u64, n: u64) -> io::Result<()> {
        let sequence = Sequence::new(parts, n);
        let slices: Vec<IoSlice<'_>> = sequence.slices().map(IoSlice::new).collect();
        self.connection.write_sequence(&slices).await?;
        self.sent += parts * n;
        Ok(())
    }

    async fn tiny(&mut self, n: u64) -> io::Result<()> {
        let mut corked = self.connection.cork();
        for _ in 0..n {
            self.sent += corked.write(b"x").await? as u64;
        }
        Ok(())
    }

    async fn half(&mut self, n: u64) -> io::Result<()> {
        self.send(n).await?;
        self.connection.close_write().await?;
        self.tell_ends();
        self.swallow(|_| {}).await?;
        Ok(())
    }

    /// Writes the bytes that the transport accepts without waiting, then aborts.
    async fn abort(&mut self, n: u64) -> io::Result<()> {
        tokio::select! {
            biased;
            _ = unconstrained(self.send(n.min(MAX_ABORT))) => {}
            () = at_once(()) => {}
        }
        self.connection.abort();
        Ok(())
    }

    async fn sum(&mut self) -> io::Result<()> {
        self.say("250 go").await?;
        let mut hash = Sha256::new();
        let count = self.swallow(|bytes| hash.update(bytes)).await?;
        self.tell_ends();
        self.say(&format!("{count} {:x}", hash.finalize())).await
    }

    async fn pause(&mut self, ms: u64) -> io::Result<()> {
        let control = self.connection.control();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => self.say("250 resumed").await,
            // The next read reports how the connection ended.
            () = control.lost() => Ok(()),
        }
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        if let Err(Error::Upgrade(UpgradeError::TooManyLayers { .. })) = self.connection.may_start_tls() {
            return self.say("500 too many layers").await;
        }
        // An upgrade writes a line to the log, and the peer chooses how many upgrades there are.
        self.console.log.room().await;
        self.say("220 go ahead").await?;
        let how = StartTls::server(&self.console.tls);
        let how = self.console.leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
        self.connection.start_tls(how).await?;
        self.tell_secured();
        Ok(())
    }

    async fn stop_tls(&mut self) -> io::Result<()> {
        self.say("220 going plain").await?;
        self.connection.stop_tls().await?;
        Ok(())
    }

    async fn nodelay(&mut self, on: bool) -> io::Result<()> {
        self.connection.set_nodelay(on)?;
        let on = self.connection.nodelay()?;
        self.say(&format!("250 nodelay={}", on_off(on))).await
    }

    async fn keepalive(&mut self, on: bool) -> io::Result<()> {
        self.connection.set_keepalive(on.then(Keepalive::new))?;
        let on = self.connection.keepalive()?.is_some();
        self.say(&format!("250 keepalive={}", on_off(on))).await
    }
}

/// Counts the bytes in and out.
impl Service {
    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.write(format!("{line}\r\n").as_bytes()).await
    }

    async fn send(&mut self, n: u64) -> io::Result<()> {
        for piece in pieces(n) {
            self.write(piece).await?;
        }
        Ok(())
    }

    /// Sends the last bytes before a close. If the peer takes none of them, this waits no longer than a close does
    /// (rule: close-3).
    async fn send_last(&mut self, n: u64) -> io::Result<()> {
        let bound = self.connection.control().policy().get_close_timeout().unwrap_or(Duration::MAX);
        for mut piece in pieces(n) {
            while !piece.is_empty() {
                let n = timeout(bound, poll_fn(|cx| self.poll_write_deaf(cx, piece))).await??;
                self.sent += n as u64;
                piece = &piece[n..];
            }
        }
        Ok(())
    }

    /// Writes, and discards the bytes that the peer sends meanwhile: a peer that cannot send may not read either
    /// (rule: close-2).
    fn poll_write_deaf(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Poll::Ready(written) = Pin::new(&mut self.connection).poll_write(cx, bytes) {
                return Poll::Ready(written);
            }
            match ready!(Pin::new(&mut self.connection).poll_fill_buf(cx)) {
                Ok(input) if !input.is_empty() => {
                    let n = input.len();
                    Pin::new(&mut self.connection).consume(n);
                }
                // The peer sends no more. The close reports what that means for the connection.
                Ok(_) | Err(_) => return Poll::Pending,
            }
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.connection.write(bytes).await?;
            self.sent += n as u64;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Reads one line, without its end. `false`: the peer has ended. Bytes without a line end are not a command.
    async fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        loop {
            let room = (MAX_LINE + 1 + usize::from(line.ends_with(b"\r"))).saturating_sub(line.len());
            if room == 0 {
                self.say("500 line too long").await?;
                return Ok(false);
            }
            let n = (&mut self.connection).take(room as u64).read_until(b'\n', line).await?;
            self.received += n as u64;
            if n == 0 {
                self.tell_ends();
                return Ok(false);
            }
            if let Some(text) = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")) {
                line.truncate(text.len());
                return Ok(true);
            }
        }
    }

    /// Reads to the end of the peer's send half, and returns the number of bytes.
    async fn swallow(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let bytes = self.connection.fill_buf().await?;
            let n = bytes.len();
            if n == 0 {
                return Ok(count);
            }
            each(bytes);
            self.connection.consume(n);
            count += n as u64;
            self.received += n as u64;
        }
    }
}

/// The events for the log.
impl Service {
    fn info(&self) -> Fields {
        let (host, peer) = (self.connection.local_addr(), self.connection.peer_addr());
        info(self.kind.name(), &host, &peer, self.connection.tls().as_deref())
    }

    fn tell_secured(&self) {
        self.console.log.secured(self.number, self.info());
    }

    /// Logs each half that has ended, once.
    fn tell_ends(&mut self) {
        let status = self.connection.status();
        if let Some(end) = status.recv.end().filter(|_| !self.read_closed) {
            self.read_closed = true;
            match end {
                End::Clean => self.console.log.read_closed(self.number, "clean"),
                End::Truncated => self.console.log.read_closed(self.number, "truncated"),
                // This is not the normal end of the peer's data, but a wrong answer to our close. The reason says so.
                End::Unconfirmed => {}
            }
        }
        if status.send.is_finished() && !self.write_closed {
            self.write_closed = true;
            self.console.log.write_closed(self.number);
        }
    }
}

pub(crate) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
