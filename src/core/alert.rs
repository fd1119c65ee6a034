//! The alert for each failure (rule: secure-10). The table in docs/alerts.md is generated from this.

pub(crate) use rustls::AlertDescription as Alert;
use rustls::{ContentType, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

/// The alert for an error: the one that rustls sends, or else the one that the RFC names. `None`: the peer has sent
/// an alert itself, or the error occurs before a connection exists.
pub fn alert_for(error: &Error) -> Option<Alert> {
    Some(match error {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => Alert::UnexpectedMessage,
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => Alert::IllegalParameter,
        Error::InvalidMessage(error) => (*error).into(),
        Error::InvalidCertificate(error) => error.clone().into(),
        Error::PeerMisbehaved(error) => of_misbehaviour(error),
        Error::PeerIncompatible(error) => of_incompatibility(error),
        Error::NoCertificatesPresented => Alert::CertificateRequired,
        Error::NoApplicationProtocol => Alert::NoApplicationProtocol,
        Error::InvalidCertRevocationList(_) | Error::UnsupportedNameType => Alert::HandshakeFailure,
        Error::DecryptError => Alert::BadRecordMac,
        Error::PeerSentOversizedRecord => Alert::RecordOverflow,
        // These errors are found before a handshake starts, or were reported by the peer.
        Error::BadMaxFragmentSize | Error::InconsistentKeys(_) | Error::AlertReceived(_) => return None,
        // RFC 8446 section 6.2: "An internal error unrelated to the peer or the correctness of the protocol". If a
        // later version of rustls adds an error, that error counts as internal until it has a line of its own here.
        _ => Alert::InternalError,
    })
}

/// The record of a fatal alert before anything is encrypted (RFC 8446 section 6).
pub(crate) fn alert_record(alert: Alert) -> [u8; 7] {
    const FATAL: u8 = 2;
    [u8::from(ContentType::Alert), 3, 3, 0, 2, FATAL, u8::from(alert)]
}

fn of_misbehaviour(error: &PeerMisbehaved) -> Alert {
    use PeerMisbehaved as It;
    match error {
        It::IllegalMiddleboxChangeCipherSpec
        | It::IllegalTlsInnerPlaintext
        | It::KeyEpochWithPendingFragment
        | It::KeyUpdateReceivedInQuicConnection
        | It::MessageInterleavedWithHandshakeMessage
        | It::RejectedEarlyDataInterleavedWithHandshakeMessage
        | It::TooMuchEarlyDataReceived => Alert::UnexpectedMessage,
        It::DisallowedEncryptedExtension
        | It::UnexpectedCleartextExtension
        | It::UnsolicitedCertExtension
        | It::UnsolicitedEchExtension
        | It::UnsolicitedEncryptedExtension
        | It::UnsolicitedServerHelloExtension => Alert::UnsupportedExtension,
        It::MissingKeyShare
        | It::MissingPskExtensionInSecondClientHello
        | It::MissingPskModesExtension
        | It::MissingQuicTransportParameters => Alert::MissingExtension,
        It::InvalidCertCompression | It::SelectedUnofferedCertCompression => Alert::BadCertificate,
        It::IllegalHelloRetryRequestWithInvalidEch | It::MissingBinderInPskExtension => Alert::DecodeError,
        It::SelectedUnofferedCipherSuite | It::ServerHelloMustOfferUncompressedEcPoints => Alert::HandshakeFailure,
        It::IncorrectBinder => Alert::DecryptError,
        _ => Alert::IllegalParameter,
    }
}

fn of_incompatibility(error: &PeerIncompatible) -> Alert {
    use PeerIncompatible as It;
    match error {
        It::ServerDoesNotSupportTls12Or13
        | It::ServerTlsVersionIsDisabledByOurConfig
        | It::SupportedVersionsExtensionRequired
        | It::Tls12NotOffered
        | It::Tls12NotOfferedOrEnabled
        | It::Tls13RequiredForQuic => Alert::ProtocolVersion,
        It::NullCompressionRequired | It::UncompressedEcPointsRequired => Alert::IllegalParameter,
        It::ServerRejectedEncryptedClientHello(_) => Alert::EncryptedClientHelloRequired,
        _ => Alert::HandshakeFailure,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, InconsistentKeys};

    use super::*;

    /// rule: secure-10
    #[test]
    fn each_kind_of_error_has_its_alert() {
        use PeerMisbehaved as Bad;
        let cases = [
            (InvalidMessage::InvalidKeyUpdate.into(), Some(Alert::IllegalParameter)),
            (InvalidMessage::MessageTooShort.into(), Some(Alert::DecodeError)),
            (CertificateError::Expired.into(), Some(Alert::CertificateExpired)),
            (Bad::TooMuchEarlyDataReceived.into(), Some(Alert::UnexpectedMessage)),
            (Bad::UnsolicitedCertExtension.into(), Some(Alert::UnsupportedExtension)),
            (Bad::MissingKeyShare.into(), Some(Alert::MissingExtension)),
            (Bad::InvalidCertCompression.into(), Some(Alert::BadCertificate)),
            (Bad::MissingBinderInPskExtension.into(), Some(Alert::DecodeError)),
            (Bad::SelectedUnofferedCipherSuite.into(), Some(Alert::HandshakeFailure)),
            (Bad::IncorrectBinder.into(), Some(Alert::DecryptError)),
            (Bad::DuplicateEncryptedExtensions.into(), Some(Alert::IllegalParameter)),
            (PeerIncompatible::Tls12NotOffered.into(), Some(Alert::ProtocolVersion)),
            (PeerIncompatible::NullCompressionRequired.into(), Some(Alert::IllegalParameter)),
            (
                PeerIncompatible::ServerRejectedEncryptedClientHello(None).into(),
                Some(Alert::EncryptedClientHelloRequired),
            ),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), Some(Alert::HandshakeFailure)),
            (Error::NoCertificatesPresented, Some(Alert::CertificateRequired)),
            (Error::NoApplicationProtocol, Some(Alert::NoApplicationProtocol)),
            (Error::UnsupportedNameType, Some(Alert::HandshakeFailure)),
            (Error::DecryptError, Some(Alert::BadRecordMac)),
            (Error::PeerSentOversizedRecord, Some(Alert::RecordOverflow)),
            (Error::General(String::new()), Some(Alert::InternalError)),
            (Error::BadMaxFragmentSize, None),
            (InconsistentKeys::Unknown.into(), None),
            (Error::AlertReceived(Alert::CloseNotify), None),
        ];
        for (error, alert) in cases {
            assert_eq!(alert_for(&error), alert, "{error:?}");
        }
        assert_eq!(alert_record(Alert::UnrecognisedName), [21, 3, 3, 0, 2, 2, 112]);
    }
}
