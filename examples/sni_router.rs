//! Forwards TLS connections by the host name that the client asks for, without decryption: each server has its own key,
//! and does the handshake with the client itself.
//!
//! ```text
//! cargo run --example sni_router -- 127.0.0.1:8443 one.example=127.0.0.1:9001 two.example=127.0.0.1:9002
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bowline::rustls::AlertDescription;
use bowline::{Connector, Error, Incoming, Listener, chain, relay};

type Routes = HashMap<String, SocketAddr>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: sni_router ADDRESS NAME=ADDRESS...";
    let listener = Listener::bind(args.next().ok_or(usage)?).await?;
    let route = |arg: String| arg.split_once('=').and_then(|(name, to)| Some((name.to_owned(), to.parse().ok()?)));
    let routes: Option<Routes> = args.map(route).collect();
    let routes = Arc::new(routes.ok_or(usage)?);
    println!("listening {}", listener.local_addr());
    loop {
        let (incoming, routes) = (listener.accept().await?, Arc::clone(&routes));
        tokio::spawn(async move {
            match forward(incoming, &routes).await {
                Ok(how) => println!("{how}"),
                Err(error) => println!("{}", chain(&error)),
            }
        });
    }
}

async fn forward(mut incoming: Incoming, routes: &Routes) -> Result<String, Error> {
    let hello = incoming.client_hello().await?;
    let Some(to) = hello.server_name().and_then(|name| routes.get(name)) else {
        return Ok(incoming.refuse(AlertDescription::UnrecognisedName).await.to_string());
    };
    let mut server = Connector::new().connect_addr(*to).await?;
    Ok(relay(&mut incoming.into_tcp(), &mut server).await.to_string())
}
