//! The model: the events that are possible in a state, and what follows from each.

use crate::state::{Item, Peer, World};
use crate::steps::Steps;
use crate::tables::Tables;
use bowline::core::producer::{ProducerEvent, ProducerState};

/// The size of one setup of the model, and the behaviour of its network.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    /// The connection begins after a handshake.
    pub begins_secured: bool,
    /// The peer's system reports what it has received, as TCP does on Linux.
    pub acknowledges: bool,
    /// When RST arrives, the system discards the bytes that it has received and the application has not read.
    pub reset_discards: bool,
    /// Items on the wire in each direction.
    pub capacity: usize,
    /// Units of data that each peer may write.
    pub writes: [u8; 2],
    pub upgrades: u8,
    pub downgrades: u8,
    /// How often each peer may register a producer.
    pub producers: [u8; 2],
    /// How many times the network or an attacker may interfere, or an application may abort or drop, in total.
    pub disturbances: u8,
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Write(usize),
    Read(usize),
    CloseWrite(usize),
    Close(usize),
    Abort(usize),
    Drop(usize),
    StartTls(usize),
    StopTls(usize),
    RegisterPush(usize),
    RegisterPull(usize),
    Unregister(usize),
    /// The oldest item that this peer has sent arrives.
    Deliver(usize),
    /// Nothing that this peer sends arrives any more.
    Cut(usize),
    ForgeFin(usize),
    ForgeRst,
    ForgeData(usize),
    CloseTimesOut(usize),
    TimesOut(usize),
}

/// The model over the tables of the crate, or over tables with a fault.
#[derive(Debug, Clone)]
pub struct Connection {
    pub setup: Setup,
    pub tables: Tables,
}

impl Connection {
    fn steps<'a>(&'a self, world: &'a mut World) -> Steps<'a> {
        Steps { world, tables: self.tables, setup: &self.setup }
    }

    /// The only state at the beginning.
    pub fn first(&self) -> World {
        let setup = &self.setup;
        let peer = |i: usize| {
            let peer = Peer::new(setup.upgrades, setup.downgrades, setup.producers[i]);
            if setup.begins_secured { peer.secured() } else { peer }
        };
        World {
            peers: [peer(0), peer(1)],
            wires: Default::default(),
            disturbances: setup.disturbances,
            is_disturbed: false,
            has_timed_out: false,
            wrong: None,
        }
    }

    /// Adds every event that is possible in a state.
    pub fn possible(&self, world: &World, actions: &mut Vec<Action>) {
        let world = &mut world.clone();
        let may_interfere = world.disturbances > 0;
        for i in 0..2 {
            let steps = self.steps(world);
            let peer = &steps.world.peers[i];
            let is_live = peer.report.is_none();
            let is_calling = peer.change.is_under_way();
            if steps.may_write(i) && peer.wrote < self.setup.writes[i] && may_produce(peer) {
                actions.push(Action::Write(i));
            }
            if steps.may_read(i) {
                actions.push(Action::Read(i));
            }
            if is_live && !peer.closes {
                actions.push(Action::Close(i));
                if !peer.ends_half && !is_calling {
                    actions.push(Action::CloseWrite(i));
                }
            }
            if steps.may_start_tls(i) {
                actions.push(Action::StartTls(i));
            }
            if steps.may_stop_tls(i) {
                actions.push(Action::StopTls(i));
            }
            if peer.producers > 0 && is_live && !peer.producer.is_there() && !peer.closes && !peer.ends_half {
                actions.extend([Action::RegisterPush(i), Action::RegisterPull(i)]);
            }
            if peer.producer.is_there() {
                actions.push(Action::Unregister(i));
            }
            if !steps.world.wires[i].items.is_empty() {
                actions.push(Action::Deliver(i));
            }
            let is_dead = steps.world.wires.iter().any(|wire| wire.is_cut);
            if is_live && is_dead {
                actions.push(if peer.closes { Action::CloseTimesOut(i) } else { Action::TimesOut(i) });
            }
            if may_interfere {
                if is_live {
                    actions.extend([Action::Abort(i), Action::Drop(i)]);
                }
                if !steps.world.wires[i].is_cut && !peer.is_gone {
                    actions.push(Action::Cut(i));
                    let other = &steps.world.peers[1 - i];
                    // FIN is the marker of plaintext, so a FIN from an attacker looks like a FIN from the peer.
                    if other.tls.is_some() {
                        actions.push(Action::ForgeFin(i));
                    } else if steps.world.wires[i].items.len() < self.setup.capacity && !peer.has_sent_fin {
                        actions.push(Action::ForgeData(i));
                    }
                    if i == 0 && !steps.world.wires[1].is_cut {
                        actions.push(Action::ForgeRst);
                    }
                }
            }
        }
    }

    /// The state after an event.
    pub fn after(&self, world: &World, action: Action) -> World {
        let mut next = *world;
        let mut steps = self.steps(&mut next);
        let disturb = matches!(
            action,
            Action::Abort(_)
                | Action::Drop(_)
                | Action::Cut(_)
                | Action::ForgeFin(_)
                | Action::ForgeRst
                | Action::ForgeData(_)
        );
        if disturb {
            steps.world.disturbances -= 1;
            steps.world.is_disturbed = true;
        }
        match action {
            Action::Write(i) => steps.write(i),
            Action::Read(i) => steps.read(i),
            Action::CloseWrite(i) => steps.close_write(i),
            Action::Close(i) => steps.close(i),
            Action::Abort(i) => steps.abort(i),
            Action::Drop(i) => steps.drop_it(i),
            Action::StartTls(i) => steps.start_tls(i),
            Action::StopTls(i) => steps.stop_tls(i),
            Action::RegisterPush(i) => steps.register(i, ProducerEvent::RegisterPush),
            Action::RegisterPull(i) => steps.register(i, ProducerEvent::RegisterPull),
            Action::Unregister(i) => steps.unregister(i),
            Action::Deliver(i) => steps.deliver_from(i),
            Action::Cut(i) => steps.cut(i),
            Action::ForgeFin(i) => steps.forge_fin(i),
            Action::ForgeRst => steps.forge_rst(),
            Action::ForgeData(i) => steps.forge_data(i),
            Action::CloseTimesOut(i) => steps.time_out_close(i),
            Action::TimesOut(i) => steps.time_out(i),
        }
        next
    }

    /// From this state on, both applications only finish: they read, follow an upgrade, and close. Every message that
    /// is not lost arrives. A time limit ends a wait only if no other step is possible.
    pub fn finished(&self, world: &World) -> World {
        let mut world = *world;
        for calls_close in [false, true] {
            self.settle(&mut world);
            if calls_close {
                for i in 0..2 {
                    if world.peers[i].report.is_none() && !world.peers[i].closes {
                        world = self.after(&world, Action::Close(i));
                        self.settle(&mut world);
                    }
                }
            }
        }
        for i in 0..2 {
            if world.peers[i].report.is_none() {
                world = self.after(&world, Action::CloseTimesOut(i));
                self.settle(&mut world);
            }
        }
        world
    }

    fn settle(&self, world: &mut World) {
        for _ in 0..100 {
            let before = *world;
            for i in 0..2 {
                if world.peers[i].producer.is_there() {
                    *world = self.after(world, Action::Unregister(i));
                }
                if !world.wires[i].items.is_empty() {
                    *world = self.after(world, Action::Deliver(i));
                }
                let steps = self.steps(world);
                if steps.may_read(i) {
                    *world = self.after(world, Action::Read(i));
                } else if steps.world.peers[i].tls.is_none()
                    && matches!(steps.world.peers[i].arrived.front(), Some(Item::Flight(_)))
                    && steps.may_start_tls(i)
                {
                    *world = self.after(world, Action::StartTls(i));
                }
            }
            if *world == before {
                return;
            }
        }
    }
}

fn may_produce(peer: &Peer) -> bool {
    matches!(peer.producer, ProducerState::Absent | ProducerState::Flowing | ProducerState::Asked | ProducerState::Over)
}
