//! The client's side of each dialogue.

mod binary;
mod reply_codes;
mod reply_words;
mod xmpp;

use crate::core::dialogue::name::Dialogue;
use crate::core::dialogue::script::{Script, for_line};

/// The settings of a client's side.
#[derive(Debug, Clone)]
pub(crate) struct ClientSettings {
    /// The name of the server (XMPP).
    pub(crate) name: String,
    /// Our own name (SMTP, LMTP, XMPP between servers).
    pub(crate) hello: Option<String>,
    /// Additional capability flags for MySQL's SSLRequest.
    pub(crate) mysql_capabilities: u32,
}

/// The script of a client. Its first message is written to `out`.
pub(super) fn script(dialogue: &Dialogue, settings: &ClientSettings, out: &mut Vec<u8>) -> Box<dyn Script> {
    let hello = settings.hello.as_deref().map(for_line).filter(|name| !name.is_empty());
    let hello = hello.as_deref();
    match dialogue {
        Dialogue::Smtp => Box::new(reply_codes::Coded::mail("EHLO", hello.unwrap_or("localhost"))),
        Dialogue::Lmtp => Box::new(reply_codes::Coded::mail("LHLO", hello.unwrap_or("localhost"))),
        Dialogue::Ftp => Box::new(reply_codes::Coded::ftp()),
        Dialogue::Nntp => Box::new(reply_codes::Coded::nntp()),
        Dialogue::Imap => Box::new(reply_words::Imap::default()),
        Dialogue::Pop3 => Box::new(reply_words::Pop3::default()),
        Dialogue::ManageSieve => Box::new(reply_words::ManageSieve::default()),
        Dialogue::Irc => Box::new(reply_words::Irc::begin(out)),
        Dialogue::Line(command) => Box::new(reply_words::Line::new(command)),
        Dialogue::Ldap => Box::new(binary::Ldap::begin(out)),
        Dialogue::Postgres => Box::new(binary::Postgres::begin(out)),
        Dialogue::MySql => Box::new(binary::MySql::new(settings.mysql_capabilities)),
        Dialogue::Xmpp => Box::new(xmpp::Xmpp::begin("jabber:client", &settings.name, None, out)),
        Dialogue::XmppServer => Box::new(xmpp::Xmpp::begin("jabber:server", &settings.name, hello, out)),
    }
}
