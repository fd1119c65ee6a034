//! The properties of every state, for the checker.

use bowline::core::half::End;
use stateright::{Model, Property};

use crate::model::{Action, Connection};
use crate::state::{Peer, World, Wrong};
use crate::steps::loss_propagates;
use crate::tables::{Change, Why};

/// Whether nothing has interfered, and the two applications agree about TLS.
fn is_calm(world: &World) -> bool {
    !world.is_disturbed && world.peers.iter().all(|peer| peer.change == Change::Settled && !peer.has_given_up)
}

/// Whether both sides can end from a state, and whether they end as they should.
fn has_a_way_out(model: &Connection, world: &World) -> bool {
    let end = model.finished(world);
    let all_ended = end.peers.iter().all(|peer| peer.report.is_some() && peer.losses == 1 && peer.is_gone);
    all_ended && end.wrong.is_none() && (!is_calm(&end) || ends_well(model, &end))
}

/// A connection that nobody has disturbed ends cleanly without a limit, and with all data.
fn ends_well(model: &Connection, end: &World) -> bool {
    let is_closed = |peer: &Peer| peer.report == Some(Why::Closed);
    let are_closed = match model.setup.acknowledges {
        true => end.peers.iter().all(is_closed),
        // Without acknowledgements, the order of the ends decides, and it may confirm the delivery to one side only.
        false => {
            end.peers.iter().any(is_closed)
                && end.peers.iter().all(|peer| is_closed(peer) || peer.report == Some(Why::Unconfirmed))
        }
    };
    are_closed && !end.has_timed_out && (0..2).all(|i| end.peers[1 - i].took == end.peers[i].wrote)
}

/// Whether both sides agree that the end was clean: a side that reports `closed` has received the marker of the other
/// side, and the other side has not seen a truncation. Without acknowledgements, only the first of these two conditions
/// is checked: the two markers may cross on the wire, and ours may be lost.
fn agree(model: &Connection, world: &World) -> bool {
    (0..2).all(|i| {
        let (ours, theirs) = (&world.peers[i], &world.peers[1 - i]);
        let is_closed = ours.report == Some(Why::Closed) && !ours.has_given_up;
        let bare = |peer: &Peer| matches!(peer.top().recv.end(), Some(End::Truncated | End::Unconfirmed));
        !is_closed || ours.top().recv.is_clean() && !(model.setup.acknowledges && bare(theirs))
    })
}

fn is_free_of(world: &World, wrongs: &[Wrong]) -> bool {
    world.wrong.is_none_or(|wrong| !wrongs.contains(&wrong))
}

impl Model for Connection {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // The checker reports a wrong state, and explores no states after it.
        if world.wrong.is_none() {
            self.possible(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.after(world, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every state has a way out", |model: &Self, world: &World| {
                is_free_of(world, &[Wrong::Endless]) && (world.wrong.is_some() || has_a_way_out(model, world))
            }),
            Property::always("exactly one end", |_, world: &World| {
                let queues = world.peers.iter().flat_map(|peer| [peer.out, peer.arrived, peer.unread]);
                let mut queues = queues.chain(world.wires.iter().map(|wire| wire.items));
                is_free_of(world, &[Wrong::TwoEnds, Wrong::TwoMarkers])
                    && !queues.any(|queue| queue.has_overflowed())
                    && world.peers.iter().all(|peer| peer.losses == u8::from(peer.report.is_some()))
            }),
            Property::always("no clean end after loss", |_, world: &World| {
                is_free_of(
                    world,
                    &[Wrong::CleanAfterLoss, Wrong::CleanUnmade, Wrong::MarkerWithoutData, Wrong::OutOfOrder],
                )
            }),
            Property::always("no closed without delivery", |_, world: &World| {
                is_free_of(world, &[Wrong::ClosedWithoutDelivery])
            }),
            Property::always("no marker after an abort", |_, world: &World| {
                is_free_of(world, &[Wrong::MarkerAfterAbort, Wrong::AbortRenamed])
            }),
            Property::always("nothing in clear that belongs into TLS", |_, world: &World| {
                is_free_of(world, &[Wrong::ClearNotify, Wrong::ClearData, Wrong::ForgedDelivered, Wrong::LeftoverFed])
            }),
            Property::always("both sides agree on clean", |model: &Self, world: &World| agree(model, world)),
            Property::always("a loss ends every layer", |_, world: &World| loss_propagates(world)),
            Property::always("the tables accept what the transport does", |_, world: &World| {
                is_free_of(world, &[Wrong::RefusedByTable, Wrong::DataAfterEnd, Wrong::FailureForgotten])
            }),
            Property::always("a producer is paused, resumed and stopped in order", |_, world: &World| {
                is_free_of(world, &[Wrong::ProducerConfused])
            }),
        ]
    }
}
