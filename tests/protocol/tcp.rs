//! tcp: operations that every layer inherits.

use std::io::ErrorKind;
use std::time::Duration;

use bowline::{Keepalive, Transport as _};

use crate::common::over_all;
use crate::probe::{Probe, run};

/// rule: tcp-1
#[tokio::test]
async fn addresses_are_known_from_the_start_and_stay_readable_after_the_end() {
    over_all(|kind, a, b| async move {
        let (host, peer) = (a.local_addr(), a.peer_addr());
        let (h, p) = (host.clone(), peer.clone());
        let probe = Probe::at("made", move |transport| {
            assert_eq!((transport.local_addr(), transport.peer_addr()), (h.clone(), p.clone()));
            transport.abort();
            assert_eq!((transport.local_addr(), transport.peer_addr()), (h, p));
        });
        let running = run(probe, a);
        assert_eq!((b.peer_addr(), b.local_addr()), (host.clone(), peer.clone()));
        running.task.await.unwrap();
        assert_eq!((running.handle.local_addr(), running.handle.peer_addr()), (host.clone(), peer));
        assert_eq!(host.as_inet().is_some(), kind.has_socket());
        assert_eq!(running.told.names().last().unwrap(), "lost(aborted)");
    })
    .await;
}

/// rule: tcp-2, tcp-3
#[tokio::test]
async fn options_reach_the_socket_through_every_layer_or_fail_without_one() {
    over_all(|kind, a, b| async move {
        let _b = b;
        let control = a.control();
        let probe = Probe::at("made", move |transport| {
            if !kind.has_socket() {
                assert_eq!(transport.nodelay().unwrap_err().kind(), ErrorKind::Unsupported);
                return transport.abort();
            }
            assert!(transport.nodelay().unwrap(), "on by default");
            transport.set_nodelay(false).unwrap();
            assert!(!transport.nodelay().unwrap());
            let wanted = Keepalive::new().idle(Duration::from_secs(33)).interval(Duration::from_secs(7)).count(4);
            transport.set_keepalive(Some(wanted)).unwrap();
            assert_eq!(transport.keepalive().unwrap(), Some(wanted));
            transport.set_send_buffer_size(64 << 10).unwrap();
            transport.set_recv_buffer_size(64 << 10).unwrap();
            let (send, recv) = transport.buffer_sizes().unwrap();
            assert!(send >= 64 << 10 && recv >= 64 << 10);
            if cfg!(target_os = "linux") {
                transport.set_user_timeout(Some(Duration::from_secs(9))).unwrap();
                assert_eq!(transport.user_timeout().unwrap(), Some(Duration::from_secs(9)));
            }
            transport.abort();
            assert!(transport.set_nodelay(true).is_err());
        });
        let running = run(probe, a);
        running.task.await.unwrap();
        assert_eq!(running.told.names().last().unwrap(), "lost(aborted)");
        assert!(control.is_ended());
    })
    .await;
}
