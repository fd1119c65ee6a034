//! Limits how much a key may seal in TLS 1.2, where no other key follows it, because TLS 1.2 has no KeyUpdate.

/// The number of records that a key may still seal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyBudget {
    records: u64,
    /// The largest amount of plaintext in one record, in bytes.
    fragment: usize,
}

impl KeyBudget {
    /// The budget of a key that may seal `limit` records and has sealed `sealed` of them. The last record is reserved
    /// for the alert that ends the session.
    pub(super) fn new(limit: u64, sealed: u64, fragment: usize) -> Self {
        Self { records: limit.saturating_sub(1).saturating_sub(sealed), fragment: fragment.max(1) }
    }

    /// The number of bytes of data that may be sealed at once.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.records).unwrap_or(usize::MAX).saturating_mul(self.fragment)
    }

    /// Called when this many bytes of data were sealed at once.
    pub(super) fn spend(&mut self, bytes: usize) {
        let records = bytes.div_ceil(self.fragment);
        self.records = self.records.saturating_sub(u64::try_from(records).unwrap_or(u64::MAX));
    }

    /// Called when one record without data was sealed.
    pub(super) fn spend_record(&mut self) {
        self.records = self.records.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rule: end-8
    #[test]
    fn a_key_seals_up_to_its_limit_and_keeps_one_record_for_an_alert() {
        let mut budget = KeyBudget::new(7, 1, 100);
        assert_eq!(budget.bytes(), 500);
        budget.spend(100);
        budget.spend(101);
        assert_eq!(budget.bytes(), 200);
        budget.spend_record();
        budget.spend(1);
        assert_eq!(budget.bytes(), 0);
        budget.spend(1);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn limits_at_the_ends_of_their_range_do_not_overflow() {
        assert_eq!(KeyBudget::new(0, 1, 0).bytes(), 0);
        assert_eq!(KeyBudget::new(1, 1, 1 << 14).bytes(), 0);
        let mut endless = KeyBudget::new(u64::MAX, 1, 1 << 14);
        assert_eq!(endless.bytes(), usize::MAX);
        endless.spend(usize::MAX);
        assert!(endless.bytes() > usize::MAX >> 24);
    }
}
