//! A client that upgrades its connection to TLS, with the console of this package as the server (`--starttls` port).

use bowline::{ClientTls, Connector, Error, StartTls, Transport, UpgradableConnection};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let tls = ClientTls::builder().roots_pem_file("certs/ca.pem").build()?;
    let tcp = Connector::new().connect("localhost", 7002).await?;
    let mut connection = UpgradableConnection::new(tcp);
    let mut line = String::new();
    (&mut connection).take(1024).read_line(&mut line).await?; // 220 bowline console starttls
    connection.write_all(b"STARTTLS\r\n").await?;
    (&mut connection).take(1024).read_line(&mut line).await?; // 220 go ahead
    connection.start_tls(StartTls::client(&tls, "localhost")).await?; // bytes that were injected before TLS are an error
    connection.write_all(b"SUM\r\nabc").await?;
    connection.close_write().await?;
    let mut answer = String::new();
    (&mut connection).take(1 << 20).read_to_string(&mut answer).await?;
    print!("{answer}");
    println!("{}", connection.close().await);
    Ok(())
}
