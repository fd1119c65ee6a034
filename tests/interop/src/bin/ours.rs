//! The side of bowline.

use std::time::{Duration, Instant};

use bowline::rustls::NamedGroup;
use bowline::{
    ClientTls, Error, Keepalive, Policy, ServerTls, SocketOptions, StartTls, TcpConnection, TlsTransport, TlsVersion,
    Transport, UpgradableConnection, chain, config,
};
use bowline_interop::{Options, Report, Sockets, Step, dialogue, pattern};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

enum Tls {
    Client(ClientTls),
    Server(ServerTls),
}

fn tls(options: &Options) -> Result<Tls, Error> {
    let version = if options.tls13 { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
    // The two builders have the same methods, but no common trait.
    macro_rules! common {
        ($builder:expr) => {{
            let mut builder = $builder.min_version(version).max_version(version).alpn(&options.alpn);
            if options.express {
                builder = builder.express();
            }
            if options.post_quantum {
                builder = builder.key_exchange_groups([NamedGroup::X25519MLKEM768]);
            }
            builder
        }};
    }
    if options.server {
        let mut builder = common!(ServerTls::builder()).identity_pem_files(&options.cert, &options.key);
        if options.client_auth {
            builder = builder.client_ca_pem_file(&options.ca);
        }
        return builder.build().map(Tls::Server);
    }
    let mut builder = common!(ClientTls::builder()).roots_pem_file(&options.ca);
    if options.client_auth {
        builder = builder.identity_pem_files(&options.cert, &options.key);
    }
    builder.build().map(Tls::Client)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let tls = tls(&options)?;
    let sockets = Sockets::open(&options).await;
    for _ in 0..options.connections {
        let mut report = Report::default();
        let tcp = TcpConnection::new(sockets.next().await, policy(&options))?;
        tcp.set_user_timeout(options.user_timeout)?;
        if options.keepalive {
            let second = Duration::from_secs(1);
            tcp.set_keepalive(Some(Keepalive::new().idle(second).interval(second).count(2)))?;
        }
        let begun = Instant::now();
        run(&options, &tls, tcp, &mut report).await;
        report.set("milliseconds", begun.elapsed().as_millis() as u64);
        report.print();
    }
    Ok(())
}

fn policy(options: &Options) -> Policy {
    let mut policy = Policy::default().idle_timeout(options.idle_timeout);
    if let Some(bound) = options.close_timeout {
        policy = policy.close_timeout(bound);
    }
    policy
}

async fn run(options: &Options, tls: &Tls, tcp: TcpConnection, report: &mut Report) {
    let mut connection = UpgradableConnection::new(tcp);
    if options.starttls {
        dialogue(options, &mut connection).await;
    }
    let how = match tls {
        Tls::Client(tls) => StartTls::client(tls, "localhost"),
        Tls::Server(tls) => StartTls::server(tls),
    };
    let begun = if options.plain { Ok(()) } else { connection.start_tls(how).await };
    match begun {
        Ok(()) => {
            if let Err(error) = play(options, &mut connection, report).await {
                report.set("error", chain(&error).to_string());
            }
        }
        Err(error) => report.set("error", chain(&error).to_string()),
    }
    if let Some(facts) = connection.tls() {
        report.set("version", facts.version_name());
        report.set("group", facts.group_name());
        report.set("alpn", facts.alpn.as_deref().map(|name| String::from_utf8_lossy(name).into_owned()));
        report.set("resumed", facts.resumed);
        report.set("peer", facts.peer_chain.first().and_then(config::subject));
    }
    let closed = connection.close().await;
    report.set("reason", closed.reason.name());
    report.set("detail", closed.to_string());
    report.set("unacknowledged", closed.unacknowledged);
}

async fn play(
    options: &Options,
    connection: &mut UpgradableConnection<TcpConnection>,
    report: &mut Report,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for step in &options.script {
        match *step {
            Step::Send(n) => connection.write_all(&pattern(n)).await?,
            Step::Tiny(n) => {
                for _ in 0..n {
                    connection.write_all(b"x").await?;
                    connection.flush().await?;
                }
            }
            Step::Recv(n) => {
                let mut left = n;
                while left > 0 {
                    let most = left.min(buffer.len());
                    let read = connection.read(&mut buffer[..most]).await?;
                    report.receive(&buffer[..read]);
                    if read == 0 {
                        report.set("end", "clean, too early");
                        return Ok(());
                    }
                    left -= read;
                }
            }
            Step::End => loop {
                let read = connection.read(&mut buffer).await?;
                report.receive(&buffer[..read]);
                if read == 0 {
                    report.set("end", "clean");
                    break;
                }
            },
            Step::Half => connection.close_write().await?,
            // After every script, the connection is closed anyway.
            Step::Close => {}
            Step::Abort => connection.abort(),
            Step::Fin | Step::Update => panic!("bowline does not offer {step:?}"),
        }
    }
    Ok(())
}
