//! One direction of a [`Meddler`](super::Meddler), and the commands for it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::PATIENCE;
use super::tcp::delivered;

const CHUNK: usize = 16 << 10;
/// The number of sends per second of a slow direction.
const BEATS: u32 = 20;

/// One direction of a [`Meddler`](super::Meddler). Commands can be given before the connection is made, as a script, or
/// while it is open.
///
/// Offsets count the sender's bytes from the first one on. A command for an offset that has already passed is carried
/// out at once, so `fin_after(0)` means "now". Commands with the same offset are carried out in the order in which they
/// were given.
pub struct Direction(Arc<DirectionState>);

impl fmt::Debug for Direction {
    /// Shows nothing of the bytes to inject (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direction").field("forwarded", &self.0.forwarded).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct DirectionState {
    plan: Mutex<Plan>,
    changed: Notify,
    forwarded: AtomicU64,
}

#[derive(Default)]
struct Plan {
    acts: BTreeMap<u64, Vec<Act>>,
    pace: Pace,
    stopped: bool,
    stalled: bool,
    corrupt_next: bool,
}

enum Act {
    Fin,
    Reset,
    Stall,
    Inject(Vec<u8>),
    Corrupt,
}

#[derive(Debug, Clone, Copy, Default)]
enum Pace {
    #[default]
    Full,
    Trickle,
    Slow(u32),
}

/// The next step of the forwarding loop.
enum Step {
    Act(Act),
    Wait,
    Swallow,
    Forward { limit: usize, corrupt: bool },
}

/// Set when the whole connection has been, or will be, reset.
pub(super) struct Broken;

impl Direction {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Forwards exactly this many bytes, then FIN. Later bytes are discarded, and the other direction continues.
    pub fn fin_after(&self, bytes: u64) -> &Self {
        self.at(bytes, Act::Fin)
    }

    /// Forwards exactly this many bytes, waits until the receiver's kernel has them, and then sends RST to both sides.
    pub fn rst_after(&self, bytes: u64) -> &Self {
        self.at(bytes, Act::Reset)
    }

    /// Forwards exactly this many bytes, then neither bytes nor an end. Later bytes are discarded. The stall lasts
    /// until the meddler is dropped or another command ends it.
    pub fn stall_after(&self, bytes: u64) -> &Self {
        self.at(bytes, Act::Stall)
    }

    /// Inserts these bytes before the byte at this offset.
    pub fn inject(&self, offset: u64, bytes: impl Into<Vec<u8>>) -> &Self {
        self.at(offset, Act::Inject(bytes.into()))
    }

    /// Flips all bits of the byte at this offset, or of the next byte if the offset has already passed.
    pub fn corrupt(&self, offset: u64) -> &Self {
        self.at(offset, Act::Corrupt)
    }

    /// From now on, forwards in segments of one byte.
    pub fn trickle(&self) -> &Self {
        self.change(|plan| plan.pace = Pace::Trickle)
    }

    /// From now on, forwards at most this many bytes per second.
    pub fn slow(&self, bytes_per_second: u32) -> &Self {
        self.change(|plan| plan.pace = Pace::Slow(bytes_per_second))
    }

    /// From now on, does not read, so that the sender's socket buffer fills up, as with a stalled receiver.
    pub fn stop_reading(&self) -> &Self {
        self.change(|plan| plan.stopped = true)
    }

    /// Continues at full speed: undoes `stop_reading`, `trickle` and `slow`.
    pub fn resume(&self) -> &Self {
        self.change(|plan| (plan.stopped, plan.pace) = (false, Pace::Full))
    }

    /// The number of the sender's bytes that were forwarded.
    pub fn forwarded(&self) -> u64 {
        self.0.forwarded.load(Ordering::Acquire)
    }

    fn at(&self, offset: u64, act: Act) -> &Self {
        self.change(|plan| plan.acts.entry(offset).or_default().push(act))
    }

    fn change(&self, change: impl FnOnce(&mut Plan)) -> &Self {
        change(&mut self.plan());
        self.0.changed.notify_one();
        self
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_step(&self) -> Step {
        let here = self.forwarded();
        let mut plan = self.plan();
        if let Some(mut due) = plan.acts.first_entry().filter(|entry| *entry.key() <= here) {
            let act = due.get_mut().remove(0);
            if due.get().is_empty() {
                due.remove();
            }
            return Step::Act(act);
        }
        if plan.stalled {
            return Step::Swallow;
        }
        if plan.stopped {
            return Step::Wait;
        }
        let to_next_act = plan.acts.keys().next().map_or(u64::MAX, |offset| offset - here);
        let corrupt = std::mem::take(&mut plan.corrupt_next);
        let limit = if corrupt { 1 } else { plan.pace.limit().min(usize::try_from(to_next_act).unwrap_or(CHUNK)) };
        Step::Forward { limit, corrupt }
    }

    /// Forwards until the sender's end has been passed on, or replaced.
    pub(super) async fn run(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Broken> {
        loop {
            match self.next_step() {
                Step::Wait => self.0.changed.notified().await,
                Step::Act(Act::Inject(bytes)) => to.write_all(&bytes).await?,
                Step::Act(Act::Corrupt) => self.plan().corrupt_next = true,
                Step::Act(Act::Stall) => self.plan().stalled = true,
                Step::Swallow => self.swallow(&mut from).await?,
                Step::Act(Act::Reset) => {
                    delivered(to.as_ref(), PATIENCE).await;
                    return Err(Broken);
                }
                Step::Act(Act::Fin) => {
                    to.shutdown().await?;
                    return sink(&mut from).await;
                }
                Step::Forward { limit, corrupt } => {
                    if self.forward(&mut from, &mut to, limit, corrupt).await? {
                        to.shutdown().await?;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Forwards once, at most `limit` bytes. Returns whether the sender has ended.
    async fn forward(
        &self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        limit: usize,
        corrupt: bool,
    ) -> io::Result<bool> {
        let mut buf = [0; CHUNK];
        let n = tokio::select! {
            biased;
            // A new command may have changed the next step, so this step starts again.
            () = self.0.changed.notified() => {
                self.plan().corrupt_next |= corrupt;
                return Ok(false);
            }
            n = from.read(&mut buf[..limit]) => n?,
        };
        if corrupt && n > 0 {
            buf[0] = !buf[0];
        }
        to.write_all(&buf[..n]).await?;
        self.0.forwarded.fetch_add(n as u64, Ordering::AcqRel);
        self.pause().await;
        Ok(n == 0)
    }

    /// Discards all bytes until there is another command.
    async fn swallow(&self, from: &mut ReadHalf<'_>) -> Result<(), Broken> {
        tokio::select! {
            biased;
            () = self.0.changed.notified() => return Ok(()),
            ended = sink(from) => ended?,
        }
        self.0.changed.notified().await;
        Ok(())
    }

    async fn pause(&self) {
        let pace = self.plan().pace;
        match pace {
            Pace::Full => {}
            Pace::Trickle => tokio::task::yield_now().await,
            Pace::Slow(_) => tokio::time::sleep(pace.beat()).await,
        }
    }
}

impl Pace {
    fn limit(self) -> usize {
        match self {
            Self::Full => CHUNK,
            Self::Trickle => 1,
            Self::Slow(rate) => usize::try_from(rate / BEATS).unwrap_or(CHUNK).clamp(1, CHUNK),
        }
    }

    fn beat(self) -> Duration {
        match self {
            Self::Full | Self::Trickle => Duration::ZERO,
            Self::Slow(rate) => Duration::from_secs(1) * u32::try_from(self.limit()).unwrap_or(1) / rate.max(1),
        }
    }
}

/// Reads to the end and discards the bytes.
async fn sink(from: &mut ReadHalf<'_>) -> Result<(), Broken> {
    let mut buf = [0; CHUNK];
    while from.read(&mut buf).await? > 0 {}
    Ok(())
}

impl From<io::Error> for Broken {
    /// A socket error means that one side has sent RST.
    fn from(_: io::Error) -> Self {
        Self
    }
}
