//! One radiograph's way through the box, step by step: next → preprocess → classify → assess → outbox → settle. This is
//! the page to read to see what happens to an image. Publishes nothing.

use super::{PipelineError, lock};
use crate::assess::{Assessor, Seen};
use crate::classifier::{Classifier, ClassifyError};
use crate::outbox::{Enqueued, Outbox, OutboxError};
use crate::preprocess::preprocess;
use crate::radiograph::Radiograph;
use crate::report::{Decision, Report, Timing};
use crate::source::{Condition, Content, Intake, Item, Outcome, Source};
use crate::status::Status;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long one turn waits for an image before it asks again whether to go on.
const TURN: Duration = Duration::from_millis(250);

/// What stands along one radiograph's way.
pub(super) struct Way<'a> {
    source: &'a mut dyn Source,
    classifier: &'a mut dyn Classifier,
    assessor: &'a Assessor,
    status: &'a Status,
    outbox: &'a Mutex<Outbox>,
    /// How often the source's decoder had been replaced when the status was told.
    restarts: u64,
    /// An item that is judged and whose report cannot be kept at present, and why. No other is taken meanwhile.
    unkept: Option<(Item, String)>,
}

impl<'a> Way<'a> {
    pub(super) fn new(
        source: &'a mut dyn Source,
        classifier: &'a mut dyn Classifier,
        assessor: &'a Assessor,
        status: &'a Status,
        outbox: &'a Mutex<Outbox>,
    ) -> Self {
        let restarts = source.condition().decoder_restarts;
        Self { source, classifier, assessor, status, outbox, restarts, unkept: None }
    }

    /// One turn: at most one image. True when a report was queued.
    pub(super) fn turn(&mut self) -> Result<bool, PipelineError> {
        let (item, trouble) = match self.unkept.take() {
            Some((item, trouble)) => (Some(item), Some(trouble)),
            None => (self.source.next(TURN)?, None),
        };
        let queued = match item {
            Some(item) => self.go(item, trouble)?,
            None => false,
        };
        self.tell();
        Ok(queued)
    }

    /// The way ends: what could not be kept is handed over again to the next one.
    pub(super) fn end(&mut self) -> Result<(), PipelineError> {
        match self.unkept.take() {
            Some((item, _)) => Ok(self.source.settle(&item, Outcome::Later)?),
            None => Ok(()),
        }
    }

    /// The way of one item. `trouble` is why its report could not be kept the last time.
    fn go(&mut self, item: Item, trouble: Option<String>) -> Result<bool, PipelineError> {
        let report = match &item.content {
            Content::Refused(refusal) => {
                self.source.settle(&item, Outcome::Rejected(refusal.clone()))?;
                self.status.rejected(refusal.code);
                return Ok(false);
            }
            Content::Radiograph(radiograph) => {
                judge(radiograph, item.received_at, item.decode, self.classifier, self.assessor)?
            }
            Content::Judged(report) => Report::clone(report),
        };
        // Not in the `match`, which would hold the lock to its end.
        let enqueued = lock(self.outbox).enqueue(&report);
        let enqueued = match enqueued {
            Err(error) if is_passing(&error) => {
                self.wait(item, report, &error, trouble);
                return Ok(false);
            }
            enqueued => enqueued?,
        };
        if trouble.is_some() {
            log::info!("reports can be kept again");
        }
        match enqueued {
            Enqueued::Queued(sequence) => {
                self.status.judged(&report);
                log::info!("report {sequence}: {}", summary(&report));
            }
            Enqueued::AlreadyKnown { sequence, .. } => {
                self.status.repeated();
                log::info!("the same image again: it stands as report {sequence}, no second one is sent");
            }
        }
        self.source.settle(&item, Outcome::Reported)?;
        Ok(matches!(enqueued, Enqueued::Queued(_)))
    }

    /// Holds an item whose report cannot be kept now, without its pixels, for the next turn.
    fn wait(&mut self, item: Item, report: Report, error: &OutboxError, before: Option<String>) {
        let trouble = error.to_string();
        if before.as_ref() != Some(&trouble) {
            log::warn!("no image is taken: {trouble}");
        }
        self.unkept = Some((Item { content: Content::Judged(Box::new(report)), ..item }, trouble));
        thread::sleep(TURN);
    }

    /// Tells the status how it stands with the source.
    fn tell(&mut self) {
        let Condition { intake, waiting, decoder_restarts } = self.source.condition();
        self.status.intake(match &self.unkept {
            Some((_, trouble)) => Intake::Closed { reason: trouble.clone() },
            None => intake,
        });
        self.status.incoming(Some(waiting));
        for _ in self.restarts..decoder_restarts {
            self.status.decoder_restarted();
        }
        self.restarts = decoder_restarts;
    }
}

/// Whether the disk may take the report the next time.
fn is_passing(error: &OutboxError) -> bool {
    matches!(error, OutboxError::Database { .. })
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
