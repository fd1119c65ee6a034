//! The test doubles for protocols return the same results as the real transports.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::protocol::{AfterRead, CallbackResult, Conn, Handle, Producer, Protocol, PushProducer};
use bowline::testing::{Call, Duet, Recorder, shared_pki};
use bowline::{End, Error, Phase, Reason, SocketOptions, StartTls, UpgradeError};

/// Records its callbacks, and echoes.
#[derive(Clone, Default)]
struct Echo {
    told: Arc<Mutex<Vec<String>>>,
    first: &'static [u8],
}

impl Echo {
    fn new(first: &'static [u8]) -> Self {
        Self { first, ..Self::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.note("made");
        transport.write(self.first);
        Ok(())
    }

    fn handshake_completed(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.note(format!("secured {}", transport.tls().unwrap().version_name()));
        Ok(())
    }

    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        self.note(String::from_utf8_lossy(data));
        if self.first.is_empty() {
            transport.write(data);
        }
        Ok(data.len())
    }

    fn read_closed(&mut self, _: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        self.note(format!("{end:?}"));
        Ok(AfterRead::Close)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.note(reason.name());
    }
}

#[test]
fn a_duet_delivers_only_the_bytes_that_the_test_delivers() {
    let (asking, echoing) = (Echo::new(b"question"), Echo::default());
    let mut duet = Duet::new(asking.clone(), echoing.clone());
    assert_eq!((asking.told(), echoing.told()), (vec!["made".into()], vec!["made".into()]));
    assert_eq!(duet.deliver_to_b(5), 5);
    assert_eq!(duet.deliver_to_b(100), 3);
    assert_eq!(echoing.told(), ["made", "quest", "ion"]);
    assert_eq!(duet.deliver_to_a(1), 1);
    duet.deliver_all();
    assert_eq!(asking.told(), ["made", "q", "uestion"]);

    duet.a().close();
    duet.deliver_all();
    assert_eq!(echoing.told()[3..], ["Clean", "closed"]);
    assert!(duet.ended().0.unwrap().is_clean() && duet.ended().1.unwrap().is_clean());
}

#[test]
fn a_duet_in_tls_is_the_same_conversation() {
    let (asking, echoing) = (Echo::new(b"secret"), Echo::default());
    let mut duet = Duet::tls(asking.clone(), echoing.clone());
    duet.deliver_all();
    assert_eq!(asking.told(), ["made", "secured TLSv1.3", "secret"]);
    assert_eq!(echoing.told(), ["made", "secured TLSv1.3", "secret"]);
    duet.b().abort();
    duet.deliver_all();
    assert_eq!(asking.told()[3..], ["reset"]);
    assert_eq!(echoing.told()[3..], ["aborted"]);
}

/// rule: close-3
#[test]
fn a_close_waits_for_a_silent_peer_until_its_bound() {
    let mut duet = Duet::new(Echo::default(), Echo::default());
    duet.a().close();
    duet.settle();
    duet.advance(Duration::from_millis(9_999));
    assert!(duet.ended().0.is_none());
    duet.advance(Duration::from_millis(1));
    assert!(matches!(duet.ended().0, Some(Reason::TimedOut(Phase::Close))));
}

/// rule: secure-5
#[test]
fn a_handshake_that_is_not_delivered_times_out() {
    let mut duet = Duet::tls(Echo::default(), Echo::default());
    duet.deliver_to_b(10);
    duet.advance(Duration::from_secs(30));
    assert!(matches!(duet.ended().1, Some(Reason::TimedOut(Phase::Handshake))));
}

struct Nobody;

impl PushProducer for Nobody {
    fn pause(&mut self) {}
    fn resume(&mut self) {}
    fn stop(&mut self) {}
}

/// rule: write-4, flow-1, upgrade-5, close-5
#[test]
fn a_recorder_notes_all_and_answers_as_a_transport_does() {
    let mut transport = Recorder::new();
    let server_tls = shared_pki().server_tls();
    transport.write(b"one");
    transport.write_sequence(&mut [b"two".as_slice(), b"three"].into_iter());
    transport.set_nodelay(false).unwrap();
    assert!(!transport.nodelay().unwrap());
    transport.register_producer(Producer::push(Nobody)).unwrap();
    assert!(matches!(transport.register_producer(Producer::push(Nobody)), Err(Error::Producer)));
    assert!(matches!(transport.stop_tls(), Err(Error::Upgrade(UpgradeError::NotSecure))));
    transport.close();
    transport.write(b"the producer's last");
    transport.unregister_producer();
    transport.write(b"too late");
    let refused = transport.start_tls(StartTls::server(&server_tls));
    assert!(matches!(refused, Err(Error::Upgrade(UpgradeError::SendClosed))));

    assert_eq!(transport.written(), b"onetwothreethe producer's last");
    assert_eq!(transport.dropped(), 8);
    let expected = [
        Call::Write(b"one".to_vec()),
        Call::WriteSequence(vec![b"two".to_vec(), b"three".to_vec()]),
        Call::SetNodelay(false),
        Call::RegisterPush,
        Call::RegisterPush,
        Call::StopTls,
        Call::Close,
        Call::Write(b"the producer's last".to_vec()),
        Call::UnregisterProducer,
        Call::Write(b"too late".to_vec()),
        Call::StartTls,
    ];
    assert_eq!(transport.calls(), expected);
}

#[test]
fn a_recorder_notes_calls_of_a_handle_when_it_obeys() {
    let mut transport = Recorder::new();
    let handle: Handle = transport.handle();
    handle.write("from elsewhere");
    handle.pause_reading();
    handle.close();
    assert_eq!(transport.calls(), []);
    transport.run_commands();
    assert_eq!(transport.calls(), [Call::Write(b"from elsewhere".to_vec()), Call::PauseReading, Call::Close]);
    assert!(transport.is_reading_paused() && !transport.is_secure());
}
