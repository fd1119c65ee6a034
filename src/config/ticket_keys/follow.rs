//! Ticket keys from a stream of the application.

use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;

use super::{TicketKeySet, TicketKeys};

impl TicketKeys {
    /// Replaces the keys by each set of a stream, and returns when the stream ends. The stream is a source of keys of
    /// your own, for example a watch on etcd. Run this in a task; meanwhile, no handshake waits for the stream.
    ///
    /// # Cancel safety
    /// Cancel safe: each set that the stream has returned is in use.
    pub async fn follow(&self, sets: impl Stream<Item = TicketKeySet>) {
        let mut sets = pin!(sets);
        while let Some(set) = poll_fn(|cx| sets.as_mut().poll_next(cx)).await {
            self.replace(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::config::TicketKey;

    /// Asks for another poll before each item.
    struct Slowly<I> {
        items: I,
        is_ready: bool,
    }

    impl<I: Iterator + Unpin> Stream for Slowly<I> {
        type Item = I::Item;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<I::Item>> {
            self.is_ready = !self.is_ready;
            if self.is_ready {
                return Poll::Ready(self.items.next());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    /// rule: ticket-2
    #[tokio::test]
    async fn each_set_of_a_stream_replaces_the_keys() {
        let set = |number: u8| {
            let secret: [u8; 32] = std::array::from_fn(|n| n as u8 ^ number);
            TicketKeySet::new([TicketKey::new([number; 16], secret).unwrap()]).unwrap()
        };
        let keys = TicketKeys::new(set(0));
        let mut seen = Vec::new();
        let sets = (1..=3).map(|number| {
            seen.push(keys.set().keys()[0].name()[0]);
            set(number)
        });
        keys.follow(Slowly { items: sets, is_ready: true }).await;
        seen.push(keys.set().keys()[0].name()[0]);
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}
