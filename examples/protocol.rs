//! The callback face: a protocol that answers each line in capital letters, and ends when the line is `quit`.

use bowline::protocol::{CallbackResult, Conn, Protocol, Reading, Server, every};
use bowline::{Error, Listener, Reason};

struct Shout;

impl Protocol for Shout {
    /// Returns how many bytes were processed. The rest is passed in again, together with the bytes that come next.
    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        let mut done = 0;
        // Reading pauses by itself while the peer does not take the answers.
        while conn.reading() == Reading::Open {
            let Some(end) = data[done..].iter().position(|byte| *byte == b'\n') else { break };
            let line = &data[done..=done + end];
            done += line.len();
            match line.trim_ascii_end() {
                b"quit" => conn.close(),
                _ => conn.write(&line.to_ascii_uppercase()),
            }
        }
        Ok(done)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        println!("{reason}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let listener = Listener::bind("127.0.0.1:7000").await?;
    Server::new(listener, every(|| Shout)).run().await
}
