//! Many short connections: handshakes alone, and complete lives with a half-close.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::Run;
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample};
use crate::net;
use crate::peers::Stack;

/// The number of connections for the warm-up.
const WARM: usize = 20;
/// The size of the request and of the response of a connection.
const MESSAGE: usize = 1024;

/// The time that a handshake may take: bowline's default.
const DEADLINE: Duration = Duration::from_secs(30);

/// Repeats this block for the time of the measurement.
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

/// A TCP connection, a handshake, one byte from the server (which follows the ticket), and RST.
pub async fn handshakes<S: Stack>(stack: S, run: Run) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    if run.setup.resume {
        // The first connection has no session to resume.
        handshake(&stack, run, &listener, false).await?;
    }
    for_a_while!(run, handshake(&stack, run, &listener, run.setup.resume))
}

async fn handshake<S: Stack>(stack: &S, run: Run, listener: &TcpListener, resumed: bool) -> Result<()> {
    let (client, server) = net::pair_for::<S>(listener, run.regime).await?;
    // Without TIME_WAIT, there are enough ports for any number of connections.
    net::reset_on_drop(&client)?;
    let serve = async {
        let mut server = in_time::<S, _>(stack.accept(server)).await?;
        S::send(&mut server, b"!").await?;
        Ok::<_, crate::error::Error>(server)
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

/// The life of a connection: a request, our half ends, the response, the other half ends, and both ends are closed.
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
        Ok::<_, crate::error::Error>(())
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

/// A handshake with a deadline, which every server needs. bowline has one of its own; for the others it is tokio's
/// timer.
async fn in_time<S: Stack, T>(handshake: impl Future<Output = Result<T>>) -> Result<T> {
    if S::SETS_DEADLINE || S::PLAIN { handshake.await } else { timeout(DEADLINE, handshake).await? }
}
