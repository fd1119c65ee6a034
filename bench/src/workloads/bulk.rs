//! Data in one direction, as fast as possible, in large or in small writes.

use tokio::io::AsyncReadExt;

use super::{Run, meeting, pair};
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample};
use crate::peers::Stack;
use crate::spec::Way;

/// The size of a reader's buffer. It is larger than a record of 16 KiB, so that a record can be opened into it.
pub const READ: usize = 64 << 10;

/// `count` writes of `size`, after a sixteenth as many for the warm-up. `units` is the amount of all of them.
pub async fn run<S: Stack>(stack: S, run: Run, size: usize, way: Way, count: usize, units: f64) -> Result<Sample> {
    let (client, server) = pair(&stack, run).await?;
    let (mut from, mut to) = match way {
        Way::Up => (client, server),
        Way::Down => (server, client),
    };
    let warm = run.warm_up(count);
    let (begin, end) = (meeting(2), meeting(2));
    let reader = tokio::spawn({
        let (begin, end) = (begin.clone(), end.clone());
        async move {
            let mut buf = vec![0; READ];
            drain(&mut to, &mut buf, warm * size).await?;
            begin.wait().await;
            drain(&mut to, &mut buf, count * size).await?;
            end.wait().await;
            Ok::<_, crate::error::Error>(())
        }
    });
    let writer = tokio::spawn(async move {
        let chunk = vec![0x5a; size];
        S::send_many(&mut from, &chunk, warm).await?;
        begin.wait().await;
        let mark = Mark::now()?;
        S::send_many(&mut from, &chunk, count).await?;
        end.wait().await;
        mark.sample(units)
    });
    let (sample, read) = tokio::try_join!(writer, reader)?;
    read?;
    sample
}

/// Reads this many bytes, and discards them.
pub async fn drain<R: AsyncReadExt + Unpin>(from: &mut R, buf: &mut [u8], bytes: usize) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        match from.read(buf).await? {
            0 => return fail("the stream ended early"),
            n => left = left.checked_sub(n).ok_or("more came than was sent")?,
        }
    }
    Ok(())
}
