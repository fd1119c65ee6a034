//! A run of the model and of two real transports, on a paused clock. After each event, the test compares each transport
//! with its model: what it has sent and read, and the reason of its end.

use std::collections::VecDeque;
use std::fmt::Write;

use crate::model::{Action, Connection, Setup};
use crate::side::{self, Configs, Side};
use crate::state::{Item, World};
use crate::tables::{Change, Recv, Why};
use bowline::Reason;

/// The setups whose runs are played.
pub fn setups() -> Vec<Setup> {
    let plain = Setup {
        name: "plaintext",
        begins_secured: false,
        // A stream in memory does not report what has arrived, and a reset discards what was not read.
        acknowledges: false,
        reset_discards: true,
        capacity: 8,
        writes: [3, 3],
        upgrades: 0,
        downgrades: 0,
        producers: [0, 0],
        disturbances: 2,
    };
    let upgrade = Setup { name: "upgrade and downgrade", upgrades: 1, downgrades: 1, ..plain.clone() };
    let downgrade = Setup { name: "downgrade", begins_secured: true, downgrades: 1, ..plain.clone() };
    vec![plain, upgrade, downgrade]
}

/// Random numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }
}

/// The bytes and ends that one side has sent in one step.
#[derive(Debug, Default)]
struct Chunk {
    /// The number of items that stand for this in the model.
    items: usize,
    bytes: Vec<u8>,
    fin: bool,
    rst: bool,
}

/// A run of the model, and the same run of two transports.
struct Run<'a> {
    model: &'a Connection,
    world: World,
    sides: [Side; 2],
    wires: [VecDeque<Chunk>; 2],
    log: String,
}

/// Plays one run, and returns what differs.
pub async fn play(model: &Connection, configs: &Configs, seed: u64, most: usize) -> Result<usize, String> {
    let mut dice = Dice::new(seed);
    let sides = side::pair(configs, model.setup.begins_secured).await;
    let world = model.first();
    let mut run = Run { model, world, sides, wires: Default::default(), log: String::new() };
    let mut steps = 0;
    while steps < most {
        let mut actions = Vec::new();
        model.possible(&run.world, &mut actions);
        actions.retain(|action| run.can_play(*action));
        if actions.is_empty() {
            break;
        }
        // Ordinary events are more frequent than the others.
        let ordinary: Vec<Action> = actions.iter().copied().filter(|action| is_ordinary(*action)).collect();
        let is_rare = ordinary.is_empty() || dice.below(5) == 0;
        let choice = if is_rare { &actions } else { &ordinary };
        let action = choice[dice.below(choice.len())];
        run.step(action).await.map_err(|what| format!("{}: seed {seed}: {what}\n{}", model.setup.name, run.log))?;
        steps += 1;
        if run.sides.iter().any(|side| side.is_reset()) {
            // A real side notices the reset when it uses the connection next, so the run ends here.
            break;
        }
    }
    run.end().await.map_err(|what| format!("{}: seed {seed}: at the end: {what}\n{}", model.setup.name, run.log))?;
    Ok(steps)
}

fn is_ordinary(action: Action) -> bool {
    matches!(action, Action::Write(_) | Action::Read(_) | Action::Deliver(_) | Action::StartTls(_) | Action::StopTls(_))
}

impl Run<'_> {
    /// Lets time pass, because some ends take a moment: a failed handshake waits for its alert to arrive.
    async fn end(&mut self) -> Result<(), String> {
        for side in &mut self.sides {
            side.go_on().await;
            if side.is_reset() {
                side.use_it().await;
            }
        }
        tokio::time::advance(side::LIMIT * 2).await;
        for side in &mut self.sides {
            side.go_on().await;
        }
        for (i, side) in self.sides.iter().enumerate() {
            let due = self.world.peers[i].report.map(name);
            let seen = side.reason().map(|seen| if seen == "protocol" { "tls" } else { seen });
            // In the model a reset is seen before an end that came earlier. Here the application reads first, and then
            // it sees that end.
            let is_earlier = due == Some("reset") && matches!(seen, Some("unconfirmed" | "truncated" | "tls"));
            let is_same = seen == due || is_earlier;
            if due.is_some() && !is_same {
                return Err(format!("side {i} has ended as {seen:?}, in the model as {due:?}"));
            }
        }
        Ok(())
    }

    fn can_play(&self, action: Action) -> bool {
        match action {
            // Both sides share one clock here, and there is no system that retransmits.
            Action::TimesOut(i) => self.world.peers[i].change.is_under_way(),
            Action::RegisterPush(_) | Action::RegisterPull(_) | Action::Unregister(_) => false,
            _ => true,
        }
    }

    async fn step(&mut self, action: Action) -> Result<(), String> {
        let _ = writeln!(self.log, "{action:?}");
        let before = self.world;
        let mut popped = [0, 0];
        match action {
            Action::Deliver(i) => {
                let Some(chunk) = self.wires[i].pop_front() else { return Err("nothing to deliver".into()) };
                popped[i] = chunk.items;
                for _ in 0..chunk.items {
                    self.world = self.model.after(&self.world, action);
                }
                self.sides[1 - i].receive(&chunk.bytes, chunk.fin, chunk.rst).await;
            }
            Action::CloseTimesOut(_) | Action::TimesOut(_) => {
                for i in 0..2 {
                    let peer = self.world.peers[i];
                    if peer.report.is_some() {
                    } else if peer.closes {
                        self.world = self.model.after(&self.world, Action::CloseTimesOut(i));
                    } else if peer.change.is_under_way() {
                        self.world = self.model.after(&self.world, Action::TimesOut(i));
                    }
                }
                tokio::time::advance(side::LIMIT * 2).await;
            }
            _ => self.world = self.model.after(&self.world, action),
        }
        match action {
            Action::Write(i) => {
                let number = self.world.peers[i].wrote;
                self.sides[i].write(i, number).await?;
            }
            Action::Read(i) => {
                let peer = &before.peers[i];
                let item = peer.unread.front().or(peer.arrived.front());
                self.sides[i].read(1 - i, item).await?;
            }
            Action::CloseWrite(i) => self.sides[i].close_write().await,
            Action::Close(i) => self.sides[i].close().await?,
            Action::Abort(i) => self.sides[i].abort(),
            Action::Drop(i) => self.sides[i].drop_it(),
            Action::StartTls(i) => {
                // In the model everything that has arrived is leftover. A server decides only about bytes that it has
                // read ahead.
                if matches!(before.peers[i].arrived.front(), Some(Item::Data { .. } | Item::Forged | Item::Flight(_))) {
                    self.sides[i].read_ahead().await;
                }
                self.sides[i].start_tls(i);
            }
            Action::StopTls(i) => self.sides[i].stop_tls(),
            Action::Cut(i) => self.wires[i].clear(),
            Action::ForgeFin(i) => {
                self.wires[i].clear();
                self.wires[i].push_back(Chunk { items: 1, fin: true, ..Chunk::default() });
            }
            Action::ForgeRst => {
                for wire in &mut self.wires {
                    wire.clear();
                    wire.push_back(Chunk { items: 1, rst: true, ..Chunk::default() });
                }
            }
            Action::ForgeData(i) => {
                self.wires[i].push_back(Chunk { items: 1, bytes: side::FORGED.to_vec(), ..Chunk::default() });
            }
            Action::Deliver(_) | Action::CloseTimesOut(_) | Action::TimesOut(_) => {}
            Action::RegisterPush(_) | Action::RegisterPull(_) | Action::Unregister(_) => {}
        }
        let is_forged =
            matches!(action, Action::Cut(_) | Action::ForgeFin(_) | Action::ForgeRst | Action::ForgeData(_));
        for _ in 0..4 {
            for side in &mut self.sides {
                side.go_on().await;
            }
            tokio::task::yield_now().await;
        }
        for (i, popped) in popped.into_iter().enumerate() {
            self.collect(i, &before, popped, is_forged)?;
            self.compare(i)?;
        }
        Ok(())
    }

    /// Takes the bytes that side `i` has sent, and compares them with what it has sent in the model.
    fn collect(&mut self, i: usize, before: &World, popped: usize, is_forged: bool) -> Result<(), String> {
        let sent = self.sides[i].sent();
        let wire = &self.world.wires[i];
        let was_cut = before.wires[i].is_cut || wire.is_cut;
        let old: Vec<Item> = before.wires[i].items.iter().skip(popped).collect();
        let all: Vec<Item> = wire.items.iter().collect();
        if was_cut || is_forged {
            if !is_forged && all.len() > old.len() {
                return Err(format!("side {i} has sent {all:?} on a wire that was cut"));
            }
            return Ok(());
        }
        let new = match all.strip_prefix(&old[..]) {
            Some(new) => new,
            // The old bytes are gone: the system has discarded what it had not sent.
            None => {
                self.wires[i].clear();
                &all[..]
            }
        };
        let has = |is_wanted: fn(&Item) -> bool| new.iter().any(is_wanted);
        let has_bytes = has(|item| !matches!(item, Item::Fin { .. } | Item::ForgedFin | Item::Rst));
        let (has_fin, has_rst) = (has(|item| matches!(item, Item::Fin { .. })), has(|item| *item == Item::Rst));
        // A closed TCP socket answers with RST by itself. A pipe does not.
        let is_by_system = has_rst && self.sides[i].has_sent_end;
        let same = has_bytes != sent.bytes.is_empty() && has_fin == sent.fin && (has_rst == sent.rst || is_by_system);
        if !same {
            return Err(format!("side {i} has sent {sent:?}, and in the model {new:?}"));
        }
        self.sides[i].has_sent_end |= has_fin || has_rst;
        if !new.is_empty() {
            let chunk = Chunk { items: new.len(), bytes: sent.bytes, fin: has_fin, rst: has_rst };
            self.wires[i].push_back(chunk);
        }
        Ok(())
    }

    fn compare(&self, i: usize) -> Result<(), String> {
        let (peer, side) = (&self.world.peers[i], &self.sides[i]);
        let due = peer.report.map(name);
        // A call owns the connection, so its state cannot be read. It is compared when the call has returned.
        let Some(seen) = side.status() else { return Ok(()) };
        let reason = seen.reason.as_ref().map(Reason::name);
        if side.is_reset() {
            return Ok(());
        }
        // The model calls a refusal of leftover bytes "tls" too.
        let reason = if reason == Some("protocol") { Some("tls") } else { reason };
        if reason != due {
            return Err(format!("side {i} has ended as {reason:?}, in the model as {due:?}: {seen:?}"));
        }
        if peer.report.is_some() || matches!(peer.change, Change::Failed(_)) {
            return Ok(());
        }
        let (send, recv) = (seen.send.clone().into(), settled(seen.recv.clone().into()));
        let top = peer.top();
        if (top.send, settled(top.recv)) != (send, recv) {
            return Err(format!("side {i} is {send:?} and {recv:?}, in the model {top:?}"));
        }
        Ok(())
    }
}

/// The model knows whether data before an end was read; the status of a transport tells only the end.
fn settled(recv: Recv) -> Recv {
    match recv {
        Recv::Ending(end) => Recv::Ended(end),
        other => other,
    }
}

fn name(why: Why) -> &'static str {
    Reason::from(why).name()
}
