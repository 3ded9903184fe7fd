//! The line that every radiograph goes through: next → preprocess → classify → assess → outbox → settle, and beside it
//! the drain that publishes what is in the outbox. Knows neither folders nor brokers.
//!
//! Two threads share the outbox. The caller's thread judges, and never waits for the broker: while that is away, reports
//! pile up in the outbox and files still leave the drop folder. The drain publishes the oldest report, waits for its
//! acknowledgement, marks it sent, and takes the next: in order, one at a time.

use crate::assess::{Assessor, Seen};
use crate::classifier::{Classifier, ClassifyError};
use crate::outbox::{Enqueued, Outbox, OutboxError};
use crate::preprocess::preprocess;
use crate::radiograph::Radiograph;
use crate::report::{Decision, Report, Timing};
use crate::sink::Sink;
use crate::source::{Item, Outcome, Source, SourceError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long one turn waits for an image before it asks again whether to go on.
const TURN: Duration = Duration::from_millis(250);

/// How long a stop goes on publishing what is queued while the broker acknowledges it.
const GRACE: Duration = Duration::from_secs(5);

/// The pause after a report could not be published; the sink has waited for its own patience before.
const RETRY: Duration = Duration::from_millis(200);

/// The line stopped, and with it the daemon. Nothing about a single image is in here.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// No more images can be taken or settled.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The network does not run; every image would fail alike.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
    /// Reports cannot be kept.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The drain ended without saying why.
    #[error("the thread that publishes reports panicked; this is a defect of the program")]
    Drain,
}

/// Runs until `running` says no. It is asked every turn, at least every quarter of a second while no image comes, and
/// only after the turn's work is done: who counts its calls counts progress.
pub fn run(
    source: &mut dyn Source,
    classifier: &mut dyn Classifier,
    sink: &mut (dyn Sink + Send),
    outbox: Outbox,
    assessor: &Assessor,
    running: &mut dyn FnMut() -> bool,
) -> Result<(), PipelineError> {
    let outbox = Mutex::new(outbox);
    thread::scope(|scope| {
        let (queued, news) = channel();
        let shared = &outbox;
        let drain = scope.spawn(move || drain(sink, shared, &news));
        let mut judged = Ok(());
        while judged.is_ok() && !drain.is_finished() && running() {
            judged = turn(source, classifier, &outbox, assessor).map(|new| {
                if new {
                    // Fails only when the drain has ended, which the loop's condition sees.
                    let _ = queued.send(());
                }
            });
        }
        // Hanging up tells the drain to come to an end.
        drop(queued);
        let drained = drain.join().map_err(|_| PipelineError::Drain)?;
        judged?;
        Ok(drained?)
    })
}

/// One turn: at most one image. True when a report was queued.
fn turn(
    source: &mut dyn Source,
    classifier: &mut dyn Classifier,
    outbox: &Mutex<Outbox>,
    assessor: &Assessor,
) -> Result<bool, PipelineError> {
    let Some(item) = source.next(TURN)? else { return Ok(false) };
    let Item { radiograph, received_at, decode, .. } = &item;
    let radiograph = match radiograph {
        Ok(radiograph) => radiograph,
        Err(refusal) => {
            let outcome = Outcome::Rejected(refusal.clone());
            source.settle(&item, outcome)?;
            return Ok(false);
        }
    };
    let report = judge(radiograph, *received_at, *decode, classifier, assessor)?;
    let enqueued = lock(outbox).enqueue(&report)?;
    match enqueued {
        Enqueued::Queued(sequence) => log::info!("report {sequence}: {}", summary(&report)),
        Enqueued::AlreadyKnown { sequence, .. } => {
            log::info!("the same image again: it stands as report {sequence}, no second one is sent");
        }
    }
    source.settle(&item, Outcome::Reported)?;
    Ok(matches!(enqueued, Enqueued::Queued(_)))
}

/// Judges one radiograph: preprocess → classify → assess. The report has no sequence yet.
pub fn judge(
    radiograph: &Radiograph,
    received_at: SystemTime,
    decode: Duration,
    classifier: &mut dyn Classifier,
    assessor: &Assessor,
) -> Result<Report, ClassifyError> {
    let started = Instant::now();
    let image = preprocess(radiograph);
    let preprocessed = started.elapsed();
    let evidence = classifier.classify(&image)?;
    let total = started.elapsed();
    let timing = Timing {
        decode: milliseconds(decode),
        preprocess: milliseconds(preprocessed),
        infer: milliseconds(total - preprocessed),
        total: milliseconds(decode + total),
    };
    let seen = Seen { radiograph, image: &image, evidence: &evidence };
    Ok(assessor.assess(&seen, received_at, timing, 0, classifier.name()))
}

/// Publishes what is queued, oldest first, until the other end of `news` hangs up.
fn drain(sink: &mut (dyn Sink + Send), outbox: &Mutex<Outbox>, news: &Receiver<()>) -> Result<(), OutboxError> {
    let mut stop_at = None;
    let mut trouble = None;
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
        let Some(report) = lock(outbox).next_unsent()? else {
            match news.recv_timeout(Duration::from_secs(60)) {
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(()) | Err(RecvTimeoutError::Timeout) => continue,
            }
        };
        match sink.publish(&report) {
            Ok(()) => {
                lock(outbox).mark_sent(report.sequence)?;
                if trouble.take().is_some() {
                    log::info!("report {} is delivered again", report.sequence);
                }
            }
            Err(error) => {
                let error = error.to_string();
                // Once per kind of trouble: the broker may be away for a week.
                if trouble.as_ref() != Some(&error) {
                    log::warn!("report {} waits: {error}", report.sequence);
                    trouble = Some(error);
                }
                if hung_up {
                    return Ok(());
                }
                thread::sleep(RETRY);
            }
        }
    }
}

/// A poisoned lock is used on: the outbox's own transactions keep it whole.
fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line about a report for the log, without anything that could name a patient.
fn summary(report: &Report) -> String {
    let outcome = match &report.decision {
        Decision::Reported { label } => label.name().to_owned(),
        Decision::Abstained { reasons } => {
            let messages: Vec<_> = reasons.iter().map(|reason| reason.message.as_str()).collect();
            format!("abstained ({})", messages.join("; "))
        }
    };
    let findings: Vec<_> = report.findings.iter().map(|f| format!("{} {:.3}", f.label, f.probability)).collect();
    format!("{outcome} [{}] in {:.0} ms", findings.join(", "), report.timing_ms.total)
}

/// To the microsecond: more digits would claim what no clock here measures.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
