//! Runs a dialogue over a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::conn::time::{after, until};
use crate::core::dialogue::Machine;
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::policy::Role;
use crate::transport::UpgradableTransport;
use crate::transport::layer::poll_write_some;

/// The point at which a run of the dialogue stops.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The server's greeting has arrived. Nothing is sent.
    Greeting,
    /// Both sides have agreed to TLS.
    Tls,
}

/// Runs the machine up to the goal. Dropping the future loses nothing, because the machine keeps what was received and
/// sent.
pub(super) async fn drive<C>(machine: &mut Machine, connection: &mut C, goal: Goal) -> Result<(), Error>
where
    C: UpgradableTransport + ?Sized,
{
    // This is checked before the dialogue begins, because a server cannot take back an answer that agrees to TLS.
    connection.may_start_tls()?;
    let control = connection.control();
    let deadline = after(control.policy().handshake_timeout);
    let mut is_judged = false;
    let steps = poll_fn(|cx| poll(machine, connection, goal, &mut is_judged, cx));
    let done = until(deadline, steps).await.unwrap_or_else(|| Err(Reason::TimedOut(Phase::Handshake).into()));
    if let Err(error) = &done {
        let may_go_on = matches!(error, Error::Upgrade(UpgradeError::Dialogue(error)) if error.may_go_on());
        if !may_go_on {
            control.end(error.clone().into());
        }
    }
    done
}

fn poll<C>(
    machine: &mut Machine,
    connection: &mut C,
    goal: Goal,
    is_judged: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>>
where
    C: UpgradableTransport + ?Sized,
{
    loop {
        if machine.is_agreed() || goal == Goal::Greeting && !machine.output().is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = machine.failure() {
            return Poll::Ready(Err(UpgradeError::Dialogue(error.clone()).into()));
        }
        if machine.output().is_empty() {
            *is_judged = false;
            let bytes = ready!(Pin::new(&mut *connection).poll_fill_buf(cx))?;
            if bytes.is_empty() {
                return Poll::Ready(Err(Reason::Truncated(Phase::Handshake).into()));
            }
            let taken = machine.receive(bytes);
            Pin::new(&mut *connection).consume(taken);
        } else if !*is_judged {
            *is_judged = true;
            match Pin::new(&mut *connection).poll_fill_buf(cx)? {
                // If a client has ended its half, it still gets the answer. If a server has ended its half, it gets no
                // question.
                Poll::Ready([]) if machine.role() == Role::Client => {
                    return Poll::Ready(Err(Reason::Truncated(Phase::Handshake).into()));
                }
                Poll::Ready(bytes) => machine.unread(bytes),
                Poll::Pending => {}
            }
        } else {
            let n = ready!(poll_write_some(connection, cx, machine.output()))?;
            machine.sent(n);
        }
    }
}
