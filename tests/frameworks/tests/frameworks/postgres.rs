//! tokio-postgres over TLS, with PostgreSQL.

use bowline::postgres::MakeTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::common::{Certs, SOON};
use crate::postgres_server::{Postgres, programs};

const PASSWORD: &str = "correct horse";

fn config(port: u16) -> String {
    let at = format!("host=localhost hostaddr=127.0.0.1 user=postgres dbname=postgres password='{PASSWORD}'");
    format!("{at} port={port} sslmode=require channel_binding=require")
}

/// rule: secure-15
#[tokio::test]
async fn a_client_of_postgresql_requires_channel_binding() {
    let Some(bin) = programs() else {
        return eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    };
    let certs = Certs::new();
    let postgres = Postgres::start(&bin, &certs.pki.server(&["localhost"]), PASSWORD).await;
    let make = MakeTls::new(certs.client_tls(&[]));
    let (client, connection) = tokio_postgres::connect(&config(postgres.addr.port()), make).await.unwrap();
    let connection = tokio::spawn(connection);
    let row = client.query_one("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "TLSv1.3");
    let size: i64 = client.query_one("SELECT sum(length(repeat('x', 1000000)))::bigint", &[]).await.unwrap().get(0);
    assert_eq!(size, 1_000_000);
    drop(client);
    connection.await.unwrap().unwrap();

    // A client that trusts another CA must refuse the server.
    let make = MakeTls::new(Certs::new().client_tls(&[]));
    let error = tokio_postgres::connect(&config(postgres.addr.port()), make).await.err().unwrap();
    assert!(bowline::chain(&error).to_string().contains("certificate"), "{error:?}");
}

/// Plaintext that somebody adds to the server's answer to the request for TLS is not taken for the server's.
///
/// rule: upgrade-2
#[tokio::test]
async fn plaintext_after_the_answer_of_postgresql_ends_the_connection() {
    let certs = Certs::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let injecting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        // One segment has the answer that TLS is accepted, and an injected plaintext message that the login has
        // succeeded.
        stream.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let make = MakeTls::new(certs.client_tls(&[]));
    let error = timeout(SOON, tokio_postgres::connect(&config(port), make)).await.unwrap().err().unwrap();
    assert!(bowline::chain(&error).to_string().contains("TLS"), "{error:?}");
    injecting.await.unwrap();
}
