//! Progress for people: a bar on a terminal, a line now and then in a log.

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many lines a log gets for one piece of work.
const LOG_LINES: usize = 20;

/// One piece of work of known length.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    total: usize,
    done: AtomicUsize,
    started: Instant,
    log: bool,
}

impl Progress {
    /// Begins a piece of work of `total` steps.
    pub(crate) fn start(what: &str, total: usize) -> Self {
        let log = !std::io::stderr().is_terminal();
        let target = if log { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {per_sec} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar, what: what.to_owned(), total, done: AtomicUsize::new(0), started: Instant::now(), log }
    }

    /// `steps` more are done.
    pub(crate) fn advance(&self, steps: usize) {
        self.bar.inc(steps as u64);
        let before = self.done.fetch_add(steps, Ordering::Relaxed);
        let part = |done: usize| done * LOG_LINES / self.total.max(1);
        if self.log && part(before) != part(before + steps) {
            let done = before + steps;
            let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            let left = HumanDuration(Duration::from_secs_f64(self.total.saturating_sub(done) as f64 / rate));
            eprintln!("{}: {done}/{} ({rate:.1} a second, {left:#} left)", self.what, self.total);
        }
    }

    /// All is done.
    pub(crate) fn finish(&self) {
        self.bar.finish();
    }
}
