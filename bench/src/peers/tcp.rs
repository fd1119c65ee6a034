//! Raw TCP, the upper limit of every TLS library.

use tokio::net::TcpStream;

use super::{Facts, Stack};
use crate::error::Result;

#[derive(Debug, Clone)]
pub struct Tcp;

impl Stack for Tcp {
    type Stream = TcpStream;
    const FLUSHES: bool = false;
    const PLAIN: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<TcpStream> {
        Ok(tcp)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<TcpStream> {
        Ok(tcp)
    }

    fn facts(_: &TcpStream) -> Option<Facts> {
        None
    }
}
