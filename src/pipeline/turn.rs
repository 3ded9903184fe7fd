//! One radiograph's way through the box, step by step: next → preprocess → classify → assess → outbox → settle. This is
//! the page to read to see what happens to an image. Publishes nothing.

use super::{PipelineError, lock};
use crate::assess::{Assessor, Seen};
use crate::classifier::{Classifier, ClassifyError};
use crate::outbox::{Enqueued, Outbox};
use crate::preprocess::preprocess;
use crate::radiograph::Radiograph;
use crate::report::{Decision, Report, Timing};
use crate::source::{Item, Outcome, Source};
use crate::status::Status;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// How long one turn waits for an image before it asks again whether to go on.
const TURN: Duration = Duration::from_millis(250);

/// What stands along one radiograph's way.
pub(super) struct Way<'a> {
    pub(super) source: &'a mut dyn Source,
    pub(super) classifier: &'a mut dyn Classifier,
    pub(super) assessor: &'a Assessor,
    pub(super) status: &'a Status,
    pub(super) outbox: &'a Mutex<Outbox>,
}

impl Way<'_> {
    /// One turn: at most one image. True when a report was queued.
    pub(super) fn turn(&mut self) -> Result<bool, PipelineError> {
        let Self { source, classifier, assessor, status, outbox } = self;
        let Some(item) = source.next(TURN)? else { return Ok(false) };
        let Item { radiograph, received_at, decode, .. } = &item;
        let radiograph = match radiograph {
            Ok(radiograph) => radiograph,
            Err(refusal) => {
                source.settle(&item, Outcome::Rejected(refusal.clone()))?;
                status.rejected(refusal.code);
                return Ok(false);
            }
        };
        let report = judge(radiograph, *received_at, *decode, *classifier, assessor)?;
        let enqueued = lock(outbox).enqueue(&report)?;
        match enqueued {
            Enqueued::Queued(sequence) => {
                status.judged(&report);
                tell(sequence, &report);
            }
            Enqueued::AlreadyKnown { sequence, .. } => {
                status.repeated();
                log::info!(
                    ROENTGEN_REPORT_ID = report.report_id.as_str(), ROENTGEN_SEQUENCE = sequence;
                    "the same image again: it stands as report {sequence}, no second one is sent"
                );
            }
        }
        source.settle(&item, Outcome::Reported)?;
        Ok(matches!(enqueued, Enqueued::Queued(_)))
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
