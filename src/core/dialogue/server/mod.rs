//! The server's side of each dialogue: it greets, and answers until the client asks for TLS. A client that asks for anything
//! else is told that TLS comes first.

mod binary;
mod lines;
mod xmpp;

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::core::dialogue::name::Dialogue;
use crate::core::dialogue::script::{Script, for_line};

/// What a server says about itself.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) name: String,
    /// The bytes to greet with, instead of our own greeting.
    pub(crate) greeting: Option<Vec<u8>>,
}

/// The script, and what the server says first.
pub(super) fn script(dialogue: &Dialogue, settings: &ServerSettings, out: &mut Vec<u8>) -> Box<dyn Script> {
    let name = for_line(&settings.name);
    let (greeting, script): (Vec<u8>, Box<dyn Script>) = match dialogue {
        Dialogue::Ldap => (Vec::new(), Box::new(binary::Ldap)),
        Dialogue::Postgres => (Vec::new(), Box::new(binary::Postgres)),
        Dialogue::MySql => (binary::mysql_greeting(), Box::new(binary::MySql)),
        Dialogue::Xmpp => (Vec::new(), Box::new(xmpp::Xmpp::new("jabber:client", &settings.name))),
        Dialogue::XmppServer => (Vec::new(), Box::new(xmpp::Xmpp::new("jabber:server", &settings.name))),
        dialogue => {
            let lines = lines::Lines::new(dialogue, name);
            (lines.greeting(), Box::new(lines))
        }
    };
    out.extend_from_slice(settings.greeting.as_deref().unwrap_or(&greeting));
    script
}

/// A number that is another one each time, and that a client cannot guess.
fn unguessed() -> u64 {
    RandomState::new().build_hasher().finish()
}
