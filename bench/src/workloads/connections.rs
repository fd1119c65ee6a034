//! Connections by the thousand: handshakes alone, and whole lives with a half-close.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::Run;
use crate::measure::{Mark, Sample};
use crate::peers::Stack;
use crate::{Result, fail, net};

/// Connections that come before those that count.
const WARM: usize = 20;
/// A request and its response, in a connection that lives for no more.
const MESSAGE: usize = 1024;

/// The time that a handshake may take: bowline's default.
const DEADLINE: Duration = Duration::from_secs(30);

/// One after the other, for a time.
macro_rules! for_a_while {
    ($run:expr, $one:expr) => {{
        for _ in 0..WARM {
            $one.await?;
        }
        let (mark, begin, mut count) = (Mark::now()?, Instant::now(), 0);
        while begin.elapsed() < $run.time() {
            $one.await?;
            count += 1;
        }
        mark.sample(f64::from(count))
    }};
}

/// A TCP connection, a handshake, one byte from the server (behind which the ticket lies), and RST.
pub async fn handshakes<S: Stack>(stack: S, run: Run) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    if run.setup.resume {
        // The first one has nothing to resume.
        handshake(&stack, run, &listener, false).await?;
    }
    for_a_while!(run, handshake(&stack, run, &listener, run.setup.resume))
}

async fn handshake<S: Stack>(stack: &S, run: Run, listener: &TcpListener, resumed: bool) -> Result<()> {
    let (client, server) = net::pair_for::<S>(listener, run.regime).await?;
    // Without TIME_WAIT there are ports enough for any number of them.
    net::reset_on_drop(&client)?;
    let serve = async {
        let mut server = in_time::<S, _>(stack.accept(server)).await?;
        S::send(&mut server, b"!").await?;
        Ok::<_, crate::Error>(server)
    };
    let ask = async {
        let mut client = in_time::<S, _>(stack.connect(client)).await?;
        client.read_exact(&mut [0]).await?;
        Ok(client)
    };
    let (client, server) = tokio::try_join!(ask, serve)?;
    run.setup.check(S::facts(&client), resumed)?;
    drop((client, server));
    Ok(())
}

/// A whole life: a request, our half ends, the response, the other half ends, both ends are closed.
pub async fn churn<S: Stack>(stack: S, run: Run) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    for_a_while!(run, live(&stack, run, &listener))
}

async fn live<S: Stack>(stack: &S, run: Run, listener: &TcpListener) -> Result<()> {
    let (client, server) = net::pair_for::<S>(listener, run.regime).await?;
    let serve = async {
        let mut server = in_time::<S, _>(stack.accept(server)).await?;
        let mut request = Vec::with_capacity(2 * MESSAGE);
        server.read_to_end(&mut request).await?;
        server.write_all(&request).await?;
        server.shutdown().await?;
        S::finish(server).await;
        Ok::<_, crate::Error>(())
    };
    let ask = async {
        let mut client = in_time::<S, _>(stack.connect(client)).await?;
        run.setup.check(S::facts(&client), false)?;
        client.write_all(&[0x5a; MESSAGE]).await?;
        client.shutdown().await?;
        let mut response = Vec::with_capacity(2 * MESSAGE);
        client.read_to_end(&mut response).await?;
        if response != [0x5a; MESSAGE] {
            return fail("the response is not the request");
        }
        S::finish(client).await;
        Ok(())
    };
    tokio::try_join!(ask, serve)?;
    Ok(())
}

/// A handshake with a deadline. Bowline's has one always, and no server can do without: the others get tokio's.
async fn in_time<S: Stack, T>(handshake: impl Future<Output = Result<T>>) -> Result<T> {
    if S::SETS_DEADLINE || S::PLAIN { handshake.await } else { timeout(DEADLINE, handshake).await? }
}
