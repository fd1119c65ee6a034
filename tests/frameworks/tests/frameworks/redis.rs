//! redis over a connection, by the lines of docs/frameworks.md, with a Redis server that has TLS.

use std::process::Stdio;
use std::time::Instant;

use bowline::Lingering;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::PATIENCE;
use crate::common::{Certs, has, program};
use crate::server::free_port;

/// A server with TLS on a free port, without files; `None` if Redis is not installed. It is killed on drop.
async fn server(certs: &Certs) -> Option<(Child, u16)> {
    if !has("redis-server") {
        eprintln!("note: skipped, because redis-server is not installed (Debian: redis-server)");
        return None;
    }
    let port = free_port();
    let mut command = program("redis-server", &["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args([
        "--port",
        "0",
        "--tls-port",
        &port.to_string(),
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "secret",
    ]);
    command.arg("--tls-cert-file").arg(certs.path("server.pem")).arg("--tls-key-file").arg(certs.path("server.key"));
    command.arg("--tls-ca-cert-file").arg(certs.path("ca.pem"));
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < until, "redis-server does not listen");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Some((child, port))
}

#[tokio::test]
async fn redis_takes_a_connection() {
    let certs = Certs::new();
    let Some((_server, port)) = server(&certs).await else { return };
    let info = RedisConnectionInfo::default().set_password("secret");

    let io = Lingering::new(certs.connect(port).await);
    let control = io.control();
    let (mut client, driver) =
        MultiplexedConnection::new_with_config(&info, io, AsyncConnectionConfig::new()).await.unwrap();
    let driver = tokio::spawn(driver);

    let large = "x".repeat(1_000_000);
    let (): () = client.set("large", &large).await.unwrap();
    let mut others: Vec<_> = (0..8).map(|_| client.clone()).collect();
    for other in &mut others {
        let answer: String = other.get("large").await.unwrap();
        assert_eq!(answer, large);
    }
    let count: i64 =
        redis::pipe().incr("n", 1).ignore().incr("n", 1).query_async(&mut client).await.map(|v: (i64,)| v.0).unwrap();
    assert_eq!(count, 2);

    // The connection is closed when the last client is dropped. Redis does not answer our close_notify.
    drop((client, others));
    driver.await.unwrap();
    let report = control.report().expect("it has ended");
    assert!(report.marker_sent(), "{report}");
}
