//! The table of alerts in docs/alerts.md: for each error of rustls's, the alert and who sends it.

use std::collections::BTreeMap;
use std::fmt::Write;

use bowline::core::alert::alert_for;
use bowline::rustls::{
    CertRevocationListError, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};

use crate::generated::check_section;

/// The sender of the alert, according to the source of rustls 0.23.46.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rustls,
    Us,
}
use By::{Rustls, Us};

type Row = (String, Error, By);

macro_rules! of {
    ($by:expr, $kind:ident: $($name:ident)*) => {
        vec![$((format!("{}::{}", stringify!($kind), stringify!($name)), Error::from($kind::$name), $by)),*]
    };
}

fn one(name: &str, error: Error, by: By) -> Vec<Row> {
    vec![(name.to_owned(), error, by)]
}

fn messages() -> Vec<Row> {
    let mut rows = of!(Rustls, InvalidMessage: CertificatePayloadTooLarge InvalidCcs InvalidContentType
        InvalidCertificateStatusType InvalidCertRequest InvalidDhParams InvalidEmptyPayload InvalidKeyUpdate
        InvalidServerName MessageTooLarge MessageTooShort MissingKeyExchange NoSignatureSchemes UnknownProtocolVersion
        UnsupportedCompression UnsupportedCurveType EmptyTicketValue IllegalEmptyValue PreSharedKeyIsNotFinalExtension
        UnknownHelloRetryRequestExtension UnknownCertificateExtension);
    rows.extend(of!(Us, InvalidMessage: HandshakePayloadTooLarge));
    let what = "";
    rows.extend(one("InvalidMessage::MissingData", InvalidMessage::MissingData(what).into(), Rustls));
    rows.extend(one("InvalidMessage::TrailingData", InvalidMessage::TrailingData(what).into(), Rustls));
    rows.extend(one("InvalidMessage::UnexpectedMessage", InvalidMessage::UnexpectedMessage(what).into(), Rustls));
    rows.extend(one("InvalidMessage::IllegalEmptyList", InvalidMessage::IllegalEmptyList(what).into(), Rustls));
    rows.extend(one("InvalidMessage::DuplicateExtension", InvalidMessage::DuplicateExtension(0).into(), Rustls));
    rows
}

fn misbehaviour() -> Vec<Row> {
    let mut rows = of!(Rustls, PeerMisbehaved: AttemptedDowngradeToTls12WhenTls13IsSupported CipherSuiteDifferedOnRetry
        DisallowedEncryptedExtension EarlyDataAttemptedInSecondClientHello EarlyDataOfferedWithVariedCipherSuite
        EchAcceptanceVariedAfterRetry HandshakeHashVariedAfterRetry IllegalHelloRetryRequestWithEmptyCookie
        IllegalHelloRetryRequestWithNoChanges IllegalHelloRetryRequestWithOfferedGroup
        IllegalHelloRetryRequestWithUnofferedCipherSuite IllegalHelloRetryRequestWithUnofferedNamedGroup
        IllegalHelloRetryRequestWithUnsupportedVersion IllegalHelloRetryRequestWithWrongSessionId
        IllegalHelloRetryRequestWithInvalidEch IncorrectBinder InvalidCertCompression InvalidKeyShare KeyEpochWithPendingFragment
        MissingBinderInPskExtension MissingKeyShare MissingPskExtensionInSecondClientHello MissingPskModesExtension
        OfferedDuplicateCertificateCompressions OfferedDuplicateKeyShares OfferedIncorrectCompressions
        PskExtensionWithMismatchedIdsAndBinders RefusedToFollowHelloRetryRequest ResumptionAttemptedWithVariedEms
        ResumptionOfferedWithIncompatibleCipherSuite SelectedDifferentCipherSuiteAfterRetry SelectedInvalidPsk
        SelectedTls12UsingTls13VersionExtension SelectedUnofferedApplicationProtocol SelectedUnofferedCertCompression
        SelectedUnofferedCipherSuite SelectedUnofferedCompression SelectedUnofferedKxGroup
        SelectedUnusableCipherSuiteForVersion ServerEchoedCompatibilitySessionId
        ServerHelloMustOfferUncompressedEcPoints ServerNameMustContainOneHostName
        SignedHandshakeWithUnadvertisedSigScheme SignedKxWithWrongAlgorithm TooMuchEarlyDataReceived
        UnexpectedCleartextExtension UnsolicitedEchExtension UnsolicitedEncryptedExtension
        UnsolicitedServerHelloExtension WrongGroupForKeyShare);
    rows.extend(of!(Us, PeerMisbehaved: EarlyDataExtensionWithoutResumption IllegalMiddleboxChangeCipherSpec
        IllegalTlsInnerPlaintext InvalidMaxEarlyDataSize MessageInterleavedWithHandshakeMessage
        OfferedEarlyDataWithOldProtocolVersion RejectedEarlyDataInterleavedWithHandshakeMessage
        ResumptionOfferedWithVariedCipherSuite ResumptionOfferedWithVariedEms SelectedUnofferedPsk
        ServerNameDifferedOnRetry TooManyEmptyFragments TooManyKeyUpdateRequests TooManyRenegotiationRequests
        TooManyWarningAlertsReceived UnsolicitedCertExtension));
    rows
}

fn incompatibility() -> Vec<Row> {
    let mut rows = of!(Rustls, PeerIncompatible: ExtendedMasterSecretExtensionRequired IncorrectCertificateTypeExtension
        KeyShareExtensionRequired NoCertificateRequestSignatureSchemesInCommon NoCipherSuitesInCommon NoKxGroupsInCommon
        NoSignatureSchemesInCommon NullCompressionRequired ServerDoesNotSupportTls12Or13
        ServerTlsVersionIsDisabledByOurConfig SignatureAlgorithmsExtensionRequired SupportedVersionsExtensionRequired
        Tls12NotOffered Tls12NotOfferedOrEnabled UncompressedEcPointsRequired);
    let rejected = PeerIncompatible::ServerRejectedEncryptedClientHello(None);
    rows.extend(one("PeerIncompatible::ServerRejectedEncryptedClientHello", rejected.into(), Rustls));
    rows
}

fn certificates() -> Vec<Row> {
    of!(Rustls, CertificateError: BadEncoding Expired NotValidYet Revoked UnhandledCriticalExtension UnknownIssuer
        UnknownRevocationStatus ExpiredRevocationList BadSignature NotValidForName InvalidPurpose InvalidOcspResponse
        ApplicationVerificationFailure)
}

fn others() -> Vec<Row> {
    let message = Error::InappropriateMessage { expect_types: Vec::new(), got_type: 0.into() };
    let handshake = Error::InappropriateHandshakeMessage { expect_types: Vec::new(), got_type: 0.into() };
    let list = Error::InvalidCertRevocationList(CertRevocationListError::BadSignature);
    [
        one("InappropriateMessage", message, Rustls),
        one("InappropriateHandshakeMessage", handshake, Rustls),
        one("InvalidCertRevocationList", list, Rustls),
        one("NoCertificatesPresented", Error::NoCertificatesPresented, Rustls),
        one("NoApplicationProtocol", Error::NoApplicationProtocol, Rustls),
        one("UnsupportedNameType", Error::UnsupportedNameType, Rustls),
        one("DecryptError", Error::DecryptError, Rustls),
        one("PeerSentOversizedRecord", Error::PeerSentOversizedRecord, Rustls),
        one("EncryptError", Error::EncryptError, Us),
        one("FailedToGetCurrentTime", Error::FailedToGetCurrentTime, Us),
        one("FailedToGetRandomBytes", Error::FailedToGetRandomBytes, Us),
        one("General", Error::General(String::new()), Us),
        one("HandshakeNotComplete", Error::HandshakeNotComplete, Us),
    ]
    .concat()
}

/// rule: secure-10
#[test]
fn the_table_of_alerts_is_the_committed_one() {
    let mut alerts: BTreeMap<u8, (String, [Vec<String>; 2])> = BTreeMap::new();
    for (name, error, by) in [messages(), misbehaviour(), incompatibility(), certificates(), others()].concat() {
        let alert = alert_for(&error).unwrap_or_else(|| panic!("{name} has no alert"));
        let entry = alerts.entry(alert.into()).or_insert_with(|| (format!("{alert:?}"), Default::default()));
        entry.1[usize::from(by == Us)].push(format!("`{name}`"));
    }
    let mut table = String::from("| alert | rustls sends it for | left to us |\n|---|---|---|\n");
    for (number, (name, [rustls, us])) in alerts {
        writeln!(table, "| {name} ({number}) | {} | {} |", rustls.join(", "), us.join(", ")).unwrap();
    }
    check_section("docs/alerts.md", "alerts", &table);
}
