//! Terminates TLS in front of a plaintext service, or adds TLS in front of a TLS service, from the first byte or with
//! STARTTLS. It forwards every end of a connection as the same kind of end.
//!
//! ```text
//! cargo run --example terminator -- --listen tls:8443:cert=chain.pem:key=key.pem --connect tcp:127.0.0.1:8080
//! cargo run --example terminator -- --listen tcp:127.0.0.1:2525 --connect starttls:mail.example:587 --connect-starttls smtp
//! ```

mod args;
mod log;
mod serve;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/descriptors.rs"]
mod descriptors;
#[path = "../common/lines.rs"]
mod lines;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bowline::{
    DrainGroup, EndpointConnector, EndpointIncoming, EndpointListener, Error, Listener, ListenerBuilder, Policy,
    Truncation, chain,
};
use tokio::sync::mpsc;

use crate::args::{Args, Options};
use crate::log::Log;

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("terminator"));
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let log = Log::new(args.options.json);
    // Runs on a worker thread. On the main thread, every accepted connection would wake one thread to accept it and
    // another one to serve it.
    let ended = runtime.block_on(runtime.spawn(run(args, log.clone())));
    log.finish();
    let ended = ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("terminator: {}", chain(&error));
    if matches!(error, Error::Config(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The state that every connection needs.
struct Terminator {
    args: Args,
    connector: EndpointConnector,
    log: Log,
    /// The connections on both sides.
    group: DrainGroup,
}

/// Listens, serves until a signal comes, and drains.
async fn run(args: Args, log: Log) -> Result<(), Error> {
    let mut signals = Signals::new();
    let connector = args.connect.connector(policy(&args.options))?;
    let group = DrainGroup::new();
    let listener = args.listen.listen_with(front(&args.options).group(&group)).await?;
    for warning in listener.server_tls().map(|tls| tls.warnings()).unwrap_or_default() {
        eprintln!("terminator: {warning}");
    }
    log.line(format!("listening {} {}", args.listen.kind(), listener.local_addr()));
    log.line("ready".into());
    let patience = args.options.drain_timeout;
    let terminator = Arc::new(Terminator { args, connector, log, group: group.clone() });
    let draining = async {
        signals.next().await;
        // Connections that are still open then are aborted, so that no peer takes its data for complete.
        tokio::select! {
            _ = group.drain(patience) => {}
            () = signals.next() => {
                group.drain(Duration::ZERO).await;
            }
        }
        Ok(())
    };
    tokio::try_join!(serve(&listener, &terminator), draining).map(|_| ())
}

/// Accepts connections until the drain starts, and returns when the last connection has ended and is logged.
async fn serve(listener: &EndpointListener, terminator: &Arc<Terminator>) -> Result<(), Error> {
    // Every connection's task holds a sender, and nothing is sent: the channel ends with the last of them. A `JoinSet` would
    // wake this task for each connection that ends.
    let (served, mut all_served) = mpsc::channel::<()>(1);
    let mut number = 0;
    loop {
        match accept(listener, terminator).await {
            Ok(incoming) => {
                number += 1;
                tokio::spawn(serve::serve(incoming, number, Arc::clone(terminator), served.clone()));
            }
            Err(Error::Draining) => break,
            Err(error) => return Err(error),
        }
    }
    drop(served);
    all_served.recv().await;
    Ok(())
}

/// Waits for space in the log, then accepts the next connection. A drain does not wait for that space.
async fn accept(listener: &EndpointListener, terminator: &Terminator) -> Result<EndpointIncoming, Error> {
    tokio::select! {
        () = terminator.log.room() => {}
        () = terminator.group.draining() => {}
    }
    listener.accept().await
}

fn front(options: &Options) -> ListenerBuilder {
    let mut policy = policy(options);
    if options.tolerate_truncation {
        policy = policy.truncation(Truncation::Tolerate);
    }
    let max = max_connections(options.max_connections, descriptors::raise_limit());
    let builder = Listener::builder().policy(policy).max_connections(max).max_unfinished(max);
    match options.max_per_peer {
        Some(max) => builder.max_per_peer(max),
        None => builder,
    }
}

/// A connection takes two descriptors, one on each side. The program itself needs some more.
fn max_connections(asked: Option<usize>, descriptors: Option<u64>) -> usize {
    const DEFAULT: usize = 10_000;
    let wanted = asked.unwrap_or(DEFAULT);
    let Some(descriptors) = descriptors else { return wanted };
    let most = usize::try_from(descriptors.saturating_sub(32) / 2).unwrap_or(usize::MAX).max(1);
    if asked.is_some_and(|asked| asked > most) {
        eprintln!("terminator: {descriptors} descriptors are allowed, which is enough for {most} connections at once");
    }
    wanted.min(most)
}

fn policy(options: &Options) -> Policy {
    Policy::default()
        .idle_timeout(options.idle_timeout)
        // rule: flow-7: from the start, because the bytes before the relay must not look complete either.
        .reset_when_killed(true)
        .handshake_timeout(options.handshake_timeout)
        .close_timeout(options.close_timeout)
        .half_open_timeout(options.half_open_timeout)
}

/// Receives SIGTERM and SIGINT, any number of times; on Windows, the events of the console that correspond to them.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    c: tokio::signal::windows::CtrlC,
    #[cfg(windows)]
    r#break: tokio::signal::windows::CtrlBreak,
    #[cfg(windows)]
    close: tokio::signal::windows::CtrlClose,
    #[cfg(windows)]
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be listened for"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be listened for"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(windows)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::windows;
        Self {
            c: windows::ctrl_c().expect("Ctrl-C can be listened for"),
            r#break: windows::ctrl_break().expect("Ctrl-Break can be listened for"),
            close: windows::ctrl_close().expect("the end of the console can be listened for"),
            shutdown: windows::ctrl_shutdown().expect("the end of the system can be listened for"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.r#break.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
