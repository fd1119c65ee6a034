//! What a protocol is told, and in which order.

/// What a protocol is told about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callback {
    /// The connection is there.
    Made,
    /// TLS flows, or plaintext flows again.
    Changed,
    /// Data, room, time, a drain: whatever happens between the begin and the end.
    Event,
    /// Data has come.
    Data,
    /// The peer's half has ended.
    ReadClosed,
    /// Our half has ended.
    WriteClosed,
    /// The connection is gone.
    Lost,
}

/// How far the story of a connection has come: made, then (secured), then data, then at most one end for each half, then
/// lost, exactly once, and nothing after it (rule: life-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lifecycle {
    stage: Stage,
    read_closed: bool,
    write_closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Stage {
    #[default]
    Unmade,
    Made,
    /// A callback failed: only the loss is left to be told (rule: life-3).
    Failed,
    Lost,
}

impl Lifecycle {
    /// Whether this may be told now; then it counts as told.
    pub fn admit(&mut self, callback: Callback) -> bool {
        match (self.stage, callback) {
            (Stage::Unmade, Callback::Made) => self.stage = Stage::Made,
            (Stage::Made, Callback::Changed | Callback::Event) => {}
            (Stage::Made, Callback::Data) => return !self.read_closed,
            (Stage::Made, Callback::ReadClosed) => return !std::mem::replace(&mut self.read_closed, true),
            (Stage::Made, Callback::WriteClosed) => return !std::mem::replace(&mut self.write_closed, true),
            (Stage::Made | Stage::Failed, Callback::Lost) => self.stage = Stage::Lost,
            (Stage::Made, Callback::Made)
            | (
                Stage::Unmade,
                Callback::Changed
                | Callback::Event
                | Callback::Data
                | Callback::ReadClosed
                | Callback::WriteClosed
                | Callback::Lost,
            )
            | (
                Stage::Failed,
                Callback::Made
                | Callback::Changed
                | Callback::Event
                | Callback::Data
                | Callback::ReadClosed
                | Callback::WriteClosed,
            )
            | (
                Stage::Lost,
                Callback::Made
                | Callback::Changed
                | Callback::Event
                | Callback::Data
                | Callback::ReadClosed
                | Callback::WriteClosed
                | Callback::Lost,
            ) => return false,
        }
        true
    }

    /// A callback has failed.
    pub fn fail(&mut self) {
        if self.stage != Stage::Lost {
            self.stage = Stage::Failed;
        }
    }

    /// Whether a callback has failed.
    pub fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Whether the peer's end was told.
    pub fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// Whether our own end was told.
    pub fn is_write_closed(&self) -> bool {
        self.write_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Callback::{Changed, Data, Event, Lost, Made, ReadClosed, WriteClosed};

    const ALL: [Callback; 7] = [Made, Changed, Event, Data, ReadClosed, WriteClosed, Lost];

    /// rule: life-1
    #[test]
    fn every_sequence_of_notices_is_a_story_with_one_begin_and_one_end() {
        // All sequences of five notices.
        for code in 0..7_usize.pow(5) {
            let mut lifecycle = Lifecycle::default();
            let sequence = (0..5).map(|place| ALL[code / 7_usize.pow(place) % 7]);
            let told: Vec<Callback> = sequence.filter(|callback| lifecycle.admit(*callback)).collect();
            assert!(told.first().is_none_or(|first| *first == Made), "{told:?}");
            for once in [Made, ReadClosed, WriteClosed, Lost] {
                assert!(told.iter().filter(|callback| **callback == once).count() <= 1, "{told:?}");
            }
            let place = |callback| told.iter().position(|told| *told == callback);
            assert!(place(Lost).is_none_or(|lost| lost + 1 == told.len()), "{told:?}");
            let last_data = told.iter().rposition(|told| *told == Data);
            assert!(place(ReadClosed).is_none_or(|end| last_data.is_none_or(|data| data < end)), "{told:?}");
        }
    }

    /// rule: life-3
    #[test]
    fn behind_a_failed_callback_only_the_loss_is_told() {
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
