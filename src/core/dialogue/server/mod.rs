//! The server's side of each dialogue. It sends a greeting, and answers until the client requests TLS. It refuses all
//! other requests with the answer that TLS is required first.

mod binary;
mod lines;
mod xmpp;

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::core::dialogue::name::Dialogue;
use crate::core::dialogue::script::{Script, for_line};

/// The settings of a server's side.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) name: String,
    /// The bytes to send as the greeting, instead of our own.
    pub(crate) greeting: Option<Vec<u8>>,
}

/// The script of a server. Its first message is written to `out`.
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

/// A different number at each call, which a client cannot guess.
fn unguessed() -> u64 {
    RandomState::new().build_hasher().finish()
}
