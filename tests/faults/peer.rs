//! The peer of a connection with faults. It follows the protocol, and does the tasks that the test gives it.

use std::time::Duration;

use bowline::starttls::{Client, Dialogue, Server};
use bowline::{Address, Policy, StartTls, Stream, Transport, UpgradableConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cell::Side;
use crate::wire::Far;

/// A task for the peer.
pub(crate) enum Task {
    /// The dialogue before TLS.
    Negotiate(Side),
    StartTls(StartTls),
    StopTls,
    Send(Vec<u8>),
    ReadAll,
    /// Reads to the end, and compares the bytes with these.
    Expect(Vec<u8>),
    CloseWrite,
    Close,
    /// Sends data without end.
    Talk,
}

/// The peer's end of the connection, in an asynchronous task of its own. It stops at its first error.
pub(crate) struct Peer {
    tasks: mpsc::UnboundedSender<(Task, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
}

impl Peer {
    pub(crate) fn new(far: Far) -> Self {
        let (tasks, received) = mpsc::unbounded_channel();
        let name = || Address::Other("memory".into());
        let policy = Policy::default().handshake_timeout(None).close_timeout(None);
        let conn = UpgradableConnection::new(Stream::with(far, name(), name(), policy).wakes_unlocked());
        Self { tasks, task: tokio::spawn(run(conn, received)) }
    }

    /// Gives the peer a task, which it does after all earlier ones. The answer comes when the task is done, and never
    /// if the peer has failed.
    pub(crate) fn tell(&self, task: Task) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let _ = self.tasks.send((task, done));
        receiver
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Received = mpsc::UnboundedReceiver<(Task, oneshot::Sender<()>)>;

async fn run(mut conn: UpgradableConnection<Stream<Far>>, mut tasks: Received) {
    while let Some((task, done)) = tasks.recv().await {
        if act(&mut conn, task).await.is_err() {
            // The connection is not dropped, so that a peer that has failed is silent.
            std::future::pending::<()>().await;
        }
        let _ = done.send(());
    }
    std::future::pending().await
}

async fn act(conn: &mut UpgradableConnection<Stream<Far>>, task: Task) -> Result<(), bowline::Error> {
    match task {
        Task::Negotiate(Side::Client) => Client::new(Dialogue::Smtp, "localhost").negotiate(conn).await?,
        Task::Negotiate(Side::Server) => Server::new(Dialogue::Smtp).negotiate(conn).await?,
        Task::StartTls(how) => conn.start_tls(how).await?,
        Task::StopTls => conn.stop_tls().await?,
        Task::Send(bytes) => {
            for part in bytes.chunks(100) {
                conn.write_all(part).await?;
                conn.flush().await?;
            }
        }
        Task::ReadAll => drop(conn.read_to_end(&mut Vec::new()).await?),
        Task::Expect(bytes) => {
            let mut read = Vec::new();
            conn.read_to_end(&mut read).await?;
            assert!(read == bytes, "the peer has read {} bytes, not {}", read.len(), bytes.len());
        }
        Task::CloseWrite => conn.close_write().await?,
        Task::Close => drop(conn.close().await),
        Task::Talk => loop {
            conn.write_all(&[b'.'; 16 << 10]).await?;
            conn.flush().await?;
            sleep(Duration::from_millis(10)).await;
        },
    }
    Ok(())
}
