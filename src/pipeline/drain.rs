//! The other half of the line: publishes what is in the outbox, in order, and marks it sent on the acknowledgement.
//! Judges nothing.
//!
//! Trouble of the broker and passing trouble of the disk are waited out, and said once. A report that can never be
//! delivered is struck off, so that the others are not held up by it.

use super::lock;
use crate::assess;
use crate::outbox::{Outbox, OutboxError};
use crate::report::Message;
use crate::sink::{Sink, SinkError};
use crate::status::{QueueDepth, Status};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// How many reports are taken from the outbox at a time: what a crash makes the box send again at most.
const BATCH: usize = 64;

/// How long a stop goes on publishing what is queued while the broker acknowledges it.
const GRACE: Duration = Duration::from_secs(5);

/// The pause after nothing could be published; the sink has waited for its own patience before.
const RETRY: Duration = Duration::from_millis(200);

/// How often the depth of the queue is told while reports pass.
const TELL: Duration = Duration::from_secs(2);

/// How often the outbox is tidied up while no report comes.
const IDLE: Duration = Duration::from_secs(60);

/// Publishes what is queued, oldest first, until the other end of `news` hangs up.
pub(super) fn drain(
    sink: &mut (dyn Sink + Send),
    outbox: &Mutex<Outbox>,
    status: &Status,
    news: &Receiver<()>,
) -> Result<(), OutboxError> {
    let mut drain = Drain { sink, outbox, status, asked_again: false, trouble: None, disk: None, told: None };
    drain.tidy()?;
    let mut stop_at = None;
    loop {
        let hung_up = loop {
            match news.try_recv() {
                Ok(()) => {}
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        if hung_up && Instant::now() >= *stop_at.get_or_insert_with(|| Instant::now() + GRACE) {
            return Ok(());
        }
        match drain.step()? {
            Step::On => {}
            Step::Stuck if hung_up => return Ok(()),
            Step::Stuck => thread::sleep(RETRY),
            Step::Empty => match news.recv_timeout(IDLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => drain.tidy()?,
            },
        }
    }
}

/// What came of one step.
enum Step {
    /// Some reports are through; there may be more.
    On,
    /// None is, for now.
    Stuck,
    /// Nothing waits.
    Empty,
}

struct Drain<'a> {
    sink: &'a mut (dyn Sink + Send),
    outbox: &'a Mutex<Outbox>,
    status: &'a Status,
    /// Whether what was struck off before has been looked at again: the sink's limits may be others by now.
    asked_again: bool,
    /// Why reports wait, as it was last said: the broker may be away for a week.
    trouble: Option<String>,
    /// What the disk had, as it was last said.
    disk: Option<String>,
    /// When the depth of the queue was told, and what was told of unsent reports.
    told: Option<(Instant, u64)>,
}

impl Drain<'_> {
    /// Takes the oldest reports, publishes them and marks what was acknowledged.
    fn step(&mut self) -> Result<Step, OutboxError> {
        if !self.asked_again {
            self.ask_again()?;
        }
        let batch = lock(self.outbox).next_batch(BATCH);
        self.tell(batch.as_ref().is_ok_and(Vec::is_empty));
        let Some(batch) = self.unless_passing(batch)? else { return Ok(Step::Stuck) };
        if batch.is_empty() {
            return Ok(Step::Empty);
        }
        let (acknowledged, ended) = self.sink.publish_all(&batch);
        if let Some(last) = batch[..acknowledged].last() {
            // Where the disk does not take the mark now the outbox still knows it, and writes it later.
            let marked = lock(self.outbox).mark_sent_up_to(last.sequence);
            self.unless_passing(marked)?;
            self.status.published(acknowledged as u64);
            if self.trouble.take().is_some() {
                log::info!(
                    ROENTGEN_REPORT_ID = batch[0].report_id.as_str(), ROENTGEN_SEQUENCE = batch[0].sequence;
                    "reports are delivered again, from report {} on", batch[0].sequence
                );
            }
        }
        match (ended, batch.get(acknowledged)) {
            (Err(SinkError::Undeliverable(problem)), Some(message)) => self.give_up(message, &problem),
            (Err(SinkError::Waiting(problem)), Some(message)) if acknowledged == 0 => {
                if self.trouble.as_ref() != Some(&problem) {
                    let Message { sequence, report_id, .. } = message;
                    log::warn!(
                        ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
                        "report {sequence} waits: {problem}"
                    );
                    self.trouble = Some(problem);
                }
                Ok(Step::Stuck)
            }
            _ => Ok(Step::On),
        }
    }

    fn ask_again(&mut self) -> Result<(), OutboxError> {
        let requeued = lock(self.outbox).requeue(&mut |message| self.sink.fits(message));
        if let Some(requeued) = self.unless_passing(requeued)? {
            self.asked_again = true;
            if requeued > 0 {
                log::info!("{requeued} reports that could not be delivered before can be now; they are queued again");
            }
        }
        Ok(())
    }

    fn give_up(&mut self, message: &Message, problem: &str) -> Result<Step, OutboxError> {
        let Message { sequence, report_id, .. } = message;
        log::error!(
            ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
            "report {sequence} cannot be delivered and is struck off the queue; `roentgend reports` still shows it: {problem}"
        );
        let struck = lock(self.outbox).give_up(message.sequence, problem);
        self.tell(false);
        Ok(if self.unless_passing(struck)?.is_some() { Step::On } else { Step::Stuck })
    }

    fn tidy(&mut self) -> Result<(), OutboxError> {
        let tidied = lock(self.outbox).tidy(assess::clock());
        self.tell(false);
        self.unless_passing(tidied).map(drop)
    }

    /// Tells what was given up, and now and then how much waits; that nothing does, at once.
    fn tell(&mut self, is_empty: bool) {
        let mut outbox = lock(self.outbox);
        let losses = outbox.take_losses();
        let is_old = |(told, unsent): (Instant, u64)| told.elapsed() >= TELL || (is_empty && unsent > 0);
        // Where the disk does not say it now, it stays as it was told last.
        let unsent = self.told.is_none_or(is_old).then(|| outbox.unsent().ok()).flatten();
        let bytes = unsent.map(|_| outbox.bytes());
        drop(outbox);
        self.status.dropped(losses.dropped);
        self.status.undeliverable(losses.undeliverable);
        if let Some(unsent) = unsent {
            self.told = Some((Instant::now(), unsent));
            self.status.queue(QueueDepth { unsent, bytes });
        }
    }

    /// `None` for a trouble of the disk that may pass.
    fn unless_passing<T>(&mut self, result: Result<T, OutboxError>) -> Result<Option<T>, OutboxError> {
        match result {
            Ok(value) => {
                if self.disk.take().is_some() {
                    log::info!("the outbox can be used again");
                }
                Ok(Some(value))
            }
            Err(error) if error.is_passing() => {
                let error = error.to_string();
                if self.disk.as_ref() != Some(&error) {
                    log::warn!("{error}; trying again");
                    self.disk = Some(error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
