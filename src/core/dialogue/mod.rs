//! The plaintext part of a protocol that changes to TLS on the same connection (STARTTLS), without the connection.
//!
//! A [`Machine`] is one side of one dialogue. Its owner brings what the peer sends ([`receive`](Machine::receive)), sends
//! what the machine says ([`output`](Machine::output)), and stops when the machine has agreed to TLS or failed.
//!
//! Plaintext is not authenticated: anybody between the two sides may inject bytes, and hopes that they are taken for bytes of
//! the session in TLS (rule: upgrade-2). Therefore:
//!
//! - A machine takes the peer's bytes one by one, and none after the one that ends its turn. How the bytes were cut into
//!   segments makes no difference, and all bytes after the last one that belongs to the dialogue are left for the judgement on
//!   leftover (`core/upgrade.rs`).
//! - Before the machine says anything, its owner shows it what has arrived and is not taken ([`unread`](Machine::unread)).
//!   A client refuses an answer that came before its question; a server refuses what came before its go-ahead, unless
//!   it can be the start of a handshake.
//! - Nothing of what the peer said is used in TLS.

mod ber;
mod client;
mod name;
mod script;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::core::upgrade::{Verdict, judge};
use crate::error::{DialogueError, PeerWords};
use crate::policy::{Leftover, Role};

pub(crate) use client::ClientSettings;
pub use name::{Dialogue, LineCommand, UnknownDialogue};
use script::{Next, Script};
pub(crate) use server::ServerSettings;

/// The most bytes that a peer may send before TLS.
const LONGEST: usize = 64 << 10;
/// The most commands that a client may send before TLS.
const MOST_COMMANDS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Talking,
    Agreed,
    Failed(DialogueError),
}

/// One side of one dialogue.
pub(crate) struct Machine {
    script: Box<dyn Script>,
    role: Role,
    state: State,
    /// The begin of a unit.
    unit: Vec<u8>,
    /// All bytes of the peer before we said anything.
    greeting: Vec<u8>,
    has_spoken: bool,
    /// How many bytes the peer has sent.
    heard: usize,
    units: usize,
    output: Vec<u8>,
}

impl Machine {
    pub(crate) fn client(dialogue: &Dialogue, settings: &ClientSettings) -> Self {
        let mut output = Vec::new();
        let script = client::script(dialogue, settings, &mut output);
        Self::new(script, Role::Client, output)
    }

    pub(crate) fn server(dialogue: &Dialogue, settings: &ServerSettings) -> Self {
        let mut output = Vec::new();
        let script = server::script(dialogue, settings, &mut output);
        Self::new(script, Role::Server, output)
    }

    fn new(script: Box<dyn Script>, role: Role, output: Vec<u8>) -> Self {
        Self {
            script,
            role,
            state: State::Talking,
            unit: Vec::new(),
            greeting: Vec::new(),
            has_spoken: !output.is_empty(),
            heard: 0,
            units: 0,
            output,
        }
    }

    /// Takes bytes of the peer, and returns how many. None are taken while there is output, or after the end.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.is_listening() && taken < bytes.len() {
            if self.heard == LONGEST {
                self.fail(DialogueError::TooLong { limit: LONGEST });
                break;
            }
            self.unit.push(bytes[taken]);
            taken += 1;
            self.heard += 1;
            match self.script.is_whole(&self.unit) {
                Ok(false) => {}
                Ok(true) => self.hear(),
                Err(error) => self.fail(error),
            }
        }
        taken
    }

    fn hear(&mut self) {
        // The last unit is kept: it is the request of a client.
        let unit = std::mem::take(&mut self.unit);
        if !self.has_spoken {
            self.greeting.extend_from_slice(&unit);
        }
        self.units += 1;
        match self.script.hear(&unit, &mut self.output) {
            Ok(Next::Listen) if self.role == Role::Server && self.units == MOST_COMMANDS => {
                self.fail(DialogueError::TooManyCommands { limit: MOST_COMMANDS });
            }
            Ok(Next::Listen) => {}
            Ok(Next::Agree) => {
                self.unit = unit;
                self.state = State::Agreed;
            }
            Ok(Next::Leave) => self.fail(DialogueError::Left),
            Err(error) => self.fail(error),
        }
        self.has_spoken |= !self.output.is_empty();
    }

    /// Judges the bytes that have arrived and are not taken, before the output is sent. There must be output.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let is_allowed = match self.role {
            _ if bytes.is_empty() => true,
            Role::Client => self.script.may_be_early(bytes),
            // rule: upgrade-2. A client may send commands one after the other, but after the one that asks for TLS only TLS.
            Role::Server => self.state != State::Agreed || judge(bytes, Leftover::Feed) == Verdict::Admit,
        };
        if !is_allowed {
            self.output.clear();
            self.fail(DialogueError::Early(PeerWords::new(bytes)));
        }
    }

    /// For an owner without a connection: takes bytes, or says why there will be no TLS.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        let taken = self.receive(bytes);
        self.failure().map_or(Ok(taken), |error| Err(error.clone()))
    }

    /// For an owner without a connection: all output, after the judgement on the bytes that have arrived.
    pub(crate) fn give(&mut self, unread: &[u8]) -> Result<Vec<u8>, DialogueError> {
        if !self.output.is_empty() {
            self.unread(unread);
        }
        let output = std::mem::take(&mut self.output);
        match self.failure() {
            Some(error) if output.is_empty() => Err(error.clone()),
            _ => Ok(output),
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// What is to be sent next.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many bytes of the output have been sent.
    pub(crate) fn sent(&mut self, n: usize) {
        self.output.drain(..n);
    }

    /// Whether TLS begins now.
    pub(crate) fn is_agreed(&self) -> bool {
        self.output.is_empty() && self.state == State::Agreed
    }

    /// Why the dialogue has ended without TLS. A server says its farewell first.
    pub(crate) fn failure(&self) -> Option<&DialogueError> {
        match &self.state {
            State::Failed(error) if self.output.is_empty() => Some(error),
            State::Talking | State::Agreed | State::Failed(_) => None,
        }
    }

    /// What the peer said before we said anything.
    pub(crate) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The unit that asked for TLS, or that agreed to it.
    pub(crate) fn last(&self) -> &[u8] {
        &self.unit
    }

    fn is_listening(&self) -> bool {
        self.output.is_empty() && self.state == State::Talking
    }

    fn fail(&mut self, error: DialogueError) {
        self.state = State::Failed(error);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}
