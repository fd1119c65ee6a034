//! Sends a file as applications do, with `tokio::io::copy`.

use std::io::{SeekFrom, Write};

use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::bulk::{READ, drain};
use super::{Run, meeting, pair};
use crate::error::Result;
use crate::measure::{Mark, Sample};
use crate::peers::Stack;

/// Sends the file `times` times from the client to the server, after once to warm up. Units: GiB.
pub async fn run<S: Stack>(stack: S, run: Run, size: usize, times: usize) -> Result<Sample> {
    let mut file = file(size)?;
    let (mut from, mut to) = pair(&stack, run).await?;
    let (begin, end) = (meeting(2), meeting(2));
    let reader = tokio::spawn({
        let (begin, end) = (begin.clone(), end.clone());
        async move {
            let mut buf = vec![0; READ];
            drain(&mut to, &mut buf, size).await?;
            begin.wait().await;
            drain(&mut to, &mut buf, times * size).await?;
            end.wait().await;
            Ok::<_, crate::error::Error>(())
        }
    });
    let writer = tokio::spawn(async move {
        tokio::io::copy(&mut file, &mut from).await?;
        from.flush().await?;
        begin.wait().await;
        let mark = Mark::now()?;
        for _ in 0..times {
            file.seek(SeekFrom::Start(0)).await?;
            tokio::io::copy(&mut file, &mut from).await?;
        }
        from.flush().await?;
        end.wait().await;
        mark.sample((times * size) as f64 / f64::from(1 << 30))
    });
    let (sample, read) = tokio::try_join!(writer, reader)?;
    read?;
    sample
}

/// A temporary file without a name, which the kernel holds in its page cache.
fn file(size: usize) -> Result<File> {
    let path = std::env::temp_dir().join(format!("bench-copy-{}", std::process::id()));
    let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let piece = vec![0x5a; 1 << 20];
    for _ in 0..size.div_ceil(piece.len()) {
        file.write_all(&piece)?;
    }
    file.set_len(size as u64)?;
    std::io::Seek::rewind(&mut file)?;
    Ok(File::from_std(file))
}
