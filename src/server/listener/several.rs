//! One listener on several sockets, and several listeners on one port.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::address::IpFamily;

const SOON: Duration = Duration::from_secs(10);

const BOTH: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
];

async fn connect(addr: &Address) -> TcpStream {
    TcpStream::connect(addr.as_inet().unwrap()).await.unwrap()
}

/// `None` if this computer has no IPv6.
async fn on_both(builder: ListenerBuilder) -> Option<Listener> {
    let listener = builder.bind(&BOTH[..]).await.unwrap();
    (listener.local_addrs().len() == 2).then_some(listener)
}

/// rule: tcp-8
#[tokio::test]
async fn every_address_is_listened_on_and_port_0_is_one_port_for_all() {
    let Some(listener) = on_both(Listener::builder()).await else { return };
    let addrs = listener.local_addrs();
    assert_eq!(listener.local_addr(), addrs[0]);
    let ports: Vec<_> = addrs.iter().map(|addr| addr.as_inet().unwrap().port()).collect();
    assert!(ports[0] != 0 && ports[0] == ports[1], "{addrs:?}");
    for addr in &addrs {
        let _client = connect(addr).await;
        assert_eq!(timeout(SOON, listener.accept()).await.unwrap().unwrap().local_addr(), *addr);
    }
}

/// rule: tcp-7: an accept that waits on several sockets, or is dropped, loses nothing; no socket waits for the other.
#[tokio::test]
async fn accepts_of_several_tasks_take_from_all_sockets() {
    let Some(listener) = on_both(Listener::builder()).await else { return };
    let listener = Arc::new(listener);
    let addrs = listener.local_addrs();
    let accepting: Vec<_> = (0..4)
        .map(|_| {
            let listener = Arc::clone(&listener);
            tokio::spawn(async move { listener.accept().await.unwrap().local_addr() })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(timeout(Duration::ZERO, listener.accept()).await);
    let _clients =
        [connect(&addrs[0]).await, connect(&addrs[1]).await, connect(&addrs[0]).await, connect(&addrs[1]).await];
    let mut counts = [0, 0];
    for task in accepting {
        let addr = timeout(SOON, task).await.unwrap().unwrap();
        counts[usize::from(addr == addrs[1])] += 1;
    }
    assert_eq!(counts, [2, 2]);
    // A socket with a long backlog does not keep the other one waiting.
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connect(&addrs[0]).await);
    }
    clients.push(connect(&addrs[1]).await);
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(listener.accept().await.unwrap());
    }
    assert!(begun.iter().any(|incoming| incoming.local_addr() == addrs[1]));
}

/// rule: drain-1
#[tokio::test]
async fn a_drain_closes_every_socket() {
    let Some(listener) = on_both(Listener::builder()).await else { return };
    listener.group().begin_drain();
    assert!(matches!(listener.accept().await, Err(Error::Draining)));
    for addr in listener.local_addrs() {
        assert!(TcpStream::connect(addr.as_inet().unwrap()).await.is_err(), "{addr}");
    }
}

/// rule: tcp-8
#[tokio::test]
async fn a_taken_port_on_one_of_the_addresses_is_an_error_and_leaves_no_socket_open() {
    let Some(taken) = on_both(Listener::builder()).await else { return };
    let port = taken.local_addr().as_inet().unwrap().port();
    let other = Listener::builder().bind((Ipv4Addr::new(127, 0, 0, 2), port)).await.unwrap();
    let addrs = [(Ipv4Addr::new(127, 0, 0, 3), port).into(), (Ipv4Addr::new(127, 0, 0, 2), port).into()];
    match Listener::bind(&addrs[..]).await {
        Err(Error::Bind(error)) => assert_eq!(error.addr, other.local_addr()),
        other => panic!("{other:?}"),
    }
    assert!(TcpStream::connect(addrs[0]).await.is_err());
}

#[tokio::test]
async fn an_address_that_this_computer_does_not_have_is_skipped_unless_it_is_the_only_one() {
    let missing: SocketAddr = (Ipv4Addr::new(192, 0, 2, 1), 0).into();
    let listener = Listener::bind(&[missing, BOTH[0], BOTH[0]][..]).await.unwrap();
    assert_eq!(listener.local_addrs().len(), 1);
    match Listener::bind(missing).await {
        Err(Error::Bind(error)) => assert_eq!(error.addr, missing.into()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_family_can_be_chosen() {
    let listener = Listener::builder().only(IpFamily::V4).bind(&BOTH[..]).await.unwrap();
    assert!(listener.local_addrs().iter().all(|addr| addr.as_inet().unwrap().is_ipv4()));
    let error = Listener::builder().only(IpFamily::V6).bind(BOTH[0]).await.unwrap_err();
    assert!(crate::error::chain(&error).to_string().contains("no IPv6 address"), "{error}");
}

#[tokio::test]
async fn sockets_that_were_made_elsewhere_share_a_listener() {
    let sockets = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let listener = Listener::builder().from_std_all(sockets).unwrap();
    for addr in listener.local_addrs() {
        let _client = connect(&addr).await;
        assert_eq!(timeout(SOON, listener.accept()).await.unwrap().unwrap().local_addr(), addr);
    }
    assert!(Listener::builder().from_std_all([]).is_err());
}

/// rule: tcp-5: the sockets that still listen are closed too, so that no client waits in a backlog that nobody reads.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_loss_of_one_socket_ends_the_listener_for_good() {
    let sockets = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let lost = socket2::Socket::from(sockets[0].try_clone().unwrap());
    let listener = Arc::new(Listener::builder().max_connections(1).from_std_all(sockets).unwrap());
    let others = listener.local_addrs()[1].clone();
    let _waiting = connect(&others).await;
    lost.shutdown(std::net::Shutdown::Read).unwrap();
    let mut open = Vec::new();
    let failed = loop {
        match timeout(SOON, listener.accept()).await.unwrap() {
            Ok(incoming) => open.push(incoming),
            Err(error) => break error,
        }
        open.clear();
    };
    assert!(matches!(failed, Error::Bind(_)), "{failed}");
    for _ in 0..3 {
        let error = timeout(SOON, listener.accept()).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), failed.to_string());
    }
    assert!(TcpStream::connect(others.as_inet().unwrap()).await.is_err());
    assert_eq!(listener.status().accept_errors, if cfg!(bowline_portable) { 10 } else { 1 });
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn workers_share_a_port_and_a_group() {
    let workers = Listener::builder().bind_workers(3, "127.0.0.1:0").await.unwrap();
    assert!(workers.iter().all(|worker| worker.local_addr() == workers[0].local_addr()));
    let mut clients = Vec::new();
    let mut taken = [0; 3];
    for _ in 0..60 {
        clients.push(connect(&workers[0].local_addr()).await);
    }
    for (worker, taken) in workers.iter().zip(&mut taken) {
        while let Ok(incoming) = timeout(Duration::from_millis(50), worker.accept()).await {
            drop(incoming.unwrap());
            *taken += 1;
        }
    }
    assert_eq!(taken.iter().sum::<i32>(), 60);
    assert!(taken.iter().all(|taken| *taken > 0), "{taken:?}");
    assert!(Listener::bind(workers[0].local_addr().as_inet().unwrap()).await.is_err());
    workers[0].group().begin_drain();
    assert!(workers[2].group().is_draining());
}
