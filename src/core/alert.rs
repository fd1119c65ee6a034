//! Which alert is due for which failure.

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

/// The alert that is due for an error, where that is known: the one that rustls sends.
pub(super) fn alert_for(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Some(AlertDescription::UnexpectedMessage)
        }
        Error::PeerMisbehaved(
            PeerMisbehaved::KeyEpochWithPendingFragment
            | PeerMisbehaved::IllegalMiddleboxChangeCipherSpec
            | PeerMisbehaved::IllegalTlsInnerPlaintext
            | PeerMisbehaved::MessageInterleavedWithHandshakeMessage,
        ) => Some(AlertDescription::UnexpectedMessage),
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => Some(AlertDescription::IllegalParameter),
        Error::InvalidCertificate(error) => Some(error.clone().into()),
        Error::InvalidMessage(error) => Some((*error).into()),
        Error::NoCertificatesPresented => Some(AlertDescription::CertificateRequired),
        Error::NoApplicationProtocol => Some(AlertDescription::NoApplicationProtocol),
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::PeerMisbehaved(_) => Some(AlertDescription::IllegalParameter),
        _ => None,
    }
}
