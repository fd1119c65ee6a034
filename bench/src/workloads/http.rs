//! hyper is the server, over a peer's connections. The client is wrk or h2load, on another CPU. Only the server's CPU
//! time and its number of answers count.

use std::convert::Infallible;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::Run;
use crate::cpu;
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample};
use crate::net;
use crate::peers::Stack;
use crate::spec::Http;

/// The duration of the warm-up.
const WARM: Duration = Duration::from_millis(300);
/// The time limit. The client ends after twice this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers each request with `body` bytes, for a while.
pub async fn run<S: Stack>(stack: S, run: Run, http: Http, body: usize, connections: usize) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    let address = listener.local_addr()?;
    let scheme = if S::PLAIN { "http" } else { "https" };
    let answered = Arc::new(AtomicU64::new(0));
    let serving = tokio::spawn(accept(stack, run, http, listener, vec![0x5a; body].into(), answered.clone()));
    let mut client = start(http, connections, format!("{scheme}://{address}/"))?;
    let count = || answered.load(Ordering::Relaxed);
    let measured = async {
        // When there are twice as many answers as connections, all connections have been made.
        while count() < 2 * connections as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(WARM).await;
        let (mark, before) = (Mark::now()?, count());
        tokio::time::sleep(2 * run.time()).await;
        mark.sample((count() - before) as f64)
    };
    let sample = tokio::select! {
        sample = measured => sample,
        ended = serving => ended?,
        () = tokio::time::sleep(PATIENCE) => fail("the requests did not begin"),
    };
    let is_still_there = client.try_wait()?.is_none();
    client.kill()?;
    client.wait()?;
    let sample = sample?;
    if sample.units < 1.0 || !is_still_there {
        return fail(format!("the client gave up: {}", said(&mut client)));
    }
    Ok(sample)
}

/// Serves each connection in a task of its own, until one fails in its handshake.
async fn accept<S: Stack>(
    stack: S,
    run: Run,
    http: Http,
    listener: TcpListener,
    body: Bytes,
    answered: Arc<AtomicU64>,
) -> Result<Sample> {
    loop {
        let tcp = net::accept(&listener).await?;
        let (stack, body, answered) = (stack.clone(), body.clone(), answered.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(stack, run, http, tcp, body, answered).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn serve<S: Stack>(
    stack: S,
    run: Run,
    http: Http,
    tcp: TcpStream,
    body: Bytes,
    answered: Arc<AtomicU64>,
) -> Result<()> {
    let stream = stack.accept(tcp).await?;
    run.setup.check(S::facts(&stream), false)?;
    let answer = move |_: Request<Incoming>| {
        answered.fetch_add(1, Ordering::Relaxed);
        let response = Response::new(Full::new(body.clone()));
        async move { Ok::<_, Infallible>(response) }
    };
    let (io, service) = (TokioIo::new(stream), service_fn(answer));
    match http {
        Http::One => http1::Builder::new().serve_connection(io, service).await?,
        Http::Two => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await?,
    }
    Ok(())
}

/// Starts the client with one thread on another CPU. It runs for longer than the measurement, and this process ends it.
fn start(http: Http, connections: usize, url: String) -> Result<Child> {
    let mut command = Command::new(http.client());
    let connections = connections.to_string();
    match http {
        Http::One => command.args(["-t1", "-d20s", "-c", &connections, &url]),
        Http::Two => command.args(["-t1", "-D20", "-m10", "-c", &connections, &url]),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A child inherits the CPUs of the thread that starts it.
    let starting = std::thread::spawn(move || {
        cpu::leave_the_inherited_one()?;
        Ok::<_, crate::error::Error>(command.spawn()?)
    });
    starting.join().map_err(|_| "the thread that starts the client panicked")?
}

fn said(client: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = client.stderr.take() {
        let _ = stderr.read_to_string(&mut text);
    }
    text.trim().to_owned()
}
