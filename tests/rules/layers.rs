//! How many TLS sessions a connection may have.

use bowline::testing::{memory_pair_with, shared_pki, tcp_pair_with};
use bowline::{
    Blame, Error, Policy, StartTls, TlsTransport, Transport, UpgradableConnection, UpgradableTransport, UpgradeError,
};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, ended_together, expect, pattern, settle};

type Ends = (Box<dyn UpgradableTransport>, Box<dyn UpgradableTransport>);

fn boxed<T: Transport>((a, b): (T, T)) -> Ends {
    (Box::new(UpgradableConnection::new(a)), Box::new(UpgradableConnection::new(b)))
}

/// Two ends in plaintext, over TCP and in memory.
async fn ends(max_layers: usize) -> [Ends; 2] {
    let policy = Policy::default().max_layers(max_layers).handshake_timeout(None).close_timeout(None);
    [boxed(tcp_pair_with(policy.clone()).await.unwrap()), boxed(memory_pair_with(policy))]
}

async fn upgrade((a, b): &mut Ends) {
    let (client, server) = (shared_pki().client_tls(), shared_pki().server_tls());
    let (x, y) =
        tokio::join!(a.start_tls(StartTls::client(&client, "localhost")), b.start_tls(StartTls::server(&server)));
    x.and(y).unwrap();
}

/// Sends this many bytes in each direction.
async fn exchange((a, b): Ends, bytes: usize) -> Ends {
    let (there, back) = (pattern(bytes), pattern(bytes));
    let (mut a_in, mut a_out) = tokio::io::split(a);
    let (mut b_in, mut b_out) = tokio::io::split(b);
    tokio::join!(
        async { a_out.write_all(&there).await.unwrap() },
        async { b_out.write_all(&back).await.unwrap() },
        expect(&mut a_in, &back),
        expect(&mut b_in, &there),
    );
    (a_in.unsplit(a_out), b_in.unsplit(b_out))
}

async fn refused(end: &mut Box<dyn UpgradableTransport>, expected: usize) {
    let asked = end.may_start_tls().unwrap_err();
    let done = end.start_tls(StartTls::server(&shared_pki().server_tls())).await.unwrap_err();
    for error in [asked, done] {
        assert_eq!(error.blame(), Blame::Us);
        let Error::Upgrade(UpgradeError::TooManyLayers { limit }) = error else { panic!("{error:?}") };
        assert_eq!(limit, expected);
    }
}

/// rule: upgrade-12, upgrade-5
#[tokio::test]
async fn layers_up_to_the_bound_work_and_one_more_changes_nothing() {
    for mut ends in ends(Policy::default().get_max_layers()).await {
        bounded("one pair", async move {
            for _ in 0..4 {
                ends.0.may_start_tls().unwrap();
                upgrade(&mut ends).await;
                settle(&mut ends.0, &mut ends.1).await;
            }
            refused(&mut ends.0, 4).await;
            refused(&mut ends.1, 4).await;
            let (mut a, mut b) = exchange(ends, 1_000_000).await;
            // With one layer fewer, an upgrade is allowed again.
            let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
            x.and(y).unwrap();
            let mut ends = (a, b);
            upgrade(&mut ends).await;
            let (x, y) = tokio::join!(ends.0.close(), ends.1.close());
            assert!(ended_together(&x, &y) && x.layers.len() == 5, "{x:?} {y:?}");
        })
        .await;
    }
}

/// rule: upgrade-12
#[tokio::test]
async fn a_limit_of_no_layers_refuses_every_upgrade() {
    for (mut a, mut b) in ends(0).await {
        refused(&mut a, 0).await;
        settle(&mut a, &mut b).await;
        assert!(!a.is_secure());
    }
}

/// A task has a budget of 128 units: a stack that takes one unit for each session never reaches its socket.
///
/// rule: upgrade-12
#[tokio::test]
async fn more_layers_than_a_task_has_budget_still_move() {
    let [mut ends, _] = ends(130).await;
    bounded("tcp", async move {
        for _ in 0..130 {
            upgrade(&mut ends).await;
        }
        refused(&mut ends.0, 130).await;
        let (mut a, mut b) = exchange(ends, 50_000).await;
        settle(&mut a, &mut b).await;
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&x, &y), "{x}; {y}");
    })
    .await;
}
