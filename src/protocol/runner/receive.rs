//! Receives the data of the transport, and its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{Next, Runner};
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::inbox::Inbox;
use crate::core::outbox::EndRequest;
use crate::protocol::callbacks::{AfterRead, Protocol};
use crate::protocol::conn::{Conn as _, Reading};
use crate::protocol::deferred::Delivery;
use crate::transport::Transport;
use crate::transport::layer::{Discard, TOKEN};

impl<P: Protocol, T: Transport> Runner<P, T> {
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        if self.dispatcher.conn.is_read_ended {
            return self.poll_loss(cx).map(|()| Some(Next::End));
        }
        if self.dispatcher.conn.outbox.requested_end() == EndRequest::Close {
            // rule: close-2: bytes that arrive while the close waits for the producer are discarded.
            let mut discard = Discard { bytes: 0, limit: u64::MAX };
            self.unread.clear();
            ready!(self.transport.layer_mut(TOKEN).poll_discard(cx, &mut discard));
            return Poll::Ready(self.handle_read_end());
        }
        if self.dispatcher.conn.is_held() || self.dispatcher.conn.delivery == Delivery::Paused {
            return self.poll_parked(cx);
        }
        self.loss = None;
        if std::mem::take(&mut self.dispatcher.conn.delivery) == Delivery::Again && !self.unread.is_empty() {
            self.deliver_unread();
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.transport).poll_fill_buf(cx)) {
            Ok(data) if !data.is_empty() => {
                // The number of bytes per call is limited, and so the answers to them are limited too (rule:
                // write-10).
                let data = &data[..data.len().min(Inbox::ROOM)];
                let n = data.len();
                if self.unread.is_empty() {
                    let done = self.dispatcher.deliver(data);
                    if done < n {
                        self.unread.push(&data[done..]);
                    }
                } else {
                    self.unread.push(data);
                    self.deliver_unread();
                }
                Pin::new(&mut self.transport).consume(n);
                self.check_unread();
                Poll::Ready(None)
            }
            Ok(_) | Err(_) => Poll::Ready(self.handle_read_end()),
        }
    }

    /// Processes records without data while nothing may be delivered (rule: secure-7). Data and the end of the peer's
    /// half stay unread (rule: flow-4).
    fn poll_parked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        ready!(self.transport.layer_mut(TOKEN).poll_attend(cx));
        match self.transport.layer(TOKEN).halves() {
            (_, RecvHalf::Broken(_)) => {}
            // The peer has ended in order. The end is reported later, when delivery resumes.
            (SendHalf::Finished, RecvHalf::Ending(_) | RecvHalf::Ended(_)) => return Poll::Pending,
            (_, RecvHalf::Open | RecvHalf::Ending(_) | RecvHalf::Ended(_) | RecvHalf::Aborted) => {
                ready!(self.poll_loss(cx));
            }
        }
        if self.dispatcher.conn.delivery != Delivery::Paused {
            // The unsent answers cannot be sent any more. Data that came before the loss is delivered, and then the
            // loss is reported.
            self.is_shut = true;
            self.dispatcher.lose_sending();
            return Poll::Ready(None);
        }
        // rule: flow-5. The data before the loss is discarded, because the layer returns the reason only after it.
        let mut discard = Discard { bytes: 0, limit: u64::MAX };
        let _ = self.transport.layer_mut(TOKEN).poll_discard(cx, &mut discard);
        Poll::Ready(Some(Next::End))
    }

    fn deliver_unread(&mut self) {
        let done = self.dispatcher.deliver(self.unread.as_slice());
        self.unread.consume(done);
        self.unread.release();
    }

    fn check_unread(&mut self) {
        // While delivery is stopped, the unprocessed bytes may contain complete messages, so the limit of an incomplete
        // message does not apply.
        if !self.unread.is_empty() && self.dispatcher.conn.reading() == Reading::Open {
            self.dispatcher.check_unread(self.unread.len());
        }
    }

    /// The peer's half has ended, or the connection is lost.
    fn handle_read_end(&mut self) -> Option<Next> {
        self.dispatcher.conn.is_read_ended = true;
        let (send, recv) = self.transport.layer(TOKEN).halves();
        let end = match recv {
            RecvHalf::Ending(end) | RecvHalf::Ended(end) => end,
            RecvHalf::Open | RecvHalf::Aborted | RecvHalf::Broken(_) => return Some(Next::End),
        };
        let is_closing = self.dispatcher.conn.outbox.requested_end() == EndRequest::Close;
        let answer = self.dispatcher.notify_read_closed(end);
        if answer == AfterRead::Close && !is_closing {
            // rules: close-8, half-11: queued bytes are sent, but the producer is stopped.
            self.dispatcher.stop_producer();
            self.dispatcher.conn.close();
        }
        let is_over = matches!(send, SendHalf::Finished | SendHalf::Aborted | SendHalf::Broken(_));
        is_over.then_some(Next::End)
    }

    /// Ready once the connection is lost, even though nothing is read (rule: flow-5).
    fn poll_loss(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let control = self.transport.layer(TOKEN).control();
        self.loss
            .get_or_insert_with(|| {
                let control = control.clone();
                Box::pin(async move { control.lost().await })
            })
            .as_mut()
            .poll(cx)
    }
}
