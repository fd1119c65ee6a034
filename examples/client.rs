//! A TLS client: sends one line, ends its half of the connection, and reads the answer to its end.

use bowline::{ClientTls, Connector, Error, TlsConnection, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let tls = ClientTls::builder().roots_pem_file("certs/ca.pem").build()?;
    let tcp = Connector::new().connect("localhost", 7001).await?;
    let mut connection = TlsConnection::connect(tcp, &tls, "localhost").await?;
    connection.write_all(b"does it hold?\n").await?; // no flush is needed
    connection.close_write().await?; // close_notify, then FIN; the answer is still to come
    let mut answer = String::new();
    (&mut connection).take(1 << 20).read_to_string(&mut answer).await?; // a truncated answer is an error
    print!("{answer}");
    println!("{}", connection.close().await);
    Ok(())
}
