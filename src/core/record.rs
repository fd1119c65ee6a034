//! The limits and constants of TLS records.

use std::ops::RangeInclusive;

/// The header of a record: type, version, length (RFC 8446 section 5.1).
pub(super) const HEADER: usize = 5;
/// The largest amount of plaintext in a record (RFC 8446 section 5.1).
pub(super) const MAX_FRAGMENT: usize = 1 << 14;
/// The longest record body that TLS 1.2 allows (RFC 5246 section 6.2.3). TLS 1.3 allows less.
pub(super) const MAX_BODY: usize = MAX_FRAGMENT + 2048;
/// The types of a TLS record: change_cipher_spec to heartbeat.
pub(super) const RECORD_TYPES: RangeInclusive<u8> = 20..=24;

/// Whether these bytes can be the start of a TLS record.
pub(super) fn may_begin_tls(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [typ] => RECORD_TYPES.contains(typ),
        [typ, major, ..] => RECORD_TYPES.contains(typ) && *major == 3,
    }
}

/// The largest amount of plaintext in a record, for a `max_fragment_size`, which includes the header. rustls has
/// checked that setting.
pub(super) fn max_fragment(max_fragment_size: Option<usize>) -> usize {
    max_fragment_size.map_or(MAX_FRAGMENT, |size| size.saturating_sub(HEADER).clamp(1, MAX_FRAGMENT))
}
