//! A pool of threads that share out small tasks, a few microseconds apart. Not an executor: one caller, one list of tasks at
//! a time, and the caller works along as thread 0.
//!
//! Tasks are handed out one by one from a counter, so that a slow core (the LITTLE ones of big.LITTLE, or one that another
//! process uses) takes fewer of them. A thread that comes too late is not waited for: it *enters* a region of tasks only
//! while the region is open, and the caller waits for those that have entered. Between regions threads spin for some tens of
//! microseconds, which is longer than what lies between two layers of a network, and then park until the next call.
#![allow(unsafe_code)] // The tasks of one call borrow what outlives the call, not what lives for ever: see `Workers::run`.

mod pin;
mod split;

pub use split::{Cut, Share};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most threads of a pool.
pub const MAX_THREADS: usize = 256;

/// How long a thread without work spins before it parks.
const SPIN: Duration = Duration::from_micros(60);

/// Of the state: whether the region takes threads in.
const OPEN: u64 = 1 << 31;
/// Of the state: how many threads are in the region, the caller not counted.
const ENTERED: u64 = OPEN - 1;
/// Of the state: one region more.
const REGION: u64 = 1 << 32;

/// What a task is: called with the thread's number and the task's.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The pool. Dropping it ends and joins its threads.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Number of the region, whether it is open, how many threads are in it.
    state: AtomicU64,
    /// The next task of the region, and how many it has.
    next: AtomicUsize,
    tasks: AtomicUsize,
    /// What the tasks are. Borrowed for the region only, see [`Workers::run`].
    job: Mutex<Option<&'static Task<'static>>>,
    /// The first panic of a task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    /// How many threads run.
    started: AtomicUsize,
    /// Which threads are parked, or about to be.
    parked: Vec<AtomicBool>,
}

impl Workers {
    /// A pool of `threads` threads, the caller being one of them; at least 1, at most [`MAX_THREADS`]. With `pin` each
    /// thread but the caller keeps to one processor.
    pub fn new(threads: usize, pin: bool) -> std::io::Result<Self> {
        let others = threads.clamp(1, MAX_THREADS) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            job: Mutex::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            parked: (0..others).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Self { shared, threads: Vec::with_capacity(others) };
        for other in 0..others {
            let shared = Arc::clone(&workers.shared);
            let thread = std::thread::Builder::new().name(format!("worker-{}", other + 1)).spawn(move || {
                if pin {
                    pin::to_processor(other + 1);
                }
                shared.started.fetch_add(1, Ordering::Release);
                shared.work(other);
            })?;
            workers.threads.push(thread);
        }
        // A thread allocates as it starts: once all have, nothing does.
        while workers.shared.started.load(Ordering::Acquire) < others {
            std::thread::yield_now();
        }
        Ok(workers)
    }

    /// How many threads there are, the caller being one.
    pub fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `task(thread, number)` once for each number below `tasks`, in any order, on any of the threads, and returns
    /// when all are done. A panic in one of them ends the list early and goes on in the caller.
    pub fn run<'a>(&mut self, tasks: usize, task: &'a Task<'a>) {
        if self.threads.is_empty() || tasks < 2 {
            (0..tasks).for_each(|number| task(0, number));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetimes are changed. A thread gets at the reference only while it has entered the region
        // (`Shared::enter`), and below, before this function returns or unwinds, the region is closed and every thread that
        // entered has left it. `&mut self` keeps another region from being opened meanwhile.
        let job = unsafe { std::mem::transmute::<&'a Task<'a>, &'static Task<'static>>(task) };
        *locked(&shared.job) = Some(job);
        shared.next.store(0, Ordering::Relaxed);
        shared.tasks.store(tasks, Ordering::Relaxed);
        // Closed and empty since the last call: the next number, open. In one order with the flags of parked threads.
        let region = shared.state.load(Ordering::Relaxed) & !(OPEN | ENTERED);
        shared.state.store(region.wrapping_add(REGION) | OPEN, Ordering::SeqCst);
        for (parked, thread) in shared.parked.iter().zip(&self.threads).take(tasks - 1) {
            if parked.load(Ordering::SeqCst) {
                parked.store(false, Ordering::Relaxed);
                thread.thread().unpark();
            }
        }

        shared.take_tasks(0, job);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0u32;
        while shared.state.load(Ordering::Acquire) & ENTERED != 0 {
            turns = turns.saturating_add(1);
            // Where there are fewer processors than threads the one waited for must get ours.
            if turns > 20_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        *locked(&shared.job) = None;
        let panic = locked(&shared.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A task's panic was caught where it happened; there is nothing that this could tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of thread `other + 1`.
    fn work(&self, other: usize) {
        let mut last = 0;
        while let Some(region) = self.wait(other, last) {
            if let Some(job) = self.enter(region) {
                self.take_tasks(other + 1, job);
                self.state.fetch_sub(1, Ordering::Release);
            }
            last = region;
        }
    }

    /// Waits for an open region other than `last` and gives its number; `None` when the pool ends.
    fn wait(&self, other: usize, last: u64) -> Option<u64> {
        let news = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state / REGION != last).then_some(state / REGION)
        };
        let mut since = Instant::now();
        loop {
            for _ in 0..64 {
                if let Some(region) = news() {
                    return Some(region);
                }
                std::hint::spin_loop();
            }
            if self.stop.load(Ordering::SeqCst) {
                return None;
            }
            if since.elapsed() < SPIN {
                continue;
            }
            // Said before the last look, so that a region that opens after that look finds it said.
            self.parked[other].store(true, Ordering::SeqCst);
            if news().is_none() && !self.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.parked[other].store(false, Ordering::Relaxed);
            since = Instant::now();
        }
    }

    /// Enters the region if it is still open, and gives what its tasks are.
    fn enter(&self, region: u64) -> Option<&'static Task<'static>> {
        let mut state = self.state.load(Ordering::Acquire);
        while state & OPEN != 0 && state / REGION == region {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((*locked(&self.job)).unwrap_or(&|_, _| ())),
                Err(now) => state = now,
            }
        }
        None
    }

    /// Does tasks until there are none left. Never unwinds: the first panic is kept for the caller, and ends the list.
    fn take_tasks(&self, thread: usize, task: &Task<'_>) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                if number >= tasks {
                    return;
                }
                task(thread, number);
            }
        }));
        if let Err(panic) = done {
            self.next.store(tasks, Ordering::Relaxed);
            let mut first = locked(&self.panic);
            match &*first {
                None => *first = Some(panic),
                // Not dropped: what somebody panicked with may panic when it is.
                Some(_) => std::mem::forget(panic),
            }
        }
    }
}

/// What a mutex holds, whether or not a thread panicked while it held it: both are replaced as a whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_whatever_the_threads() {
        for threads in [1, 2, 3, 4, 9] {
            let mut workers = Workers::new(threads, threads == 3).expect("threads can be made");
            assert_eq!(workers.count(), threads);
            for tasks in [0, 1, 2, 7, 100] {
                for turn in 0..50 {
                    let done: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    workers.run(tasks, &|thread, number| {
                        assert!(thread < threads);
                        done[number].fetch_add(1, Ordering::Relaxed);
                    });
                    let counts: Vec<usize> = done.iter().map(|count| count.load(Ordering::Relaxed)).collect();
                    assert_eq!(counts, vec![1; tasks]);
                    if turn == 25 {
                        // Long enough for all of them to park.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
        }
    }

    #[test]
    fn other_threads_take_part() {
        let mut workers = Workers::new(3, false).expect("threads can be made");
        let seen = Mutex::new(std::collections::BTreeSet::new());
        workers.run(3, &|thread, _| {
            locked(&seen).insert(thread);
            let start = Instant::now();
            // Each waits for the others, so that none can do two tasks.
            while locked(&seen).len() < 3 && start.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
        });
        assert_eq!(locked(&seen).iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_works_on() {
        let mut workers = Workers::new(3, false).expect("threads can be made");
        for culprit in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                workers.run(20, &|_, number| assert!(number != culprit, "task {number}"));
            }));
            let panic = result.expect_err("it goes on in the caller");
            let text = panic.downcast_ref::<String>().expect("a message");
            assert!(text.contains(&format!("task {culprit}")), "{text}");
            let count = AtomicUsize::new(0);
            workers.run(20, &|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 20);
        }
    }
}
