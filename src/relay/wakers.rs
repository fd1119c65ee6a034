//! Tracks which parts of a relay have something to do.

use std::mem;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// A part of a relay that waits for its own events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Part {
    /// The direction from the first leg to the second.
    There = 1,
    /// The opposite direction.
    Back = 2,
    /// The detection of a lost leg that is not read.
    Loss = 4,
}

/// One waker for each part. Each waker wakes the task and records which part was woken. Without this, the task would
/// have to poll all parts at every event of one leg.
pub(super) struct Wakers {
    shared: Arc<Shared>,
    wakers: [Waker; 3],
    /// The task that the wakers wake.
    task: Waker,
}

struct Shared {
    ready: AtomicU8,
    task: Mutex<Waker>,
}

struct PartWaker {
    shared: Arc<Shared>,
    part: Part,
}

impl Wakers {
    /// All parts count as woken at first, because each part must be polled once before it can wait.
    pub(super) fn new() -> Self {
        let all = Part::There as u8 | Part::Back as u8 | Part::Loss as u8;
        let shared = Arc::new(Shared { ready: AtomicU8::new(all), task: Mutex::new(Waker::noop().clone()) });
        let wakers = [Part::There, Part::Back, Part::Loss]
            .map(|part| Waker::from(Arc::new(PartWaker { shared: Arc::clone(&shared), part })));
        Self { shared, wakers, task: Waker::noop().clone() }
    }

    /// Returns the parts that were woken since the last call. From now on, an event of any part wakes this task.
    pub(super) fn take_ready(&mut self, cx: &Context<'_>) -> Ready {
        if !self.task.will_wake(cx.waker()) {
            self.task.clone_from(cx.waker());
            let task = self.task.clone();
            let before = mem::replace(&mut *self.shared.task.lock().unwrap_or_else(PoisonError::into_inner), task);
            // Dropping a waker may run foreign code, so this happens after the lock is released.
            drop(before);
        }
        // The task was registered before this, so a part that is woken later wakes it.
        Ready(self.shared.ready.swap(0, Ordering::AcqRel))
    }

    pub(super) fn of(&self, part: Part) -> &Waker {
        match part {
            Part::There => &self.wakers[0],
            Part::Back => &self.wakers[1],
            Part::Loss => &self.wakers[2],
        }
    }
}

/// A set of the relay's [`Part`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready(u8);

impl Ready {
    pub(super) fn has(self, part: Part) -> bool {
        self.0 & part as u8 != 0
    }
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // If a part was woken before, the task has been woken already and has not checked the parts yet.
        if self.shared.ready.fetch_or(self.part as u8, Ordering::AcqRel) == 0 {
            let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_part_that_is_woken_wakes_the_task_once_and_is_known_to_be_ready() {
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let (one, two) = (Waker::from(Arc::clone(&first)), Waker::from(Arc::clone(&second)));
        let mut wakers = Wakers::new();
        let ready = wakers.take_ready(&Context::from_waker(&one));
        assert!([Part::There, Part::Back, Part::Loss].into_iter().all(|part| ready.has(part)));
        assert_eq!(wakers.take_ready(&Context::from_waker(&one)), Ready(0));

        wakers.of(Part::Back).wake_by_ref();
        let waker = wakers.of(Part::Back).clone();
        waker.wake();
        wakers.of(Part::Loss).wake_by_ref();
        assert_eq!(first.0.load(Ordering::SeqCst), 1, "it has not looked yet");
        let ready = wakers.take_ready(&Context::from_waker(&two));
        assert!(ready.has(Part::Back) && ready.has(Part::Loss) && !ready.has(Part::There));

        wakers.of(Part::There).wake_by_ref();
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (1, 1), "the task has moved");
        assert!(wakers.take_ready(&Context::from_waker(&two)).has(Part::There));
    }
}
