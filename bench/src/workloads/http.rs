//! hyper is the server, over a peer's connections. The client is wrk or h2load, on another CPU. Only the server's CPU
//! time and its number of answers count.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::Run;
use crate::cpu;
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample};
use crate::net;
use crate::peers::Stack;
use crate::peers::hyper::Answer;
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
    let answer = Answer { body: vec![0x5a; body].into(), answered: Arc::clone(&answered) };
    let serving = tokio::spawn(accept(stack, run, http, listener, answer));
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
async fn accept<S: Stack>(stack: S, run: Run, http: Http, listener: TcpListener, answer: Answer) -> Result<Sample> {
    loop {
        let tcp = net::accept(&listener).await?;
        let (stack, answer) = (stack.clone(), answer.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(stack, run, http, tcp, answer).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn serve<S: Stack>(stack: S, run: Run, http: Http, tcp: TcpStream, answer: Answer) -> Result<()> {
    let stream = stack.accept(tcp).await?;
    run.setup.check(S::facts(&stream), false)?;
    S::serve_http(stream, http, answer).await
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
