//! The situations in which a TLS session ends, with or without the connection below it. Each situation is a named test
//! over every layer. Users of other TLS libraries have reported these situations.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::time::Duration;

use bowline::testing::{memory_pair_with, raw_tcp_pair, shared_pki, tcp_pair_with, upgraded_over};
use bowline::{
    Error, Phase, Policy, Reason, StartTls, Stream, TcpConnection, TlsConnection, Transport, UpgradableConnection,
    UpgradableTransport, UpgradeError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Ends = (Box<dyn UpgradableTransport>, Box<dyn UpgradableTransport>);

#[derive(Debug, Clone, Copy)]
enum Beneath {
    Tcp,
    Memory,
    Unix,
    Tls,
}

fn boxed<T: Transport>((a, b): (UpgradableConnection<T>, UpgradableConnection<T>)) -> Ends {
    (Box::new(a), Box::new(b))
}

/// Two ends in TLS on top of this layer.
async fn secured(beneath: Beneath, policy: Policy) -> Ends {
    match beneath {
        Beneath::Tcp => boxed(upgraded_over(tcp_pair_with(policy).await.unwrap(), 1).await.unwrap()),
        Beneath::Memory => boxed(upgraded_over(memory_pair_with(policy), 1).await.unwrap()),
        Beneath::Unix => {
            let (a, b) = tokio::net::UnixStream::pair().unwrap();
            let name = || bowline::Address::Unix(None);
            let with = |io| Stream::with(io, name(), name(), policy.clone()).wakes_unlocked().delivers_at_once();
            boxed(upgraded_over((with(a), with(b)), 1).await.unwrap())
        }
        Beneath::Tls => boxed(upgraded_over(tcp_pair_with(policy).await.unwrap(), 2).await.unwrap()),
    }
}

/// Plays a situation over every layer, each side in each place.
async fn over_every_layer<F, Fut>(policy: Policy, situation: F)
where
    F: Fn(Ends) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    for beneath in [Beneath::Tcp, Beneath::Memory, Beneath::Unix, Beneath::Tls] {
        for swapped in [false, true] {
            let (a, b) = secured(beneath, policy.clone()).await;
            let ends = if swapped { (b, a) } else { (a, b) };
            let played = tokio::spawn(situation(ends));
            match tokio::time::timeout(Duration::from_secs(60), played).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    eprintln!("over {beneath:?}, swapped: {swapped}");
                    std::panic::resume_unwind(failure.into_panic());
                }
                Err(_) => panic!("hangs over {beneath:?}, swapped: {swapped}"),
            }
        }
    }
}

fn hasty() -> Policy {
    Policy::default().close_timeout(Duration::from_millis(100))
}

async fn expect(from: &mut (impl tokio::io::AsyncRead + Unpin), expected: &[u8]) {
    let mut data = vec![0; expected.len()];
    from.read_exact(&mut data).await.unwrap();
    assert_eq!(data, expected);
}

fn why(result: Result<(), Error>) -> UpgradeError {
    match result.unwrap_err() {
        Error::Upgrade(error) => error,
        other => panic!("{other:?}"),
    }
}

/// rule: upgrade-9
#[tokio::test]
async fn simple() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        a.write_all(b"in tls").await.unwrap();
        let unwrapping = tokio::spawn(async move { (a.stop_tls().await, a) });
        expect(&mut b, b"in tls").await;
        // The other side sees the end of the session, and answers it.
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        b.stop_tls().await.unwrap();
        let (result, mut a) = unwrapping.await.unwrap();
        result.unwrap();
        a.write_all(b"plain").await.unwrap();
        expect(&mut b, b"plain").await;
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn simultaneous() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
        x.unwrap();
        y.unwrap();
        b.write_all(b"plain").await.unwrap();
        expect(&mut a, b"plain").await;
    })
    .await;
}

/// rule: upgrade-9, close-1
#[tokio::test]
async fn followed_by_close() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
        x.unwrap();
        y.unwrap();
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(x.is_clean() && y.is_clean(), "{x:?} {y:?}");
    })
    .await;
}

/// rule: upgrade-9, half-6
#[tokio::test]
async fn met_by_close() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        // The peer's close_notify is a clean end of the session, whatever the peer intends with it.
        let closing = tokio::spawn(async move { (b.close().await, b) });
        a.stop_tls().await.unwrap();
        assert_eq!(a.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(a.close().await.is_clean());
        closing.await.unwrap();
    })
    .await;
}

/// rule: upgrade-9, end-2
#[tokio::test]
async fn met_by_an_end_without_close_notify() {
    over_every_layer(Policy::default(), |(mut a, b)| async move {
        drop(b);
        let failure = why(a.stop_tls().await);
        let expected = matches!(failure, UpgradeError::Failed(Reason::Truncated(_) | Reason::Reset(_)));
        assert!(expected, "{failure:?}");
        assert!(a.write(b"in the clear?").await.is_err());
    })
    .await;
}

/// rule: upgrade-5, upgrade-9
#[tokio::test]
async fn double() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        while a.tls().is_some() {
            let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
            x.unwrap();
            y.unwrap();
        }
        assert!(matches!(why(a.stop_tls().await), UpgradeError::NotSecure));
        a.write_all(b"nothing has changed").await.unwrap();
        expect(&mut b, b"nothing has changed").await;
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn after_it_was_ignored_for_a_while() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let unwrapping = tokio::spawn(async move { a.stop_tls().await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!unwrapping.is_finished());
        b.stop_tls().await.unwrap();
        unwrapping.await.unwrap().unwrap();
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn data_that_crosses_the_close_notify_is_kept() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let unwrapping = tokio::spawn(async move {
            a.stop_tls().await.unwrap();
            a
        });
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        b.write_all(&[6; 40_000]).await.unwrap();
        b.stop_tls().await.unwrap();
        b.write_all(b"plain").await.unwrap();
        let mut a = unwrapping.await.unwrap();
        expect(&mut a, &[6; 40_000]).await;
        expect(&mut a, b"plain").await;
    })
    .await;
}

/// rule: upgrade-1, upgrade-9
#[tokio::test]
async fn pending_writes_leave_first() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let mut taken = 0;
        while let Ok(result) = tokio::time::timeout(Duration::from_millis(100), a.write(&[5; 9_999])).await {
            taken += result.unwrap();
        }
        let unwrapping = tokio::spawn(async move {
            a.stop_tls().await.unwrap();
            a.write_all(b"plain").await.unwrap();
            a
        });
        expect(&mut b, &vec![5; taken]).await;
        b.stop_tls().await.unwrap();
        expect(&mut b, b"plain").await;
        unwrapping.await.unwrap();
    })
    .await;
}

/// rule: upgrade-9, close-3
#[tokio::test]
async fn timeout() {
    over_every_layer(hasty(), |(mut a, b)| async move {
        assert!(matches!(why(a.stop_tls().await), UpgradeError::Failed(Reason::TimedOut(Phase::Close))));
        assert!(a.read(&mut [0; 1]).await.is_err());
        drop(b);
    })
    .await;
}

/// rule: upgrade-5, half-2
#[tokio::test]
async fn after_a_half_close() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        a.close_write().await.unwrap();
        // FIN has followed the close_notify already, so there is no plaintext to return to.
        assert!(matches!(why(a.stop_tls().await), UpgradeError::SendClosed));
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(x.is_clean() && y.is_clean());
    })
    .await;
}

/// rule: abort-3, upgrade-9
#[tokio::test]
async fn met_by_an_abort() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let unwrapping = tokio::spawn(async move { a.stop_tls().await });
        tokio::task::yield_now().await;
        b.abort();
        assert!(matches!(why(unwrapping.await.unwrap()), UpgradeError::Failed(Reason::Reset(_))));
    })
    .await;
    over_every_layer(Policy::default(), |(mut a, b)| async move {
        let control = a.control();
        let unwrapping = tokio::spawn(async move { a.stop_tls().await });
        tokio::task::yield_now().await;
        control.abort();
        let failure = why(unwrapping.await.unwrap());
        assert!(matches!(failure, UpgradeError::Failed(Reason::Aborted)), "{failure:?}");
        drop(b);
    })
    .await;
}

/// rule: end-1, end-6
#[tokio::test]
async fn close_notify_before_the_handshake_is_done() {
    for server_role in [false, true] {
        let (mut raw, ours) = raw_tcp_pair().await.unwrap();
        let ours = TcpConnection::new(ours, Policy::default()).unwrap();
        let mut connection = match server_role {
            true => TlsConnection::server(ours, &shared_pki().server_tls()).unwrap(),
            false => TlsConnection::client(ours, &shared_pki().client_tls(), "localhost").unwrap(),
        };
        // The peer sends an unencrypted close_notify with level warning, and FIN.
        raw.write_all(&[21, 3, 3, 0, 2, 1, 0]).await.unwrap();
        raw.shutdown().await.unwrap();
        let error = connection.handshake().await.unwrap_err();
        let reason = error.reason().unwrap();
        assert_eq!(reason.phase(), Some(Phase::Handshake), "{reason:?}");
        assert!(matches!(reason, Reason::Tls(_) | Reason::Truncated(_)), "{reason:?}");
    }
}

/// rule: half-3, close-6
#[tokio::test]
async fn twice() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        a.close_write().await.unwrap();
        a.close_write().await.unwrap();
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(x.is_clean() && y.is_clean());
        let (x, y) = (a.close().await, b.close().await);
        assert!(x.is_clean() && y.is_clean());
    })
    .await;
}

/// rule: upgrade-8, upgrade-9
#[tokio::test]
async fn unwrapped_and_wrapped_again_in_the_other_role() {
    over_every_layer(Policy::default(), |(mut a, mut b)| async move {
        let pki = shared_pki();
        let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
        x.unwrap();
        y.unwrap();
        let (x, y) = tokio::join!(
            a.start_tls(StartTls::server(&pki.server_tls())),
            b.start_tls(StartTls::client(&pki.client_tls(), "localhost")),
        );
        x.unwrap();
        y.unwrap();
        a.write_all(b"x").await.unwrap();
        expect(&mut b, b"x").await;
    })
    .await;
}
