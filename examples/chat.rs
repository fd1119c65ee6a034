//! A chat server: each guest chooses a nickname, and every line goes to all guests.
//!
//! ```text
//! cargo run --example chat                                  then, twice: nc 127.0.0.1 7010
//! cargo run --example chat -- --tls certs 127.0.0.1:7011    openssl s_client -connect 127.0.0.1:7011 -CAfile certs/ca.pem
//! ```

#[allow(dead_code)]
#[path = "common/args.rs"]
mod args;
#[path = "common/host_port.rs"]
mod host_port;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::protocol::{CallbackResult, Framed, Handle, MessageConn, MessageProtocol, Server, every};
use bowline::testing::pki::Pki;
use bowline::{Listener, Reason, ServerTls, chain, printable};
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt};
use tokio_util::codec::LinesCodec;

use crate::args::Usage;
use crate::host_port::host_port;

/// The most unsent bytes per guest. A guest that reads too slowly is disconnected, so that the others do not have to
/// wait.
const MAX_QUEUED: usize = 256 << 10;

/// The guests.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<String, Handle>>>);

impl Room {
    fn guests(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        for guest in self.guests().values() {
            if guest.queued() > MAX_QUEUED { guest.abort() } else { guest.write(format!("{text}\r\n")) }
        }
    }
}

/// One connection. It has no name until the guest has sent one.
struct Guest {
    room: Room,
    name: Option<String>,
}

impl MessageProtocol for Guest {
    type Codec = LinesCodec;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new_with_max_length(1000)
    }

    fn connection_made(&mut self, conn: &mut MessageConn<'_, LinesCodec>) -> CallbackResult {
        conn.send("Who are you?")
    }

    fn message_received(&mut self, conn: &mut MessageConn<'_, LinesCodec>, line: String) -> CallbackResult {
        // The line is escaped, because the text of one guest reaches the terminals of all guests.
        let line = printable(line).to_string();
        if let Some(name) = &self.name {
            self.room.say(&format!("<{name}> {line}"));
        } else if line.is_empty() || line.len() > 20 || self.room.guests().contains_key(&line) {
            conn.send("Another name, please.")?;
        } else {
            self.room.guests().insert(line.clone(), conn.handle());
            self.room.say(&format!("* {line} is here"));
            self.name = Some(line);
        }
        Ok(())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        if let Some(name) = self.name.take() {
            self.room.guests().remove(&name);
            self.room.say(&format!("* {name} is gone: {}", bowline::chain(reason)));
        }
    }
}

const HELP: &str = "\
A chat server: each guest chooses a nickname, and every line goes to all guests.

Usage: chat [--tls DIR] [ADDR]

  ADDR        the address to listen on; default 127.0.0.1:7010; port 0 is any free port
  --tls DIR   use TLS, with the development certificates in DIR, which are made if missing
  --help

Exit status: 2 for a wrong command line or a file that cannot be used, 1 for a port that cannot be opened.
";

/// The address to listen on, and the certificates if the chat uses TLS.
fn arguments() -> Result<(String, Option<ServerTls>), Usage> {
    let (mut addr, mut certs) = (None, None);
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("tls") => certs = Some(args::text(&mut parser)?),
            Long("help") | Short('h') => {
                print!("{HELP}");
                std::process::exit(0);
            }
            Value(value) if addr.is_none() => addr = Some(host_port("ADDR", value.string()?).map_err(Usage::new)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let tls = match certs {
        Some(certs) => {
            Some(Pki::load_or_create(certs).map_err(Usage::of)?.server_tls_builder().build().map_err(Usage::of)?)
        }
        None => None,
    };
    Ok((addr.unwrap_or_else(|| "127.0.0.1:7010".into()), tls))
}

async fn run(addr: &str, tls: Option<ServerTls>) -> Result<(), bowline::Error> {
    let listener = Listener::bind(addr).await?;
    println!("listening {}", listener.local_addr());
    let room = Room::default();
    let server = Server::new(listener, every(move || Framed::new(Guest { room: room.clone(), name: None })));
    match tls {
        Some(tls) => server.tls(&tls).run().await,
        None => server.run().await,
    }
}

fn main() -> ExitCode {
    let (addr, tls) = arguments().unwrap_or_else(|usage| usage.exit("chat"));
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let Err(error) = runtime.block_on(run(&addr, tls)) else { return ExitCode::SUCCESS };
    eprintln!("chat: {}", chain(&error));
    ExitCode::FAILURE
}
