//! Decides which callbacks a protocol gets, and in which order.

/// A callback of a protocol. Callbacks that follow the same rules share a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callback {
    /// The connection was made.
    Made,
    /// TLS has started or stopped.
    Changed,
    /// Any other callback while the connection is open: space in the queue, a timer, a drain.
    Event,
    /// Data has arrived.
    Data,
    /// The peer's half has ended.
    ReadClosed,
    /// Our half has ended.
    WriteClosed,
    /// The connection was lost.
    Lost,
}

/// The state of a protocol's callbacks. The order is: the connection is made; then TLS may start; then data; then at
/// most one end for each half; then the loss, exactly once, and nothing after it (rule: life-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lifecycle {
    /// No callback was called yet.
    #[default]
    New,
    /// The connection was made. Its two halves end independently, in any order.
    Made {
        /// The end of the peer's half was reported. No data may be reported after it.
        read_closed: bool,
        /// The end of our half was reported.
        write_closed: bool,
    },
    /// A callback has failed. Only the loss will still be reported (rule: life-3).
    Failed,
    /// The loss was reported, or the connection failed before it was made. Nothing is reported any more.
    Lost,
}

impl Lifecycle {
    /// Whether this callback may be called now. If it may, it counts as called.
    pub fn admit(&mut self, callback: Callback) -> bool {
        use Callback::{Changed, Data, Event, Lost, Made, ReadClosed, WriteClosed};
        match (&mut *self, callback) {
            (Self::New, Made) => *self = Self::Made { read_closed: false, write_closed: false },
            (Self::Made { .. }, Changed | Event) => {}
            (Self::Made { read_closed, .. }, Data) => return !*read_closed,
            (Self::Made { read_closed, .. }, ReadClosed) => return !std::mem::replace(read_closed, true),
            (Self::Made { write_closed, .. }, WriteClosed) => return !std::mem::replace(write_closed, true),
            (Self::Made { .. } | Self::Failed, Lost) => *self = Self::Lost,
            (Self::New, Changed | Event | Data | ReadClosed | WriteClosed | Lost)
            | (Self::Made { .. }, Made)
            | (Self::Failed, Made | Changed | Event | Data | ReadClosed | WriteClosed)
            | (Self::Lost, Made | Changed | Event | Data | ReadClosed | WriteClosed | Lost) => return false,
        }
        true
    }

    /// The connection has failed. If the protocol has got no callback, it gets none for the end either.
    pub fn fail(&mut self) {
        *self = match self {
            Self::Made { .. } | Self::Failed => Self::Failed,
            Self::New | Self::Lost => Self::Lost,
        }
    }

    /// Whether a callback has failed.
    pub fn has_failed(self) -> bool {
        self == Self::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::Callback::{Changed, Data, Event, Lost, Made, ReadClosed, WriteClosed};
    use super::*;

    const ALL: [Callback; 7] = [Made, Changed, Event, Data, ReadClosed, WriteClosed, Lost];

    /// rule: life-1
    #[test]
    fn every_sequence_of_callbacks_has_one_start_and_one_end() {
        // All sequences of five callbacks.
        for code in 0..7_usize.pow(5) {
            let mut lifecycle = Lifecycle::default();
            let sequence = (0..5).map(|place| ALL[code / 7_usize.pow(place) % 7]);
            let made: Vec<Callback> = sequence.filter(|callback| lifecycle.admit(*callback)).collect();
            assert!(made.first().is_none_or(|first| *first == Made), "{made:?}");
            for once in [Made, ReadClosed, WriteClosed, Lost] {
                assert!(made.iter().filter(|callback| **callback == once).count() <= 1, "{made:?}");
            }
            let place = |callback| made.iter().position(|made| *made == callback);
            assert!(place(Lost).is_none_or(|lost| lost + 1 == made.len()), "{made:?}");
            let last_data = made.iter().rposition(|made| *made == Data);
            assert!(place(ReadClosed).is_none_or(|end| last_data.is_none_or(|data| data < end)), "{made:?}");
        }
    }

    /// rule: life-1
    #[test]
    fn a_connection_that_fails_before_the_first_callback_makes_none() {
        let mut lifecycle = Lifecycle::default();
        lifecycle.fail();
        assert!(ALL.into_iter().all(|callback| !lifecycle.admit(callback)));
    }

    /// rule: life-3
    #[test]
    fn after_a_failed_callback_only_the_loss_is_reported() {
        let mut lifecycle = Lifecycle::default();
        assert!(lifecycle.admit(Made));
        lifecycle.fail();
        assert!(
            [Made, Changed, Event, Data, ReadClosed, WriteClosed]
                .into_iter()
                .all(|callback| !lifecycle.admit(callback))
        );
        assert!(lifecycle.admit(Lost) && !lifecycle.admit(Lost));
    }
}
