//! The line that every radiograph goes through: next → preprocess → classify → assess → outbox → settle, with what goes back
//! to the PACS made on the way, and beside it
//! the drain that publishes what is in the outbox. Knows neither folders nor brokers.
//!
//! Two threads share the outbox. The caller's thread judges, and never waits for the broker: while that is away, reports
//! pile up in the outbox and files still leave the drop folder. The drain publishes the oldest reports, many on their way at
//! a time and in order, marks those sent that were acknowledged, and takes the next.

mod drain;
mod turn;

pub use turn::{judge, judge_and_draw};

use crate::assess::Assessor;
use crate::classifier::{Classifier, ClassifyError};
use crate::gallery::Gallery;
use crate::outbox::{Outbox, OutboxError};
use crate::sink::Sink;
use crate::sink::dicom_sr::{Results, ResultsError};
use crate::source::{Source, SourceError};
use crate::status::Status;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use turn::Way;

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
    /// What goes back to the PACS cannot be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// The drain ended without saying why.
    #[error("the thread that publishes reports panicked; this is a defect of the program")]
    Drain,
}

/// What stands along the line.
pub struct Line<'a> {
    /// Where radiographs come from.
    pub source: &'a mut dyn Source,
    /// What runs the network.
    pub classifier: &'a mut dyn Classifier,
    /// Where reports go.
    pub sink: &'a mut (dyn Sink + Send),
    /// What makes evidence a report.
    pub assessor: &'a Assessor,
    /// What goes back to the PACS beside it, where that is wanted.
    pub results: Option<&'a Results>,
    /// What keeps copies of radiographs for the dashboard, where that is wanted.
    pub gallery: Option<&'a Gallery>,
    /// What is counted along the way.
    pub status: &'a Status,
}

/// Runs until `running` says no. It is asked every turn, at least every quarter of a second while no image comes, and
/// only after the turn's work is done: who counts its calls counts progress. The outbox is lent: another run can go on
/// with it.
pub fn run(line: Line<'_>, outbox: &Mutex<Outbox>, running: &mut dyn FnMut() -> bool) -> Result<(), PipelineError> {
    thread::scope(|scope| {
        let (queued, news) = channel();
        let Line { source, classifier, sink, assessor, results, gallery, status } = line;
        let mut way = Way::new(source, classifier, assessor, results, gallery, status, outbox);
        let drain = scope.spawn(move || drain::drain(sink, outbox, status, &news));
        let mut judged = Ok(());
        while judged.is_ok() && !drain.is_finished() && running() {
            judged = way.turn().map(|new| {
                status.turn();
                if new {
                    // Fails only when the drain has ended, which the loop's condition sees.
                    let _ = queued.send(());
                }
            });
        }
        let judged = judged.and_then(|()| way.end());
        // Hanging up tells the drain to come to an end.
        drop(queued);
        let drained = drain.join().map_err(|_| PipelineError::Drain)?;
        judged?;
        Ok(drained?)
    })
}

/// A poisoned lock is used on: the outbox's own transactions keep it whole.
fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}
