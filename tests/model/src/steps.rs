//! The steps of a peer. They are the glue between the tables: the order in which a transport calls them.

use bowline::Leftover;
use bowline::core::delivery::{Evidence, Pending};
use bowline::core::half::End;
use bowline::core::lifecycle::Callback;
use bowline::core::producer::{Level, ProducerCall, ProducerEvent, ProducerState};

use crate::model::Setup;
use crate::state::{Item, Queue, Tls, Wire, World, Wrong};
use crate::tables::{Change, Recv, Tables, Why};

/// The client is peer 0.
const CLIENT: usize = 0;

/// An upper bound of the steps that a transport makes without its application. Reaching it is an error.
const TURNS: usize = 50;

/// The state, and the tables that change it.
pub struct Steps<'a> {
    pub world: &'a mut World,
    pub tables: Tables,
    pub setup: &'a Setup,
}

/// Calls of the application.
impl Steps<'_> {
    pub fn may_write(&self, i: usize) -> bool {
        let peer = &self.world.peers[i];
        let ends = peer.closes || peer.ends_half;
        // close-5 of docs/rules.md: a producer writes until it is unregistered.
        let may_go_on = !ends || peer.producer.is_there();
        may_go_on && peer.report.is_none() && peer.change.is_settled() && peer.top().send.may_write()
    }

    pub fn write(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.wrote += 1;
        let is_clear = !peer.is_secured();
        let number = peer.wrote;
        let is_wrong = is_clear && peer.tls.is_some();
        peer.out.push(Item::Data { number, is_clear });
        self.world.accuse(is_wrong, Wrong::ClearData);
        self.produce(i, ProducerEvent::Written);
        self.run(i);
    }

    /// Whether a read would return something. An application does not read the handshake as data: its dialogue with the
    /// peer has said that TLS follows.
    pub fn may_read(&self, i: usize) -> bool {
        let peer = &self.world.peers[i];
        let can = peer.top().recv.is_open() && !peer.arrived.is_empty() || !peer.unread.is_empty();
        can && peer.report.is_none()
            && peer.change.is_settled()
            && !peer.discards
            && !(peer.tls.is_none() && matches!(peer.arrived.front(), Some(Item::Flight(_))))
    }

    pub fn read(&mut self, i: usize) {
        if let Some(item) = self.world.peers[i].unread.pop() {
            self.deliver(i, item);
        } else {
            self.take_one(i);
        }
        self.run(i);
    }

    pub fn close_write(&mut self, i: usize) {
        self.world.peers[i].ends_half = true;
        self.run(i);
    }

    pub fn close(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.closes = true;
        if peer.is_handshaking() {
            // close-9 of docs/rules.md: nothing is queued, so the handshake is given up. If the application has sent
            // data before the handshake, the end waits for its delivery.
            peer.has_given_up = true;
            let has_sent = peer.wrote > 0;
            self.world.is_disturbed = true;
            self.lose_tls(i, Why::Closed);
            self.world.peers[i].out.clear();
            self.end_tcp(i);
            if !has_sent {
                self.end(i, Why::Closed);
            }
            return self.run(i);
        }
        if peer.change == Change::Quiescing {
            // The application has dropped the call before TLS began, and will not repeat it.
            peer.change = Change::Failed(Why::Closed);
            self.world.is_disturbed = true;
        }
        if self.world.peers[i].change == Change::Unwrapping {
            self.world.peers[i].change = Change::Failed(Why::Closed);
        }
        // Bytes that arrived before the close cannot be the answer to it, so they are read first.
        while let Some(item) = self.world.peers[i].unread.pop() {
            self.count(i, item);
        }
        while self.world.peers[i].top().recv.is_open() && !self.world.peers[i].arrived.is_empty() {
            self.discard_one(i);
        }
        self.world.peers[i].discards = true;
        self.run(i);
    }

    pub fn abort(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.is_aborted = true;
        self.tables.abort_send(&mut peer.tcp.send);
        self.tables.abort_recv(&mut peer.tcp.recv);
        if let Some(tls) = &mut peer.tls {
            self.tables.abort_send(&mut tls.halves.send);
            self.tables.abort_recv(&mut tls.halves.recv);
        }
        peer.out.clear();
        peer.arrived.clear();
        peer.unread.clear();
        self.run(i);
        if self.world.peers[i].report.is_none() {
            self.end(i, Why::Aborted);
        }
        self.reset(i);
    }

    /// close-12 of docs/rules.md
    pub fn drop_it(&mut self, i: usize) {
        if self.world.peers[i].report.is_none() {
            // end-9 of docs/rules.md
            let why = self.judged(i).unwrap_or(Why::Dropped);
            self.end(i, why);
        }
        self.reset(i);
    }

    pub fn may_start_tls(&self, i: usize) -> bool {
        let peer = &self.world.peers[i];
        let top = peer.top();
        peer.upgrades > 0
            && peer.report.is_none()
            && !peer.closes
            && !peer.ends_half
            && peer.tls.is_none()
            && top.send.may_write()
            && top.recv.is_open()
            && self.tables.start_tls(&mut peer.change.clone())
    }

    pub fn start_tls(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.upgrades -= 1;
        self.tables.start_tls(&mut peer.change);
        self.run(i);
    }

    pub fn may_stop_tls(&self, i: usize) -> bool {
        let peer = &self.world.peers[i];
        let top = peer.top();
        let may_receive = top.recv.is_open() || top.recv.is_clean();
        peer.downgrades > 0
            && peer.report.is_none()
            && !peer.closes
            && !peer.ends_half
            && peer.is_secured()
            && top.send.may_write()
            && may_receive
            && self.tables.stop_tls(&mut peer.change.clone())
    }

    pub fn stop_tls(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.downgrades -= 1;
        self.tables.stop_tls(&mut peer.change);
        if let Some(tls) = &mut peer.tls {
            self.tables.close_write(&mut tls.halves.send);
        }
        self.run(i);
    }

    pub fn register(&mut self, i: usize, event: ProducerEvent) {
        self.world.peers[i].producers -= 1;
        self.produce(i, event);
        self.run(i);
    }

    pub fn unregister(&mut self, i: usize) {
        self.produce(i, ProducerEvent::Unregister);
        self.run(i);
    }

    /// The limit of a close.
    pub fn time_out_close(&mut self, i: usize) {
        self.world.has_timed_out = true;
        let peer = &self.world.peers[i];
        let is_sent = peer.tcp.send.is_finished() && peer.tls.is_none_or(|tls| tls.halves.send.is_finished());
        let why = self.judged(i).unwrap_or(Why::TimedOut);
        self.end(i, why);
        if is_sent { self.let_go(i) } else { self.reset(i) }
    }

    /// The limit of a handshake or of a downgrade, or of the system's retransmissions.
    pub fn time_out(&mut self, i: usize) {
        self.world.has_timed_out = true;
        self.fail_change(i, Why::TimedOut);
        self.lose(i, Why::TimedOut);
        self.run(i);
        if self.world.peers[i].report.is_none() {
            self.end(i, Why::TimedOut);
        }
        self.reset(i);
    }
}

/// Events of the wire, and interference with the wire.
impl Steps<'_> {
    /// The oldest item of peer `i` arrives.
    pub fn deliver_from(&mut self, i: usize) {
        let (to, wire) = (1 - i, &mut self.world.wires[i]);
        let Some(item) = wire.items.pop() else { return };
        match item {
            Item::Data { .. } => wire.data += 1,
            Item::Notify { .. } => wire.notify = true,
            Item::Fin { .. } => wire.fin = true,
            Item::Forged | Item::Flight(_) | Item::Alert | Item::ForgedFin | Item::Rst => {}
        }
        let peer = &mut self.world.peers[to];
        if peer.is_gone {
            if !matches!(item, Item::Rst | Item::Fin { .. } | Item::ForgedFin) {
                // A closed socket answers with RST.
                self.world.is_disturbed = true;
                self.put(to, Item::Rst);
            }
        } else if item == Item::Rst {
            peer.was_reset = true;
            // RST does not discard an end that arrived before it.
            let has_end = peer.arrived.any(|item| matches!(item, Item::Fin { .. } | Item::ForgedFin));
            if self.setup.reset_discards && !has_end {
                peer.arrived.clear();
            }
            // After RST, a write fails.
            self.tables.lose_send(&mut peer.tcp.send, Why::Reset);
            if let Some(tls) = &mut peer.tls {
                self.tables.lose_send(&mut tls.halves.send, Why::Reset);
            }
            peer.out.clear();
            peer.arrived.push(item);
            self.run(to);
        } else {
            peer.arrived.push(item);
            self.run(to);
        }
        self.run(i);
    }

    /// The network loses the items on their way from peer `i`, and every later item.
    pub fn cut(&mut self, i: usize) {
        let wire = &mut self.world.wires[i];
        wire.is_cut = true;
        let lost = std::mem::take(&mut wire.items);
        lost.iter().for_each(|item| count_lost(wire, item));
        self.run(i);
    }

    /// A device on the path discards the items on their way from peer `i`, and sends FIN to the other peer instead.
    pub fn forge_fin(&mut self, i: usize) {
        self.cut(i);
        self.world.wires[i].items.push(Item::ForgedFin);
    }

    /// A device on the path resets the connection.
    pub fn forge_rst(&mut self) {
        for i in 0..2 {
            self.cut(i);
            self.world.wires[i].items.push(Item::Rst);
        }
    }

    /// An attacker adds a command in plaintext.
    pub fn forge_data(&mut self, i: usize) {
        self.world.wires[i].items.push(Item::Forged);
    }

    /// Passes an item to the system of peer `i`.
    fn put(&mut self, i: usize, item: Item) {
        let wire = &mut self.world.wires[i];
        if wire.is_cut { count_lost(wire, item) } else { wire.items.push(item) }
    }
}

fn count_lost(wire: &mut Wire, item: Item) {
    match item {
        Item::Data { .. } => wire.lost_data = wire.lost_data.saturating_add(1),
        Item::Flight(_) | Item::Notify { .. } | Item::Alert => wire.lost_records = wire.lost_records.saturating_add(1),
        Item::Fin { .. } => wire.lost_fins = wire.lost_fins.saturating_add(1),
        Item::Forged | Item::ForgedFin | Item::Rst => {}
    }
}

/// The work of the transport itself.
impl Steps<'_> {
    /// Does everything that peer `i` can do without its application.
    pub fn run(&mut self, i: usize) {
        for _ in 0..TURNS {
            if self.world.peers[i].is_gone {
                return;
            }
            let before = self.world.peers[i];
            let sent = self.world.wires[i];
            self.begin_end(i);
            self.seal(i);
            self.flush(i);
            self.go_on_with_change(i);
            self.attend(i);
            self.try_end(i);
            self.tell_producer(i);
            if self.world.peers[i] == before && self.world.wires[i] == sent {
                return;
            }
        }
        self.world.accuse(true, Wrong::Endless);
    }

    /// close-5 and half-4 of docs/rules.md: the end waits for the producer.
    fn begin_end(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        if (peer.closes || peer.ends_half) && !peer.producer.is_there() {
            self.tables.close_write(&mut peer.top_mut().send);
        }
    }

    /// Puts the marker after the accepted bytes.
    fn seal(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        let after = peer.wrote;
        if let Some(tls) = &peer.tls {
            let is_due = tls.halves.send.is_finishing() && tls.is_secured;
            if is_due && !peer.out.any(|item| matches!(item, Item::Notify { .. })) {
                let is_clear = !tls.is_secured;
                peer.out.push(Item::Notify { after, is_clear });
            }
            // half-2 of docs/rules.md: FIN only after close_notify; end-5 of docs/rules.md: or after an alert.
            let is_done = tls.halves.send.is_finished() || tls.has_failed;
            if is_done && peer.change != Change::Unwrapping && (peer.out.is_empty() || tls.has_failed) {
                self.end_tcp(i);
            }
        } else if peer.tcp.send.is_finishing() {
            self.end_tcp(i);
        }
    }

    fn end_tcp(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        self.tables.close_write(&mut peer.tcp.send);
        if peer.tcp.send.is_finishing() && !peer.out.any(|item| matches!(item, Item::Fin { .. })) {
            peer.out.push(Item::Fin { after: peer.wrote });
        }
    }

    fn flush(&mut self, i: usize) {
        while self.world.wires[i].items.len() < self.setup.capacity {
            let peer = &mut self.world.peers[i];
            let Some(item) = peer.out.pop() else { break };
            let (aborted, unread) = (peer.is_aborted, peer.out.any(|item| matches!(item, Item::Data { .. })));
            let is_marker = matches!(item, Item::Notify { .. } | Item::Fin { .. });
            let mut twice = false;
            let mut accepted = true;
            match item {
                Item::Notify { .. } => {
                    if let Some(tls) = &mut peer.tls {
                        twice = std::mem::replace(&mut tls.has_marked, true);
                        // A failure may have come since the marker was sealed.
                        accepted = self.tables.drained(&mut tls.halves.send) || tls.halves.send.is_over();
                    }
                }
                Item::Fin { .. } => {
                    twice = std::mem::replace(&mut peer.has_sent_fin, true);
                    accepted = self.tables.drained(&mut peer.tcp.send) || peer.tcp.send.is_over();
                }
                Item::Data { .. } | Item::Forged | Item::Flight(_) | Item::Alert | Item::ForgedFin | Item::Rst => {}
            }
            self.world.accuse(aborted && is_marker, Wrong::MarkerAfterAbort);
            self.world.accuse(twice, Wrong::TwoMarkers);
            self.world.accuse(is_marker && unread, Wrong::MarkerWithoutData);
            self.world.accuse(!accepted, Wrong::RefusedByTable);
            self.world.accuse(matches!(item, Item::Notify { is_clear: true, .. }), Wrong::ClearNotify);
            self.put(i, item);
        }
    }

    fn go_on_with_change(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        match peer.change {
            Change::Quiescing if peer.out.is_empty() && peer.report.is_none() => {
                let policy = if i == CLIENT { Leftover::Refuse } else { Leftover::Feed };
                let is_admitted = self.tables.judge_leftover(&bytes(&peer.arrived), policy);
                if !is_admitted {
                    self.world.is_disturbed = true;
                    self.fail_change(i, Why::Failed);
                    self.end(i, Why::Failed);
                    self.reset(i);
                    return;
                }
                // A server passes bytes to TLS if the first of them can begin a record. TLS then refuses the bytes
                // after them that are no record.
                let is_data = |item| matches!(item, Item::Data { .. } | Item::Forged);
                let fed =
                    if i == CLIENT { peer.arrived.any(is_data) } else { peer.arrived.front().is_some_and(is_data) };
                self.tables.quiesced(&mut peer.change);
                peer.tls = Some(Tls::default());
                if i == CLIENT {
                    peer.out.push(Item::Flight(1));
                }
                self.world.accuse(fed, Wrong::LeftoverFed);
            }
            Change::Unwrapping => {
                let Some(tls) = peer.tls else { return };
                if tls.halves.send.is_finished() && tls.halves.recv.is_clean() && peer.unread.len() < 8 {
                    peer.tls = None;
                    self.tables.unwrapped(&mut peer.change);
                }
            }
            Change::Settled | Change::Quiescing | Change::Handshaking | Change::Failed(_) => {}
        }
    }

    /// Reads without a call of the application: for a handshake, a downgrade, a close, and the end of the layer below.
    fn attend(&mut self, i: usize) {
        let peer = &self.world.peers[i];
        if peer.is_gone || peer.arrived.is_empty() {
            return;
        }
        let is_open = peer.top().recv.is_open();
        if is_open && (peer.is_handshaking() || peer.change == Change::Unwrapping) {
            self.take_one(i);
        } else if is_open && peer.discards {
            self.discard_one(i);
        } else if !is_open && peer.tls.is_some() && peer.change != Change::Unwrapping && peer.top().send.is_over() {
            self.take_below(i);
        }
    }

    /// Both halves of the session have ended: only the end of the layer below still matters.
    fn take_below(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        match peer.arrived.pop() {
            Some(Item::Fin { .. } | Item::ForgedFin) => {
                self.tables.marker(&mut peer.tcp.recv);
                self.tables.consumed(&mut peer.tcp.recv);
            }
            Some(Item::Rst) => self.lose(i, Why::Reset),
            // The other side has returned to plaintext and this one has not, so the application never reads these
            // bytes.
            Some(_) => self.world.is_disturbed = true,
            None => {}
        }
    }

    fn discard_one(&mut self, i: usize) {
        self.take_item(i, true);
    }

    fn take_one(&mut self, i: usize) {
        self.take_item(i, false);
    }

    /// Reads one item, as the topmost layer understands it.
    fn take_item(&mut self, i: usize, discards: bool) {
        let peer = &mut self.world.peers[i];
        let Some(item) = peer.arrived.pop() else { return };
        let is_clear = |item| matches!(item, Item::Data { is_clear: true, .. } | Item::Forged);
        match (peer.tls, item) {
            (_, Item::Rst) => self.lose(i, Why::Reset),
            (None, Item::Data { is_clear: true, .. }) | (None, Item::Forged) => self.accept(i, item, discards),
            (None, Item::Fin { .. } | Item::ForgedFin) => self.take_fin(i, item),
            // These are bytes of TLS where plaintext is expected. The application reads them as nonsense.
            (None, _) => {}
            (Some(_), Item::Fin { .. } | Item::ForgedFin) => self.take_fin(i, item),
            (Some(_), Item::Alert) => {
                self.lose_tls(i, Why::Failed);
                self.fail_change(i, Why::Failed);
                self.world.is_disturbed = true;
            }
            (Some(tls), Item::Flight(n)) if !tls.is_secured => self.shake_hands(i, n),
            (Some(tls), Item::Data { is_clear: false, .. }) if tls.is_secured => {
                if peer.change == Change::Unwrapping {
                    peer.unread.push(item);
                } else {
                    self.accept(i, item, discards);
                }
            }
            (Some(tls), Item::Notify { after, .. }) if tls.is_secured => self.take_notify(i, after),
            (Some(tls), item) => {
                // The item is wrong in this state or unencrypted, so the session fails.
                debug_assert!(is_clear(item) || !tls.is_secured || matches!(item, Item::Flight(_)));
                self.fail_tls(i);
            }
        }
    }

    fn accept(&mut self, i: usize, item: Item, discards: bool) {
        if discards { self.count(i, item) } else { self.deliver(i, item) }
    }

    fn count(&mut self, i: usize, item: Item) {
        if let Item::Data { number, .. } = item {
            let peer = &mut self.world.peers[i];
            let is_next = number == peer.took + 1;
            peer.took = number;
            self.world.accuse(!is_next, Wrong::OutOfOrder);
        }
    }

    /// Gives data to the application.
    fn deliver(&mut self, i: usize, item: Item) {
        self.count(i, item);
        let peer = &mut self.world.peers[i];
        // Data of a session is read before its end is reported.
        let is_secured = peer.is_secured();
        let admitted = self.tables.admit(&mut peer.life, Callback::Data);
        self.world.accuse(item == Item::Forged && is_secured, Wrong::ForgedDelivered);
        self.world.accuse(!admitted, Wrong::DataAfterEnd);
    }

    fn take_notify(&mut self, i: usize, after: u8) {
        let peer = &mut self.world.peers[i];
        let unread = peer.unread.len() as u8;
        let is_lossy = peer.took + unread != after;
        let Some(tls) = &mut peer.tls else { return };
        if self.tables.marker(&mut tls.halves.recv) {
            peer.is_answered = tls.halves.send.is_finished();
            self.tables.consumed(&mut tls.halves.recv);
        }
        self.world.accuse(is_lossy, Wrong::CleanAfterLoss);
    }

    fn take_fin(&mut self, i: usize, item: Item) {
        let peer = &mut self.world.peers[i];
        if !self.tables.marker(&mut peer.tcp.recv) {
            return;
        }
        self.tables.consumed(&mut peer.tcp.recv);
        let Some(tls) = &mut peer.tls else {
            peer.is_answered = peer.tcp.send.is_finished();
            let is_lossy = matches!(item, Item::Fin { after } if after != peer.took);
            self.world.accuse(is_lossy, Wrong::CleanAfterLoss);
            return;
        };
        if !tls.is_secured {
            // end-6 of docs/rules.md
            self.world.is_disturbed = true;
            self.lose_tls(i, Why::Truncated);
            self.fail_change(i, Why::Truncated);
            return;
        }
        // end-2 and close-7 of docs/rules.md
        let end = if peer.discards { End::Unconfirmed } else { End::Truncated };
        self.tables.layer_ended(&mut tls.halves.recv, end);
        self.tables.consumed(&mut tls.halves.recv);
        let is_clean = tls.halves.recv.is_clean();
        self.world.accuse(is_clean, Wrong::CleanAfterLoss);
        self.fail_change(i, Why::Truncated);
    }

    fn shake_hands(&mut self, i: usize, n: u8) {
        let peer = &mut self.world.peers[i];
        let next = match (i == CLIENT, n) {
            (true, 2) => Some(3),
            (false, 1) => Some(2),
            (false, 3) => None,
            _ => return self.fail_tls(i),
        };
        if n != 1
            && let Some(tls) = &mut peer.tls
        {
            tls.is_secured = true;
            let accepted = self.tables.secured(&mut peer.change);
            self.world.accuse(!accepted, Wrong::RefusedByTable);
        }
        if let Some(next) = next {
            self.world.peers[i].out.push(Item::Flight(next));
        }
    }

    /// The session fails: an alert, and FIN after it (secure-4 of docs/rules.md).
    fn fail_tls(&mut self, i: usize) {
        self.world.is_disturbed = true;
        let peer = &mut self.world.peers[i];
        let may_alert =
            peer.tls.is_some_and(|tls| !tls.has_marked && !tls.has_failed && !tls.halves.send.is_finishing());
        if may_alert {
            peer.out.push(Item::Alert);
        }
        peer.arrived.clear();
        self.lose_tls(i, Why::Failed);
        self.fail_change(i, Why::Failed);
    }

    fn lose_tls(&mut self, i: usize, why: Why) {
        let Some(tls) = &mut self.world.peers[i].tls else { return };
        tls.has_failed = true;
        let was_clean = tls.halves.recv.is_clean();
        self.tables.lose_recv(&mut tls.halves.recv, why);
        self.tables.lose_send(&mut tls.halves.send, why);
        let unmade = was_clean && !tls.halves.recv.is_clean();
        self.world.accuse(unmade, Wrong::CleanUnmade);
    }

    /// The layer at the bottom is lost.
    fn lose(&mut self, i: usize, why: Why) {
        let peer = &mut self.world.peers[i];
        let was_clean = peer.tcp.recv.is_clean();
        self.tables.lose_recv(&mut peer.tcp.recv, why);
        self.tables.lose_send(&mut peer.tcp.send, why);
        peer.out.clear();
        let unmade = was_clean && !peer.tcp.recv.is_clean();
        self.world.accuse(unmade, Wrong::CleanUnmade);
        self.lose_tls(i, why);
        self.fail_change(i, why);
    }

    fn fail_change(&mut self, i: usize, why: Why) {
        let peer = &mut self.world.peers[i];
        if peer.change.is_under_way() {
            // After a downgrade that failed, and a handshake that the peer has cut off, no session can end in order.
            peer.resets = peer.change == Change::Unwrapping || why == Why::Truncated;
            self.tables.fail(&mut peer.change, why);
            let forgot = peer.change.is_settled();
            self.world.accuse(forgot, Wrong::FailureForgotten);
        }
    }

    /// The reason of the end, by the tables; `None` while a half is open.
    fn judged(&self, i: usize) -> Option<Why> {
        let peer = &self.world.peers[i];
        let top = peer.top();
        let why = self.tables.reason(top.send, top.recv)?;
        let pending = self.setup.acknowledges.then(|| self.pending(i));
        let evidence = Evidence { pending, is_answered: peer.is_answered, is_reset: peer.was_reset };
        Some(self.tables.judge_delivery(why, evidence))
    }

    /// Data that the peer's system has not acknowledged.
    fn pending(&self, i: usize) -> Pending {
        let (peer, wire) = (&self.world.peers[i], &self.world.wires[i]);
        let is_plain = peer.tls.is_none();
        let is_data =
            |item: &Item| matches!(item, Item::Data { .. } | Item::Flight(_) | Item::Notify { .. } | Item::Alert);
        let on_the_way = wire.items.iter().filter(is_data).count() as u64;
        let fin = wire.items.any(|item| matches!(item, Item::Fin { .. })) || wire.lost_fins > 0;
        let lost = u64::from(wire.lost_data) + u64::from(wire.lost_records);
        Pending { bytes: on_the_way + lost, fin: is_plain && fin }
    }

    /// close-13 of docs/rules.md
    fn try_end(&mut self, i: usize) {
        let peer = &self.world.peers[i];
        if peer.report.is_some() {
            if peer.out.is_empty() {
                self.let_go(i);
            }
            return;
        }
        if peer.change == Change::Unwrapping {
            return;
        }
        if let (true, Change::Failed(why)) = (peer.resets, peer.change) {
            self.end(i, why);
            return self.reset(i);
        }
        let top = peer.top();
        // A close waits for the end of the layer below too: close-1 of docs/rules.md.
        if peer.discards && peer.tls.is_some() && peer.tcp.recv.is_open() {
            return;
        }
        let Some(reason) = self.tables.reason(top.send, top.recv) else { return };
        if reason == Why::Closed && !peer.was_reset && self.setup.acknowledges {
            // close-14 of docs/rules.md: the end waits for the acknowledgement.
            let pending = self.pending(i);
            if pending.bytes > 0 || pending.fin && !peer.is_answered {
                return;
            }
        }
        let Some(why) = self.judged(i) else { return };
        self.end(i, why);
    }

    /// The connection of peer `i` ends.
    fn end(&mut self, i: usize, why: Why) {
        let setup = self.setup;
        let peer = &mut self.world.peers[i];
        let wire = &self.world.wires[i];
        peer.report = Some(why);
        let is_first = peer.losses == 0;
        if self.tables.admit(&mut peer.life, Callback::Lost) {
            peer.losses = (peer.losses + 1).min(9);
        }
        // A handshake that was given up has no marker.
        let has_marker = match peer.tls {
            Some(_) => peer.has_given_up || wire.notify,
            None => wire.fin || peer.is_answered,
        };
        let is_delivered = match setup.acknowledges {
            true => wire.data == peer.wrote && has_marker,
            false => peer.is_answered || peer.has_given_up && peer.wrote == 0,
        };
        let is_wrong = why == Why::Closed && !is_delivered;
        let renamed = peer.is_aborted && why != Why::Aborted && is_first;
        self.world.accuse(is_wrong, Wrong::ClosedWithoutDelivery);
        self.world.accuse(renamed, Wrong::AbortRenamed);
        self.produce(i, ProducerEvent::End);
    }

    /// Closes the socket. Unread input makes the system send RST.
    fn let_go(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        if self.tables.admit(&mut peer.life, Callback::Lost) {
            peer.losses = (peer.losses + 1).min(9);
        }
        if peer.is_gone {
            return;
        }
        peer.is_gone = true;
        let was_reset = peer.was_reset;
        let is_unread = peer.arrived.any(|item| !matches!(item, Item::Fin { .. } | Item::ForgedFin | Item::Rst));
        let is_open = !peer.has_sent_fin;
        peer.arrived.clear();
        if (is_unread || is_open) && !was_reset {
            self.put(i, Item::Rst);
        }
    }

    /// Closes the socket by RST. The system discards the bytes that it has not sent.
    fn reset(&mut self, i: usize) {
        let peer = &mut self.world.peers[i];
        peer.out.clear();
        peer.arrived.clear();
        if !peer.is_gone {
            peer.is_gone = true;
            let wire = &mut self.world.wires[i];
            let lost = std::mem::take(&mut wire.items);
            lost.iter().for_each(|item| count_lost(wire, item));
            if !self.world.peers[i].was_reset {
                self.put(i, Item::Rst);
            }
        }
    }

    fn produce(&mut self, i: usize, event: ProducerEvent) {
        let peer = &mut self.world.peers[i];
        let was_there = peer.producer.is_there();
        match self.tables.produce(&mut peer.producer, event) {
            Some(ProducerCall::Pause) => {
                let confused = std::mem::replace(&mut peer.is_paused, true);
                self.world.accuse(confused, Wrong::ProducerConfused);
            }
            Some(ProducerCall::Resume) => {
                let confused = !std::mem::replace(&mut peer.is_paused, false);
                self.world.accuse(confused, Wrong::ProducerConfused);
            }
            Some(ProducerCall::Stop) => {
                peer.stops = (peer.stops + 1).min(9);
                let confused = peer.stops > 1 && !was_there && event == ProducerEvent::End;
                self.world.accuse(confused, Wrong::ProducerConfused);
            }
            Some(ProducerCall::Nothing | ProducerCall::Produce) | None => {}
        }
        if !self.world.peers[i].producer.is_there() {
            self.world.peers[i].is_paused = false;
        }
    }

    /// Reports the fill level, and the end of our half.
    fn tell_producer(&mut self, i: usize) {
        let peer = &self.world.peers[i];
        if peer.top().send.is_over() && peer.change != Change::Unwrapping {
            return self.produce(i, ProducerEvent::End);
        }
        let level = match peer.out.len() {
            0 => Level::Empty,
            1 => Level::Low,
            2 => Level::Between,
            _ => Level::High,
        };
        self.produce(i, ProducerEvent::Level(level));
        let peer = &self.world.peers[i];
        let stuck = peer.producer == ProducerState::Paused && peer.out.is_empty();
        self.world.accuse(stuck, Wrong::ProducerConfused);
    }
}

/// The bytes about which the leftover policy decides.
fn bytes(arrived: &Queue) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in arrived.iter() {
        match item {
            Item::Data { .. } | Item::Forged => bytes.extend(b"QUIT\r\n"),
            Item::Flight(_) => bytes.extend([22, 3, 1, 0, 1, 1]),
            Item::Notify { .. } | Item::Alert => bytes.extend([21, 3, 3, 0, 2, 1, 0]),
            Item::Fin { .. } | Item::ForgedFin | Item::Rst => {}
        }
    }
    bytes
}

/// Whether a lower layer that is lost has ended the layer above.
pub fn loss_propagates(world: &World) -> bool {
    world.peers.iter().all(|peer| {
        let is_lost = matches!(peer.tcp.recv, Recv::Broken(_) | Recv::Ended(_));
        peer.tls.is_none() || !is_lost || !peer.top().recv.is_open()
    })
}
