//! The plaintext part of a protocol that changes to TLS on the same connection (STARTTLS). This module does no I/O.
//!
//! A `Machine` is one side of one dialogue. Its owner passes the peer's bytes in (`receive`),
//! sends the machine's `output`, and stops when the machine has agreed to TLS or failed.
//!
//! Plaintext is not authenticated. An attacker between the two sides may inject bytes and hope that they are processed
//! as if they came through TLS (rule: upgrade-2). Therefore:
//!
//! - A machine reads the peer's bytes one by one, and stops after the last byte of the peer's turn. The result does not
//!   depend on how the bytes were split into segments. All bytes after the end of the dialogue are leftover, about
//!   which the policy decides (`core/upgrade.rs`).
//! - Before the machine sends anything, its owner passes it the bytes that have arrived and were not read
//!   (`unread`). A client refuses an answer that came before its question. A server refuses bytes
//!   that came before its go-ahead, unless they can be the start of a handshake.
//! - Nothing that the peer sent in plaintext is used in TLS.

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

/// The largest number of bytes that a peer may send before TLS.
const LONGEST: usize = 64 << 10;
/// The largest number of commands that a client may send before TLS.
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
    /// The received bytes of an incomplete unit.
    unit: Vec<u8>,
    /// All bytes that the peer sent before our first message.
    greeting: Vec<u8>,
    /// We have sent a message, so the greeting is complete. The output may be empty again.
    has_spoken: bool,
    /// The number of bytes that the peer has sent.
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

    /// Reads bytes of the peer, and returns how many were read. While there is output, and after the end, none are
    /// read.
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
        // A unit is dropped after it was heard. Only the one that agrees to TLS is put back: it is the request that the
        // answer depends on.
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

    /// Checks the bytes that have arrived and were not read, before the output is sent. There must be output.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let is_allowed = match self.role {
            _ if bytes.is_empty() => true,
            Role::Client => self.script.may_be_early(bytes),
            // rule: upgrade-2. A client may send several commands in a row, but only TLS after the command that
            // requests TLS.
            Role::Server => self.state != State::Agreed || judge(bytes, Leftover::Feed) == Verdict::Admit,
        };
        if !is_allowed {
            self.output.clear();
            self.fail(DialogueError::Early(PeerWords::new(bytes)));
        }
    }

    /// For an owner without a connection: reads bytes, or returns why there will be no TLS.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        let taken = self.receive(bytes);
        self.failure().map_or(Ok(taken), |error| Err(error.clone()))
    }

    /// For an owner without a connection: checks the unread bytes, and returns all output.
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

    /// The bytes to send next.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// Called when this many bytes of the output were sent.
    pub(crate) fn sent(&mut self, n: usize) {
        self.output.drain(..n);
    }

    /// Whether TLS starts now.
    pub(crate) fn is_agreed(&self) -> bool {
        self.output.is_empty() && self.state == State::Agreed
    }

    /// Why the dialogue has ended without TLS. A server sends its last answer first.
    pub(crate) fn failure(&self) -> Option<&DialogueError> {
        match &self.state {
            State::Failed(error) if self.output.is_empty() => Some(error),
            State::Talking | State::Agreed | State::Failed(_) => None,
        }
    }

    /// The bytes that the peer sent before our first message.
    pub(crate) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The unit that requested TLS, or agreed to it.
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
