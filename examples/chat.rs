//! A chat: lines, nicknames, and everybody hears everybody.
//!
//! ```text
//! cargo run --example chat                                  then, twice: nc 127.0.0.1 7010
//! cargo run --example chat -- --tls certs 127.0.0.1:7011    openssl s_client -connect 127.0.0.1:7011 -CAfile certs/ca.pem
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::protocol::{Framed, Handle, MessageProtocol, MessageTransport, Outcome, Server, every};
use bowline::testing::pki::Pki;
use bowline::{Listener, Reason, printable};
use tokio_util::codec::LinesCodec;

/// Who reads so slowly that this much waits for them is thrown out: nobody else waits for them.
const MAX_QUEUED: usize = 256 << 10;

/// Who is here.
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

/// One connection: without a name until it has said one.
struct Guest {
    room: Room,
    name: Option<String>,
}

impl MessageProtocol for Guest {
    type Codec = LinesCodec;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new_with_max_length(1000)
    }

    fn connection_made(&mut self, transport: &mut MessageTransport<'_, LinesCodec>) -> Outcome {
        transport.send("Who are you?")
    }

    fn message_received(&mut self, transport: &mut MessageTransport<'_, LinesCodec>, line: String) -> Outcome {
        // What one guest says reaches the terminals of all.
        let line = printable(line).to_string();
        if let Some(name) = &self.name {
            self.room.say(&format!("<{name}> {line}"));
        } else if line.is_empty() || line.len() > 20 || self.room.guests().contains_key(&line) {
            transport.send("Another name, please.")?;
        } else {
            self.room.guests().insert(line.clone(), transport.handle());
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let certs = if args.first().is_some_and(|arg| arg == "--tls") { args.drain(..2).next_back() } else { None };
    let listener = Listener::bind(args.first().map_or("127.0.0.1:7010", String::as_str)).await?;
    println!("listening {}", listener.local_addr());
    let room = Room::default();
    let server = Server::new(listener, every(move || Framed::new(Guest { room: room.clone(), name: None })));
    match certs {
        Some(certs) => server.tls(&Pki::load_or_create(certs)?.server_tls_builder().build()?).run().await?,
        None => server.run().await?,
    }
    Ok(())
}
