//! The state of the model: two peers, and the wire between them.

use std::fmt;

use bowline::core::lifecycle::{Callback, Lifecycle};
use bowline::core::producer::ProducerState;

use crate::tables::{Change, Recv, Send, Why};

/// One item on its way from one peer to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A unit of the application's data. Units are counted from one.
    Data {
        number: u8,
        is_clear: bool,
    },
    /// A unit that an attacker has added in plaintext.
    Forged,
    /// A message of the handshake: 1 from the client, 2 from the server, 3 from the client.
    Flight(u8),
    /// close_notify after this many units of data.
    Notify {
        after: u8,
        is_clear: bool,
    },
    /// A fatal alert.
    Alert,
    /// FIN after this many units of data.
    Fin {
        after: u8,
    },
    /// FIN that an attacker has sent.
    ForgedFin,
    Rst,
}

const MOST: usize = 10;

/// A queue of items without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue {
    items: [Option<Item>; MOST],
    len: u8,
    has_overflowed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self { items: [None; MOST], len: 0, has_overflowed: false }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Queue {
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn front(&self) -> Option<Item> {
        self.items[0]
    }

    pub fn iter(&self) -> impl Iterator<Item = Item> + '_ {
        self.items.iter().flatten().copied()
    }

    pub fn push(&mut self, item: Item) {
        match self.items.get_mut(usize::from(self.len)) {
            Some(space) => {
                *space = Some(item);
                self.len += 1;
            }
            None => self.has_overflowed = true,
        }
    }

    pub fn pop(&mut self) -> Option<Item> {
        let first = self.items[0].take()?;
        self.items.rotate_left(1);
        self.len -= 1;
        Some(first)
    }

    /// Set if more items were added than a queue can hold when every marker is sent once.
    pub fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn any(&self, is_wanted: impl Fn(Item) -> bool) -> bool {
        self.iter().any(is_wanted)
    }
}

/// The two halves of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Halves {
    pub send: Send,
    pub recv: Recv,
}

impl Default for Halves {
    fn default() -> Self {
        Self { send: Send::Open, recv: Recv::Open }
    }
}

/// A TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tls {
    pub halves: Halves,
    /// The handshake is done.
    pub is_secured: bool,
    /// The session has failed, and may send its alert.
    pub has_failed: bool,
    /// close_notify was passed to the layer below.
    pub has_marked: bool,
}

/// One side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    pub tcp: Halves,
    pub tls: Option<Tls>,
    pub change: Change,
    /// Data that was accepted, and is not yet passed to the system.
    pub out: Queue,
    /// Data that the system has received, and the application has not read.
    pub arrived: Queue,
    /// Data that a downgrade has opened and the application has not read.
    pub unread: Queue,
    pub producer: ProducerState,
    pub life: Lifecycle,
    /// The application has called `close`, or `close_write`.
    pub closes: bool,
    pub ends_half: bool,
    /// The close has begun: everything that arrives from now on is discarded.
    pub discards: bool,
    /// The peer's end came after ours had left.
    pub is_answered: bool,
    /// RST has arrived.
    pub was_reset: bool,
    /// A close has given up the handshake.
    pub has_given_up: bool,
    pub is_aborted: bool,
    /// An upgrade or downgrade has failed in a way that resets the connection.
    pub resets: bool,
    /// FIN was passed to the system.
    pub has_sent_fin: bool,
    pub report: Option<Why>,
    /// The socket is closed.
    pub is_gone: bool,
    /// How often the loss was reported.
    pub losses: u8,
    /// How many times the producer was stopped, and whether it is paused.
    pub stops: u8,
    pub is_paused: bool,
    /// Units of data that were accepted, and that were read or discarded.
    pub wrote: u8,
    pub took: u8,
    /// How many more times the application may do this.
    pub upgrades: u8,
    pub downgrades: u8,
    pub producers: u8,
}

impl Peer {
    pub fn new(upgrades: u8, downgrades: u8, producers: u8) -> Self {
        let mut life = Lifecycle::New;
        life.admit(Callback::Made);
        Self {
            tcp: Halves::default(),
            tls: None,
            change: Change::Settled,
            out: Queue::default(),
            arrived: Queue::default(),
            unread: Queue::default(),
            producer: ProducerState::Absent,
            life,
            closes: false,
            ends_half: false,
            discards: false,
            is_answered: false,
            was_reset: false,
            has_given_up: false,
            is_aborted: false,
            resets: false,
            has_sent_fin: false,
            report: None,
            is_gone: false,
            losses: 0,
            stops: 0,
            is_paused: false,
            wrote: 0,
            took: 0,
            upgrades,
            downgrades,
            producers,
        }
    }

    /// A peer whose handshake is done.
    pub fn secured(self) -> Self {
        Self { tls: Some(Tls { is_secured: true, ..Tls::default() }), ..self }
    }

    /// The halves of the topmost layer.
    pub fn top(&self) -> Halves {
        self.tls.map_or(self.tcp, |tls| tls.halves)
    }

    pub fn top_mut(&mut self) -> &mut Halves {
        match &mut self.tls {
            Some(tls) => &mut tls.halves,
            None => &mut self.tcp,
        }
    }

    pub fn is_secured(&self) -> bool {
        self.tls.is_some_and(|tls| tls.is_secured)
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_some_and(|tls| !tls.is_secured && !tls.has_failed)
    }
}

/// One direction of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wire {
    pub items: Queue,
    /// Set when the wire no longer delivers anything.
    pub is_cut: bool,
    /// Units of data, other records, and FINs that were lost.
    pub lost_data: u8,
    pub lost_records: u8,
    pub lost_fins: u8,
    /// Units of data, close_notify and FIN that have arrived at the peer's system.
    pub data: u8,
    pub notify: bool,
    pub fin: bool,
}

/// A violation of a property, recorded at the step that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    ClearNotify,
    ClearData,
    MarkerAfterAbort,
    TwoMarkers,
    MarkerWithoutData,
    CleanAfterLoss,
    CleanUnmade,
    ForgedDelivered,
    LeftoverFed,
    OutOfOrder,
    ClosedWithoutDelivery,
    TwoEnds,
    Endless,
    FailureForgotten,
    DataAfterEnd,
    ProducerConfused,
    RefusedByTable,
    AbortRenamed,
}

/// The whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub peers: [Peer; 2],
    /// `wires[i]` carries what peer `i` sends.
    pub wires: [Wire; 2],
    /// How many more times the network, an attacker, an abort or a drop may interfere.
    pub disturbances: u8,
    /// Set after an interference, or if the two applications do not agree about TLS.
    pub is_disturbed: bool,
    /// A time limit has ended a wait.
    pub has_timed_out: bool,
    pub wrong: Option<Wrong>,
}

impl World {
    /// Notes the first wrong step.
    pub fn accuse(&mut self, is_wrong: bool, wrong: Wrong) {
        if is_wrong {
            self.wrong.get_or_insert(wrong);
        }
    }
}
