//! Lines on standard output. A separate thread writes them, so that a slow or stopped reader blocks no connection.
//!
//! The queue of unread lines is bounded (rule: write-10). A slow reader slows the service down and loses nothing: while
//! the queue holds more than [`SOFT`] bytes, [`Lines::room`] delays the next connection. A reader that has read nothing
//! for [`STALLED`] does not stop the service: connections are served, the queue grows to [`HARD`] bytes, and then lines
//! are dropped and counted. The count is written as a line as soon as the queue has space for it.
//!
//! A line that comes to an idle writer is written at once. Lines that come within [`GATHER`] after it are written
//! together, so that a busy service does not wake the writer for each.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

const SOFT: usize = 512 << 10;
const HARD: usize = 1 << 20;
const STALLED: Duration = Duration::from_secs(5);
/// How long the writer pauses after a write, unless there is enough for another full one.
const GATHER: Duration = Duration::from_millis(5);
/// The most bytes that are written at a time, unless one line is longer. A reader that takes less than this in
/// [`STALLED`] counts as stopped.
const AT_ONCE: usize = 4 << 10;
/// How long the program waits for a reader before it ends.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Lines {
    shared: Arc<Shared>,
    writer: Arc<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    has_lines: Condvar,
    has_room: Notify,
    /// The line that says how many lines were dropped.
    lost: fn(u64) -> String,
}

struct Queue {
    lines: VecDeque<String>,
    /// The bytes of all queued lines, and of those that are being written.
    bytes: usize,
    /// The writer waits to be notified of the next line.
    is_awaited: bool,
    /// Lines dropped since the last one that was kept.
    lost: u64,
    /// The time at which the reader last took a line, or at which the first line was queued.
    moved: Instant,
    /// No more lines will come, or standard output is closed.
    is_over: bool,
}

impl Lines {
    pub(crate) fn new(lost: fn(u64) -> String) -> Self {
        let queue = Queue {
            lines: VecDeque::new(),
            bytes: 0,
            is_awaited: false,
            lost: 0,
            moved: Instant::now(),
            is_over: false,
        };
        let shared = Shared { queue: Mutex::new(queue), has_lines: Condvar::new(), has_room: Notify::new(), lost };
        let shared = Arc::new(shared);
        let writing = Arc::clone(&shared);
        Self { shared, writer: Arc::new(thread::spawn(move || writing.write())) }
    }

    /// Queues a line. Never waits.
    pub(crate) fn push(&self, line: String) {
        let mut queue = self.shared.lock();
        if queue.bytes >= HARD {
            queue.lost += 1;
        } else if !queue.is_over {
            queue.push_lost(self.shared.lost);
            queue.push(line);
            let is_awaited = std::mem::take(&mut queue.is_awaited);
            drop(queue);
            if is_awaited {
                self.shared.has_lines.notify_one();
            }
        }
    }

    /// Waits while the queue is long, unless the reader has stopped.
    pub(crate) async fn room(&self) {
        loop {
            let mut has_room = std::pin::pin!(self.shared.has_room.notified());
            has_room.as_mut().enable();
            let Some(patience) = self.shared.lock().patience() else { return };
            // At the time-out, the loop checks again whether the reader has stopped.
            let _ = tokio::time::timeout(patience, has_room).await;
        }
    }

    /// Waits until all lines are written; for a reader that does not read, only for a bounded time.
    pub(crate) fn finish(&self) {
        self.shared.lock().is_over = true;
        self.shared.has_lines.notify_one();
        let patience = Instant::now() + LAST_PATIENCE;
        while !self.writer.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Queue {
    fn push(&mut self, line: String) {
        if self.bytes == 0 {
            self.moved = Instant::now();
        }
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
    }

    fn push_lost(&mut self, line: fn(u64) -> String) {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.push(line(lost));
        }
    }

    /// How long the next connection may be delayed; `None`: not at all.
    fn patience(&self) -> Option<Duration> {
        if self.bytes < SOFT || self.is_over { None } else { STALLED.checked_sub(self.moved.elapsed()) }
    }

    /// The first lines, each with its end, as many as are written at a time.
    fn take(&mut self) -> Option<String> {
        let mut text = self.lines.pop_front()?;
        text.push('\n');
        while self.lines.front().is_some_and(|line| text.len() + line.len() < AT_ONCE) {
            text.extend(self.lines.pop_front());
            text.push('\n');
        }
        Some(text)
    }

    fn written(&mut self, text: &str) {
        self.bytes -= text.len();
        self.moved = Instant::now();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next lines to write; `None` after the last one.
    fn next(&self) -> Option<String> {
        let mut queue = self.lock();
        loop {
            if queue.lines.is_empty() {
                queue.push_lost(self.lost);
            }
            if queue.lines.is_empty() && !queue.is_over {
                queue.is_awaited = true;
                queue = self.has_lines.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else {
                return queue.take();
            }
        }
    }

    fn write(&self) {
        let mut stdout = std::io::stdout().lock();
        while let Some(text) = self.next() {
            if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                // Standard output is closed, so no process reads it.
                let mut queue = self.lock();
                queue.is_over = true;
                queue.lines = VecDeque::new();
                queue.bytes = 0;
                break;
            }
            let is_busy = {
                let mut queue = self.lock();
                queue.written(&text);
                queue.bytes >= AT_ONCE || queue.is_over
            };
            self.has_room.notify_waiters();
            // If the queue already has enough for another full write, a pause would only limit the rate of lines.
            if !is_busy {
                thread::sleep(GATHER);
            }
        }
        self.has_room.notify_waiters();
    }
}
