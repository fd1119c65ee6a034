//! The errors of a change between plaintext and TLS.

use crate::core::half::Refused;
use crate::error::{Error, Reason, UpgradeError};

/// The error of this crate in a reason (`NoEnd`), or an error with this reason.
pub(super) fn error_in(reason: Reason) -> Error {
    let own = match &reason {
        Reason::Protocol(cause) => cause.downcast_ref::<Error>().cloned(),
        _ => None,
    };
    own.unwrap_or_else(|| reason.into())
}

/// The error if another change is in progress, so that the state does not allow this step.
pub(super) fn in_progress(_: Refused) -> Error {
    UpgradeError::InProgress.into()
}
