//! Files, and other readers, as producers.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::conn::{Conn, Handle, PullProducer};
use super::failure::CallbackResult;
use super::guard::guard;
use crate::error::Error;

/// The default number of bytes that are read at a time.
const PIECE: usize = 64 << 10;
/// The largest number of bytes that are read at a time. A piece is kept in memory, so this also bounds the memory for
/// a source that never ends.
const LARGEST_PIECE: usize = 1 << 20;

/// Sends a file, or another reader, as fast as the peer accepts the bytes. It reads on a thread of the runtime's
/// blocking pool, keeps one piece in memory, and unregisters itself after the last piece.
///
/// # Errors
/// If a read fails, the connection ends with that error as the reason (rule: life-3).
///
/// ```no_run
/// # fn send(conn: &mut dyn bowline::protocol::Conn) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use bowline::protocol::{FileProducer, Producer};
///
/// let file = FileProducer::new(std::fs::File::open("picture.png")?).progress(|sent| println!("{sent} bytes"));
/// conn.register_producer(Producer::pull(file))?;
/// conn.close(); // after its last byte
/// # Ok(()) }
/// ```
#[doc(alias = "FileSender")]
#[doc(alias = "sendfile")]
pub struct FileProducer<R = File> {
    /// `None` during a read, and after the last piece.
    reader: Arc<Mutex<Option<Reader<R>>>>,
}

impl<R> fmt::Debug for FileProducer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProducer").finish_non_exhaustive()
    }
}

struct Reader<R> {
    source: R,
    piece: usize,
    left: u64,
    sent: u64,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl<R: Read + Send + 'static> FileProducer<R> {
    /// Sends all bytes from the reader's position to its end.
    pub fn new(source: R) -> Self {
        let reader = Reader { source, piece: PIECE, left: u64::MAX, sent: 0, progress: Box::new(|_| {}) };
        Self { reader: Arc::new(Mutex::new(Some(reader))) }
    }

    /// The number of bytes that are read at a time; default 64 KiB, at least 1, at most 1 MiB (rule: write-8).
    pub fn piece(self, bytes: usize) -> Self {
        self.with(|reader| reader.piece = bytes.clamp(1, LARGEST_PIECE))
    }

    /// Sends no more than this many bytes.
    pub fn limit(self, bytes: u64) -> Self {
        self.with(|reader| reader.left = bytes)
    }

    /// Calls this function before each piece is written, with the number of bytes so far, including this piece. The
    /// function runs on a thread of the blocking pool.
    pub fn progress(self, progress: impl FnMut(u64) + Send + 'static) -> Self {
        self.with(|reader| reader.progress = Box::new(progress))
    }

    fn with(self, change: impl FnOnce(&mut Reader<R>)) -> Self {
        self.lock(|reader| {
            if let Some(reader) = reader {
                change(reader);
            }
        });
        self
    }

    fn lock<T>(&self, f: impl FnOnce(&mut Option<Reader<R>>) -> T) -> T {
        f(&mut self.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<R: Read + Send + 'static> PullProducer for FileProducer<R> {
    fn produce(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let Some(mut reader) = self.lock(Option::take) else { return Ok(()) };
        let (home, handle) = (Arc::clone(&self.reader), conn.handle());
        tokio::task::spawn_blocking(move || {
            let outcome = guard(|| {
                let piece = reader.read()?;
                if piece.is_empty() {
                    handle.unregister_producer();
                } else {
                    reader.send(&piece, home, &handle);
                }
                Ok(())
            });
            // rule: life-7: if a reader or its progress function panics, the connection ends.
            outcome.unwrap_or_else(|reason| handle.fail(Error::from(reason)));
        });
        Ok(())
    }

    fn stop(&mut self) {
        self.lock(Option::take);
    }
}

impl<R: Read> Reader<R> {
    /// Reads the next piece. It is empty at the end.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let most = self.left.min(self.piece as u64);
        let mut piece = Vec::with_capacity(most as usize);
        self.source.by_ref().take(most).read_to_end(&mut piece)?;
        self.left -= piece.len() as u64;
        self.sent += piece.len() as u64;
        Ok(piece)
    }

    /// Writes the piece. The reader is put back first, because the next piece may be requested as soon as this one
    /// has left.
    fn send(mut self, piece: &[u8], home: Arc<Mutex<Option<Self>>>, handle: &Handle) {
        (self.progress)(self.sent);
        let is_last = self.left == 0 || piece.len() < self.piece;
        if !is_last {
            *home.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
        }
        handle.write(piece);
        if is_last {
            handle.unregister_producer();
        }
    }
}
