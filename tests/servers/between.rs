//! An attacker between the client and the server, who injects one byte at the go-ahead.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Before,
    Inside,
    After,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Inside, Self::After];
}

/// How the go-ahead of a dialogue is recognised.
#[derive(Clone, Copy)]
pub(crate) enum GoAhead {
    /// The go-ahead starts with these bytes, and ends with this byte.
    From(&'static [u8], u8),
    /// The go-ahead is the first message of the server.
    First,
    /// The go-ahead is the first message of the server, and one byte long.
    Byte,
}

impl GoAhead {
    pub(crate) fn has_inside(self) -> bool {
        !matches!(self, Self::Byte)
    }

    /// How many of these bytes precede the go-ahead, or a part that may be its start.
    fn before(self, bytes: &[u8]) -> usize {
        match self {
            Self::From(begin, _) => (0..bytes.len())
                .find(|at| bytes[*at..].starts_with(begin) || begin.starts_with(&bytes[*at..]))
                .unwrap_or(bytes.len()),
            Self::First | Self::Byte => 0,
        }
    }

    /// The place of the go-ahead in these bytes.
    fn find(self, bytes: &[u8]) -> Option<(usize, usize)> {
        match self {
            Self::From(begin, end) => {
                let at = bytes.windows(begin.len()).position(|part| part == begin)?;
                let length = bytes[at..].iter().position(|byte| *byte == end)?;
                Some((at, at + length + 1))
            }
            Self::First | Self::Byte => (!bytes.is_empty()).then_some((0, bytes.len())),
        }
    }
}

/// A port that forwards one connection to the server. `is_cut`: a segment ends at the injected byte.
pub(crate) async fn between(server: u16, go_ahead: GoAhead, place: Place, is_cut: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(("127.0.0.1", server)).await?;
        client.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let asking = async { copy(&mut from_client, &mut to_server).await };
        let answering = async {
            let mut bytes = Vec::new();
            while go_ahead.find(&bytes).is_none() {
                if from_server.read_buf(&mut bytes).await? == 0 {
                    return Ok(0);
                }
                let passed = go_ahead.before(&bytes);
                to_client.write_all(&bytes[..passed]).await?;
                bytes.drain(..passed);
            }
            let (begin, end) = go_ahead.find(&bytes).unwrap_or_default();
            let at = match place {
                Place::Before => begin,
                Place::Inside => begin + 2,
                Place::After => end,
            };
            let (first, second) = match place {
                Place::After => (bytes[..at].to_vec(), [b"X", &bytes[at..]].concat()),
                Place::Before | Place::Inside => ([&bytes[..at], b"X"].concat(), bytes[at..].to_vec()),
            };
            if is_cut {
                to_client.write_all(&first).await?;
                to_client.write_all(&second).await?;
            } else {
                to_client.write_all(&[first, second].concat()).await?;
            }
            copy(&mut from_server, &mut to_client).await
        };
        tokio::try_join!(asking, answering).map(|_| ())
    });
    port
}
