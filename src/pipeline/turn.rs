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
    /// An item whose report cannot be kept at present. No other is taken meanwhile.
    unkept: Option<Item>,
    /// Why that is, as it was said.
    trouble: Option<String>,
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
        Self { source, classifier, assessor, status, outbox, restarts, unkept: None, trouble: None }
    }

    /// One turn: at most one image. True when a report was queued.
    pub(super) fn turn(&mut self) -> Result<bool, PipelineError> {
        let item = match self.unkept.take() {
            Some(item) => Some(item),
            None => self.source.next(TURN)?,
        };
        let queued = match item {
            Some(item) => self.go(item)?,
            None => false,
        };
        self.tell();
        Ok(queued)
    }

    /// The way ends: what could not be kept is handed over again to the next one.
    pub(super) fn end(&mut self) -> Result<(), PipelineError> {
        match self.unkept.take() {
            Some(item) => Ok(self.source.settle(&item, Outcome::Later)?),
            None => Ok(()),
        }
    }

    /// The way of one item: true when its report was queued.
    fn go(&mut self, mut item: Item) -> Result<bool, PipelineError> {
        if let Content::Refused(refusal) = &item.content {
            self.source.settle(&item, Outcome::Rejected(refusal.clone()))?;
            self.status.rejected(refusal.code);
            return Ok(false);
        }
        // By another model or configuration than this one's, or by a process that the file has in its hands.
        if matches!(&item.content, Content::Judged(report) if !self.assessor.is_own(report)) {
            self.source.settle(&item, Outcome::Disbelieved)?;
            return Ok(false);
        }
        match self.report(&mut item) {
            Ok(new) => {
                if self.trouble.take().is_some() {
                    log::info!("reports can be kept again");
                }
                self.source.settle(&item, Outcome::Reported)?;
                Ok(new)
            }
            // The disk is full, read-only or away: the image waits where it is, and so does the line.
            Err(PipelineError::Outbox(error)) if error.is_passing() => {
                self.say_once(&error);
                self.unkept = Some(item);
                thread::sleep(TURN);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sees to it that the image's report is durable: true where that is a new one. Once the image is judged the item
    /// holds its report in the place of its pixels, so that it is judged once, however long the report cannot be kept.
    fn report(&mut self, item: &mut Item) -> Result<bool, PipelineError> {
        if let Content::Radiograph(radiograph) = &item.content {
            let id = self.assessor.report_id(&radiograph.origin);
            let known = lock(self.outbox).known(&id)?;
            if let Some(known) = known {
                self.status.repeated();
                let sequence = known.sequence();
                log::info!(
                    ROENTGEN_REPORT_ID = id.as_str(), ROENTGEN_SEQUENCE = sequence;
                    "the same image again: it stands as report {sequence}, it is not judged again"
                );
                return Ok(false);
            }
            let report = judge(radiograph, item.received_at, item.decode, self.classifier, self.assessor)?;
            item.content = Content::Judged(Box::new(report));
        }
        let Content::Judged(report) = &item.content else { return Ok(false) };
        let (enqueued, losses) = {
            let mut outbox = lock(self.outbox);
            (outbox.enqueue(report), outbox.take_losses())
        };
        self.status.dropped(losses.dropped);
        self.status.undeliverable(losses.undeliverable);
        let enqueued = enqueued?;
        match enqueued {
            Enqueued::Queued(sequence) => {
                self.status.judged(report);
                tell(sequence, report);
            }
            Enqueued::AlreadyKnown { sequence, .. } => {
                self.status.repeated();
                log::info!(
                    ROENTGEN_REPORT_ID = report.report_id.as_str(), ROENTGEN_SEQUENCE = sequence;
                    "the same image again: it stands as report {sequence}, no second one is sent"
                );
            }
        }
        Ok(matches!(enqueued, Enqueued::Queued(_)))
    }

    /// Tells the status how it stands with the source, and with what judges.
    fn tell(&mut self) {
        self.classifier.tend();
        if let Some(running) = self.classifier.running() {
            self.status.runs(running);
        }
        let Condition { intake, waiting, decoder_restarts } = self.source.condition();
        self.status.intake(match &self.trouble {
            Some(trouble) => Intake::Closed { reason: trouble.clone() },
            None => intake,
        });
        self.status.incoming(Some(waiting));
        for _ in self.restarts..decoder_restarts {
            self.status.decoder_restarted();
        }
        self.restarts = decoder_restarts;
    }

    /// Once per kind of trouble: a disk may be full for a week.
    fn say_once(&mut self, error: &OutboxError) {
        let error = error.to_string();
        if self.trouble.as_ref() != Some(&error) {
            log::error!("no image is taken until reports can be kept again: {error}");
            self.trouble = Some(error);
        }
    }
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

/// Says what was reported: a line for people, and its fields for who searches the journal.
fn tell(sequence: u64, report: &Report) {
    let id = report.report_id.as_str();
    let summary = summary(report);
    match &report.decision {
        Decision::Reported { label } => log::info!(
            ROENTGEN_REPORT_ID = id, ROENTGEN_SEQUENCE = sequence,
            ROENTGEN_DECISION = "reported", ROENTGEN_LABEL = label.name();
            "report {sequence}: {summary}"
        ),
        Decision::Abstained { reasons } => {
            let codes: Vec<_> = reasons.iter().map(|reason| reason.code.to_string()).collect();
            log::info!(
                ROENTGEN_REPORT_ID = id, ROENTGEN_SEQUENCE = sequence,
                ROENTGEN_DECISION = "abstained", ROENTGEN_REASONS = codes.join(" ");
                "report {sequence}: {summary}"
            );
        }
    }
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
