//! A peer that sends plaintext before and during an upgrade: none of it is delivered after the upgrade has begun, and
//! no call panics or hangs.

use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use bowline::testing::{pipe, shared_pki};
use bowline::{
    Address, ClientTls, Leftover, Policy, ServerTls, StartTls, Stream, TlsTransport, Transport, UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::bytes::Bytes;
use super::text;

fn configs() -> &'static (ClientTls, ServerTls) {
    static CONFIGS: OnceLock<(ClientTls, ServerTls)> = OnceLock::new();
    CONFIGS.get_or_init(|| (shared_pki().client_tls(), shared_pki().server_tls()))
}

/// Polls once.
fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(tokio::task::unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

pub fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _inside = runtime.enter();
    let mut input = Bytes::new(input);
    let kind = input.byte();
    let (near, mut far) = pipe(1 << 16);
    let name = || Address::Other("memory".into());
    let stream = Stream::with(near, name(), name(), Policy::default()).wakes_unlocked();
    let mut conn = UpgradableConnection::new(stream);
    // The peer sends plaintext in some segments, and the connection reads some of it.
    let mut sent = Vec::new();
    let mut read = Vec::new();
    for _ in 0..input.below(6) {
        let n = input.size();
        let bytes = input.take(n);
        if once(far.write_all(bytes)).is_some() {
            sent.extend_from_slice(bytes);
        }
        match input.below(4) {
            0 => {
                let mut out = vec![0; input.below(40)];
                if let Some(Ok(n)) = once(conn.read(&mut out)) {
                    read.extend_from_slice(&out[..n]);
                }
            }
            1 => {
                let mut line = Vec::new();
                let _ = once(conn.read_until(b'\n', &mut line));
                read.extend(line);
            }
            2 => {
                let _ = once(conn.fill_buf());
            }
            _ => {}
        }
    }
    assert!(sent.starts_with(&read), "plaintext is lost, repeated or reordered");
    let (client, server) = configs();
    let how = if kind & 1 == 0 { StartTls::client(client, "localhost") } else { StartTls::server(server) };
    let how = match kind >> 1 & 3 {
        0 => how.leftover(Leftover::Feed),
        1 => how.leftover(Leftover::Refuse),
        _ => how,
    };
    {
        let mut upgrade = pin!(tokio::task::unconstrained(conn.start_tls(how)));
        let mut poll = || upgrade.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut outcome = poll();
        while outcome.is_pending() && !input.is_empty() {
            let n = 1 + input.size();
            let _ = once(far.write_all(input.take(n)));
            let _ = once(far.read(&mut [0; 4096]));
            outcome = poll();
        }
        if outcome.is_pending() {
            let _ = once(far.shutdown());
            outcome = poll();
        }
        match outcome {
            Poll::Ready(Ok(())) => panic!("a handshake without a peer that has keys"),
            Poll::Ready(Err(error)) => text::check(&error),
            Poll::Pending => {}
        }
    }
    assert!(!conn.is_secure());
    let mut out = [0; 64];
    if let Some(Ok(n @ 1..)) = once(conn.read(&mut out)) {
        panic!("{:?} is delivered after the upgrade has begun", &out[..n]);
    }
    if kind & 8 == 0 {
        conn.abort();
    } else {
        let _ = once(conn.close());
    }
    let _ = conn.status();
}

pub fn seeds() -> Vec<Vec<u8>> {
    let hello = super::hello::seeds()[0][1..].to_vec();
    let mut seeds = Vec::new();
    for kind in 0..16 {
        seeds.push([&[kind, 1, 10][..], b"STARTTLS\r\n", &[1], &hello].concat());
        seeds.push([&[kind, 1, 18][..], b"STARTTLS\r\ninject\r\n", &[1]].concat());
        seeds.push([&[kind, 0][..], &[22, 3, 3, 0, 80, 2, 0, 0, 76]].concat());
        seeds.push([&[kind, 2, 4][..], b"220 ", &[0, 9, 4], b"go\r\n", &[3, 21, 3, 3, 0, 2, 1, 0]].concat());
    }
    seeds
}
