//! How a layer ends when a [`Control`](super::Control) has ended its connection.

use crate::error::Reason;

/// A layer, or a half of one, that ends when the [`Control`](super::Control) has ended the connection.
pub(crate) trait Controlled {
    /// Ends for an abort: discards all bytes, those that were received and not read too.
    fn abort(&mut self);

    /// Releases the bottom layer. If a half has not ended yet, it ends for this reason.
    fn end(&mut self, reason: &Reason);

    /// Ends for the reason of [`Control::cut`](super::Control::cut), if there is one. Returns whether there is one.
    /// Checked before each step of each operation.
    #[inline]
    fn check_cut(&mut self, cut: Option<Reason>) -> bool {
        let is_cut = cut.is_some();
        if let Some(reason) = cut {
            self.handle_cut(&reason);
        }
        is_cut
    }

    #[cold]
    #[inline(never)]
    fn handle_cut(&mut self, reason: &Reason) {
        match reason {
            Reason::Aborted => self.abort(),
            reason => self.end(reason),
        }
    }
}
