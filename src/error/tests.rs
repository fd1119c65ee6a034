//! The texts of errors. No error repeats the text of its source.

use super::*;
use crate::address::Address;

/// rule: end-1
#[test]
fn a_reason_survives_the_trip_through_io_error_and_back() {
    for reason in all_reasons() {
        let back = Reason::from_io(io::Error::from(reason.clone()), Phase::Connect);
        assert_eq!(back.to_string(), reason.to_string());
        assert_eq!(back.name(), reason.name());
        assert_eq!(back.phase(), reason.phase());
    }
}

/// rule: end-1
#[test]
fn the_reason_inside_a_failed_upgrade_survives_the_trip_too() {
    let failed = Error::from(UpgradeError::Failed(Reason::Reset(Phase::Handshake)));
    let back = Reason::from_io(io::Error::from(failed), Phase::Open);
    assert!(matches!(back, Reason::Reset(Phase::Handshake)), "{back:?}");
}

#[test]
fn a_protocol_that_failed_because_of_the_peer_blames_the_peer() {
    let blame = |error: Arc<dyn StdError + Send + Sync>| Reason::Protocol(error).blame();
    assert_eq!(blame(Arc::new(UpgradeError::Leftover { count: 3 })), Blame::Peer);
    assert_eq!(Reason::from(Error::from(UpgradeError::Leftover { count: 3 })).blame(), Blame::Peer);
    assert_eq!(blame(Arc::new(io::Error::new(io::ErrorKind::InvalidData, "a line without end"))), Blame::Peer);
    assert_eq!(blame(Arc::new(io::Error::other("the disk is full"))), Blame::Us);
    assert_eq!(Reason::from(Error::from(UpgradeError::InProgress)).blame(), Blame::Us);
}

#[test]
fn errors_name_whose_fault_it_is() {
    assert_eq!(Error::SendClosed.blame(), Blame::Us);
    assert_eq!(Error::from(io::Error::from(io::ErrorKind::ConnectionReset)).blame(), Blame::Peer);
    assert_eq!(Error::from(io::Error::from(Reason::TimedOut(Phase::Close))).blame(), Blame::Time);
}

fn disk() -> Arc<io::Error> {
    Arc::new(io::Error::other("disk on fire"))
}

/// An error of an application with a cause of its own.
#[derive(Debug)]
struct Mine(io::Error);

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mine")
    }
}

impl StdError for Mine {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// One reason of each variant. A new variant that is missing here fails the test.
fn all_reasons() -> Vec<Reason> {
    let tls = TlsError {
        phase: Phase::Handshake,
        error: rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
        alert_sent: Some(rustls::AlertDescription::UnknownCA),
        not_tls: None,
    };
    let all = vec![
        Reason::Closed,
        Reason::Unconfirmed,
        Reason::Truncated(Phase::Open),
        Reason::Reset(Phase::Handshake),
        Reason::Aborted,
        Reason::TimedOut(Phase::Close),
        tls.into(),
        Reason::KeyExhausted,
        Reason::Dropped,
        Reason::Protocol(Arc::new(Mine(io::Error::other("disk on fire")))),
        Reason::Io(disk()),
        Reason::Io(Arc::new(io::Error::other(Mine(io::Error::other("disk on fire"))))),
    ];
    let next = |reason: &Reason| match reason {
        Reason::Closed => 1,
        Reason::Unconfirmed => 2,
        Reason::Truncated(_) => 3,
        Reason::Reset(_) => 4,
        Reason::Aborted => 5,
        Reason::TimedOut(_) => 6,
        Reason::Tls(_) => 7,
        Reason::Protocol(_) => 8,
        Reason::Io(_) => 9,
        Reason::KeyExhausted => 10,
        Reason::Dropped => 11,
    };
    assert!((1..=11).all(|n| all.iter().any(|reason| next(reason) == n)));
    all
}

fn connect_errors() -> Vec<ConnectError> {
    let attempt = |port: u16, error: &str| ConnectAttempt {
        addr: std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
        error: Arc::new(io::Error::other(error.to_owned())),
    };
    let made = |attempts, resolve, timed_out| ConnectError { target: "host:1".into(), attempts, resolve, timed_out };
    let one = ConnectError { target: "127.0.0.1:1".into(), ..made(vec![attempt(1, "refused")], None, false) };
    vec![
        one,
        made(vec![attempt(1, "refused"), attempt(2, "refused")], None, false),
        made(vec![attempt(1, "unreachable"), attempt(2, "refused")], None, true),
        made(vec![], Some(disk()), false),
        made(vec![], None, true),
    ]
}

fn all_errors() -> Vec<Error> {
    let problems = [
        ConfigProblem::Unreadable(disk()),
        ConfigProblem::BadPem("no END line".into()),
        ConfigProblem::NoCertificate,
        ConfigProblem::NoKey,
        ConfigProblem::EncryptedKey,
        ConfigProblem::WrongPassphrase,
        ConfigProblem::SeveralKeys { first: 1 },
        ConfigProblem::UnusableKey("odd".into()),
        ConfigProblem::KeyMismatch,
        ConfigProblem::ChainOrder { position: 2 },
        ConfigProblem::NoIdentity,
        ConfigProblem::BadCertificate("odd".into()),
        ConfigProblem::BadRevocationList("odd".into()),
        ConfigProblem::NoRoots,
        ConfigProblem::NoProvider,
        ConfigProblem::Contradiction("odd".into()),
        ConfigProblem::BadServerName("odd".into()),
    ];
    let config =
        problems.map(|problem| ConfigError { file: Some("key.pem".into()), line: Some(1), problem, found: None });
    let bind = BindError { addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(), error: disk() };
    let endpoint = EndpointError { input: "x".into(), at: 0, problem: "no kind".into() };
    let mut all = vec![Error::SendClosed, Error::Unsupported("socket"), Error::Producer, Error::Draining];
    all.extend(all_reasons().into_iter().map(Error::Ended));
    all.extend(all_reasons().into_iter().map(|reason| UpgradeError::Failed(reason).into()));
    let upgrades = [
        UpgradeError::InProgress,
        UpgradeError::SendClosed,
        UpgradeError::PeerEnded,
        UpgradeError::NotSecure,
        UpgradeError::NoEnd { bytes: 3 },
        UpgradeError::Leftover { count: 3 },
        UpgradeError::TooManyLayers { limit: 4 },
        UpgradeError::Dialogue(DialogueError::NotOffered),
    ];
    all.extend(upgrades.map(Error::Upgrade));
    let of_session = [
        SessionError::NotSecured,
        SessionError::UnreadableCertificate,
        SessionError::TooManyNames { limit: 3 },
        SessionError::NoServerCertificate,
        SessionError::NoHashFunction { algorithm: "Ed25519".into() },
        SessionError::UnsupportedHash("SHA-224"),
        SessionError::NoExtendedMasterSecret,
        SessionError::UnknownMasterSecret,
        SessionError::NoExporter,
        SessionError::BadExport("no bytes"),
        SessionError::Export(rustls::Error::HandshakeNotComplete),
    ];
    all.extend(of_session.map(Error::Session));
    all.extend(config.map(Error::Config));
    all.extend(connect_errors().into_iter().map(Error::Connect));
    all.extend([bind.into(), endpoint.into()]);
    all.push(Error::Proxy(ProxyError::Missing { found: b"GET /".to_vec() }));
    let next = |error: &Error| match error {
        Error::Ended(_) => 1,
        Error::SendClosed => 2,
        Error::Unsupported(_) => 3,
        Error::Producer => 4,
        Error::Upgrade(_) => 5,
        Error::Config(_) => 6,
        Error::Connect(_) => 7,
        Error::Bind(_) => 8,
        Error::Endpoint(_) => 9,
        Error::Draining => 10,
        Error::Session(_) => 11,
        Error::Proxy(_) => 12,
    };
    assert!((1..=12).all(|n| all.iter().any(|error| next(error) == n)));
    all
}

/// Checks that no text contains the text of its source. Returns the chain.
fn told_once(error: &(dyn StdError + 'static)) -> String {
    let mut above = error;
    while let Some(source) = above.source() {
        assert!(!above.to_string().contains(&source.to_string()), "twice: {above}: {source}");
        above = source;
    }
    chain(error).to_string()
}

/// rule: end-1
#[test]
fn no_error_repeats_its_source_and_the_chain_survives_io_error() {
    for error in all_errors() {
        let told = told_once(&error);
        let through_io = io::Error::from(error.clone());
        assert_eq!(told_once(&through_io), told);
        assert_eq!(told_once(&Error::from(through_io)), told);
    }
    all_reasons().iter().for_each(|reason| drop(told_once(reason)));
}

/// rule: end-1
#[test]
fn a_chain_includes_the_cause() {
    let told = |error: Error| chain(&error).to_string();
    let [one, same, several, unresolved, late] = &connect_errors()[..] else { panic!() };
    assert_eq!(told(one.clone().into()), "cannot connect to 127.0.0.1:1: refused");
    assert_eq!(told(same.clone().into()), "cannot connect to host:1: 127.0.0.1:1, 127.0.0.1:2: refused");
    let several = told(several.clone().into());
    assert_eq!(several, "cannot connect to host:1 in time: 127.0.0.1:1: unreachable; 127.0.0.1:2: refused");
    assert_eq!(told(unresolved.clone().into()), "cannot connect to host:1: disk on fire");
    assert_eq!(told(late.clone().into()), "cannot connect to host:1: timed out");
    let tls = all_reasons().into_iter().find(|reason| matches!(reason, Reason::Tls(_))).unwrap();
    let said = "TLS failed in phase handshake (alert UnknownCA sent): invalid peer certificate: UnknownIssuer";
    assert_eq!(told(tls.into()), said);
    assert_eq!(told(Reason::Protocol(Arc::new(Mine(io::Error::other("disk on fire")))).into()), "mine: disk on fire");
}

/// rule: end-1
#[test]
fn a_chain_leaves_out_a_text_that_another_crate_repeats() {
    #[derive(Debug)]
    struct Repeats(Mine);
    impl fmt::Display for Repeats {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "repeats: {}", self.0)
        }
    }
    impl StdError for Repeats {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }
    let reason = Reason::Protocol(Arc::new(Repeats(Mine(io::Error::other("disk on fire")))));
    assert_eq!(chain(&reason).to_string(), "repeats: mine: disk on fire");
}

/// rule: tcp-11
#[test]
fn an_error_escapes_the_control_characters_of_a_peer() {
    // rustls prints the names of a certificate unescaped.
    let certificate = rustls::CertificateError::NotValidForNameContext {
        expected: rustls::pki_types::ServerName::try_from("a.example").unwrap(),
        presented: vec!["DnsName(\"\x1b[31m\")".into(), "DnsName(\"\u{9b}2J\u{202e}\")".into()],
    };
    let tls = TlsError { phase: Phase::Handshake, error: certificate.into(), alert_sent: None, not_tls: None };
    let words = "554 \x1b]0;title\x07\r\n\u{9b}2J\u{202e}";
    let path = std::path::PathBuf::from(words);
    let address = Address::Unix(Some(path));
    let attempt = ConnectAttempt { addr: address.clone(), error: Arc::new(io::Error::other(words)) };
    let connect =
        ConnectError { target: "a".into(), attempts: vec![attempt.clone(), attempt], resolve: None, timed_out: false };
    let errors: Vec<Error> = vec![
        Reason::from(tls).into(),
        Reason::Protocol(Arc::new(io::Error::other(words))).into(),
        Reason::Io(Arc::new(io::Error::other(words))).into(),
        UpgradeError::Failed(Reason::Protocol(Arc::new(io::Error::other(words)))).into(),
        connect.into(),
        BindError { addr: address.clone(), error: Arc::new(io::Error::other(words)) }.into(),
    ];
    let mut told = vec![address.to_string(), format!("{address:?}"), Address::Other(words.into()).to_string()];
    for error in &errors {
        told.extend([error.to_string(), chain(error).to_string(), format!("{error:?}")]);
        told.push(chain(&io::Error::from(error.clone())).to_string());
    }
    for text in told {
        assert!(!text.chars().any(crate::escape::is_unprintable), "{text:?}");
    }
}
