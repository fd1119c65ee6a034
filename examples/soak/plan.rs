//! The plan of a connection. It follows from the seed and the number of the connection, so both sides compute the same
//! plan.

/// Random numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mixed = (seed << 32 ^ number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// The layers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Tls,
    /// Plaintext, then TLS.
    Upgraded,
    /// TLS in TLS.
    Nested,
    /// TLS, then plaintext.
    Downgraded,
}

/// The end of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Sends everything, ends its half, and reads to the end.
    HalfClose,
    /// Sends everything and closes, without reading.
    Close,
    /// Aborts after this many bytes.
    Abort(u64),
    /// Drops the connection after this many bytes.
    Drop(u64),
}

/// A fault of the network in one direction, after a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fin(u64),
    Rst(u64),
    Stall(u64),
    Corrupt(u64),
    Slow,
}

#[derive(Debug, Clone)]
pub(crate) struct SidePlan {
    pub(crate) bytes: u64,
    pub(crate) ending: Ending,
    pub(crate) dice: Dice,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) is_tls12: bool,
    /// Whether the client and the server use the express engine.
    pub(crate) express: [bool; 2],
    pub(crate) client: SidePlan,
    pub(crate) server: SidePlan,
    /// The direction of the fault (true: to the server), and the fault.
    pub(crate) fault: Option<(bool, Fault)>,
}

impl Plan {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed, number);
        let kinds = [Kind::Plain, Kind::Tls, Kind::Tls, Kind::Upgraded, Kind::Nested, Kind::Downgraded];
        let kind = kinds[dice.below(6) as usize];
        let mut side = || {
            let bytes = match dice.below(10) {
                0 => 0,
                1..6 => dice.below(5_000),
                6..9 => dice.below(100_000),
                _ => dice.below(1_000_000),
            };
            let ending = match dice.below(20) {
                0 => Ending::Abort(dice.below(bytes + 1)),
                1 => Ending::Drop(dice.below(bytes + 1)),
                2..5 => Ending::Close,
                _ => Ending::HalfClose,
            };
            SidePlan { bytes, ending, dice: Dice::new(dice.next(), number) }
        };
        let (client, server) = (side(), side());
        let fault = (dice.below(6) == 0).then(|| {
            // Most faults come in the handshake or soon after it.
            let at = if dice.below(2) == 0 { dice.below(4_000) } else { dice.below(200_000) };
            let faults = [Fault::Fin(at), Fault::Rst(at), Fault::Stall(at), Fault::Corrupt(at), Fault::Slow];
            (dice.below(2) == 0, faults[dice.below(5) as usize])
        });
        let express = [dice.below(2) == 0, dice.below(2) == 0];
        Self { kind, is_tls12: dice.below(3) == 0, express, client, server, fault }
    }

    /// Whether the network may change or end the data in a way that plaintext cannot show.
    pub(crate) fn may_deceive(&self) -> bool {
        let is_open = matches!(self.kind, Kind::Plain | Kind::Upgraded | Kind::Downgraded);
        is_open && matches!(self.fault, Some((_, Fault::Fin(_) | Fault::Corrupt(_))))
    }

    /// Whether both sides send everything, and nothing prevents it.
    pub(crate) fn is_peaceful(&self) -> bool {
        let is_whole = |side: &SidePlan| matches!(side.ending, Ending::HalfClose | Ending::Close);
        self.fault.is_none() && is_whole(&self.client) && is_whole(&self.server)
    }
}

/// The byte at this place of the data of one side.
pub(crate) fn byte(number: u64, is_client: bool, at: u64) -> u8 {
    let mixed = (number << 1 | u64::from(is_client)).wrapping_add(at >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> ((at & 7) * 8)) as u8
}
