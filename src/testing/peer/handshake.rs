//! A handshake that exposes its keys.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, Error, ServerConfig};

use super::record::{Kernel, Records, whole_record};
use super::{Event, RawTcp};

/// A failed handshake of [`RawTls`](super::RawTls), with the events that the raw peer saw until the end of the
/// connection. If the other side refused the handshake, these are its alert and then FIN or RST.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandshakeFailed {
    /// The error of rustls; `None` if the connection ended before rustls found an error.
    pub error: Option<Error>,
    /// The alert that the other side sent, if any, and how it ended the connection.
    pub events: Vec<Event>,
}

impl fmt::Display for HandshakeFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handshake of a raw peer failed, and it saw {:?}", self.events)
    }
}

impl StdError for HandshakeFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

/// Received bytes that follow the handshake.
pub(super) type Leftover = Vec<u8>;

pub(super) async fn as_client(
    tcp: &mut RawTcp,
    config: &ClientConfig,
    name: ServerName<'static>,
) -> Result<(Records, Leftover), HandshakeFailed> {
    let mut config = config.clone();
    config.enable_secret_extraction = true;
    let mut session = match UnbufferedClientConnection::new(Arc::new(config), name) {
        Ok(session) => session,
        Err(error) => return Err(failed(tcp, Some(error)).await),
    };
    let leftover = shake(tcp, &mut session).await?;
    match session.dangerous_into_kernel_connection() {
        Ok((secrets, kernel)) => Ok((Records::new(secrets, Kernel::Client(kernel)), leftover)),
        Err(error) => Err(failed(tcp, Some(error)).await),
    }
}

pub(super) async fn as_server(tcp: &mut RawTcp, config: &ServerConfig) -> Result<(Records, Leftover), HandshakeFailed> {
    let mut config = config.clone();
    config.enable_secret_extraction = true;
    let mut session = match UnbufferedServerConnection::new(Arc::new(config)) {
        Ok(session) => session,
        Err(error) => return Err(failed(tcp, Some(error)).await),
    };
    let leftover = shake(tcp, &mut session).await?;
    match session.dangerous_into_kernel_connection() {
        Ok((secrets, kernel)) => Ok((Records::new(secrets, Kernel::Server(kernel)), leftover)),
        Err(error) => Err(failed(tcp, Some(error)).await),
    }
}

/// The operations that both kinds of session share.
trait Session {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn is_handshaking(&self) -> bool;
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn is_handshaking(&self) -> bool {
        (***self).is_handshaking()
    }
}

impl Session for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn is_handshaking(&self) -> bool {
        (***self).is_handshaking()
    }
}

/// The next step that a session needs.
enum Want {
    Nothing,
    Send,
    Input,
    Done,
    Failed(Error),
}

/// Does the handshake. rustls gets one record at a time, so that it does not consume the bytes after the handshake.
async fn shake(tcp: &mut RawTcp, session: &mut impl Session) -> Result<Leftover, HandshakeFailed> {
    let mut input = tcp.take_received();
    let mut output = Vec::new();
    let mut shown = 0;
    let mut failure = None;
    loop {
        let (discard, want) = step(session, &mut input[..shown], &mut output);
        input.drain(..discard);
        shown -= discard;
        match want {
            Want::Nothing => {}
            // If sending fails, the next read reports why.
            Want::Send => drop(tcp.send(&std::mem::take(&mut output)).await),
            // The next steps produce the alert.
            Want::Failed(error) if failure.is_none() => failure = Some(error),
            Want::Failed(_) | Want::Input | Want::Done if failure.is_some() => {
                let _ = tcp.send(&output).await;
                return Err(failed(tcp, failure).await);
            }
            Want::Done if !session.is_handshaking() => return Ok(input),
            Want::Failed(_) | Want::Done | Want::Input => match whole_record(&input[shown..]) {
                Some(record) => shown += record,
                None => match tcp.fill().await {
                    Event::Data(_) => input.extend(tcp.take_received()),
                    _ => return Err(failed(tcp, None).await),
                },
            },
        }
    }
}

fn step(session: &mut impl Session, input: &mut [u8], output: &mut Vec<u8>) -> (usize, Want) {
    let UnbufferedStatus { discard, state } = session.process(input);
    let want = match state {
        Ok(ConnectionState::EncodeTlsData(mut state)) => {
            encode(&mut state, output);
            Want::Nothing
        }
        Ok(ConnectionState::TransmitTlsData(state)) => {
            state.done();
            Want::Send
        }
        Ok(ConnectionState::BlockedHandshake) => Want::Input,
        Ok(ConnectionState::WriteTraffic(_)) => Want::Done,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Want::Failed(Error::HandshakeNotComplete),
        Ok(_) => Want::Nothing,
        Err(error) => Want::Failed(error),
    };
    (discard, want)
}

fn encode<Data>(state: &mut EncodeTlsData<'_, Data>, output: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(size)) = state.encode(&mut []) {
        let begin = output.len();
        output.resize(begin + size.required_size, 0);
        let _ = state.encode(&mut output[begin..]);
    }
}

/// Sends FIN, and records how the other side ends the connection.
async fn failed(tcp: &mut RawTcp, error: Option<Error>) -> HandshakeFailed {
    let _ = tcp.fin();
    let ending = tcp.observe().await.last().copied();
    let alert = match &error {
        Some(Error::AlertReceived(alert)) => Some(Event::Alert(*alert)),
        _ => tcp.clear_alerts().last().copied().map(Event::Alert),
    };
    HandshakeFailed { error, events: alert.into_iter().chain(ending).collect() }
}
