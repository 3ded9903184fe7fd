//! One radiograph's way through the box, step by step: next → preprocess → classify → assess → outbox → settle. This is
//! the page to read to see what happens to an image. Publishes nothing.
//!
//! Where results go back to a PACS they are staged before the report enters the outbox, and released once it is in there:
//! whatever ends the program in between, the image is offered again, and neither is lost nor made for nothing.

use super::{PipelineError, lock};
use crate::assess::{self, Assessor, Seen, heatmap};
use crate::classifier::{Classifier, ClassifyError};
use crate::gallery::{self, Gallery};
use crate::outbox::{Enqueued, Outbox};
use crate::preprocess::preprocess;
use crate::radiograph::{OriginKind, Radiograph};
use crate::report::{Decision, Report, Timing};
use crate::sink::dicom_sr::{Made, Results};
use crate::source::{Condition, Content, Intake, Item, Outcome, Source};
use crate::status::Status;
use image::RgbImage;
use std::fmt::Display;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long one turn waits for an image before it asks again whether to go on.
const TURN: Duration = Duration::from_millis(250);

/// How often what is staged is written again while its report cannot be kept: now and then, since nothing else tells it from what
/// was left behind; not every turn, which would wear a card out.
const STAGED: Duration = Duration::from_secs(1800);

/// What stands along one radiograph's way.
pub(super) struct Way<'a> {
    source: &'a mut dyn Source,
    classifier: &'a mut dyn Classifier,
    assessor: &'a Assessor,
    results: Option<&'a Results>,
    gallery: Option<&'a Gallery>,
    status: &'a Status,
    outbox: &'a Mutex<Outbox>,
    /// How often the source's decoder had been replaced when the status was told.
    restarts: u64,
    /// An item whose report cannot be kept at present. No other is taken meanwhile.
    unkept: Option<Item>,
    /// What goes back to the PACS on the item at hand, until it is released.
    made: Option<Made>,
    /// What the dashboard is to show of the item at hand, until its report is durable.
    copy: Option<gallery::Copy>,
    /// When that was staged.
    staged: Option<Instant>,
    /// Whether it was said of the item at hand how its report stands.
    told: bool,
    /// Whether the drain has not been told of that yet.
    news: bool,
    /// Why that is, as it was said.
    trouble: Option<String>,
}

impl<'a> Way<'a> {
    pub(super) fn new(
        source: &'a mut dyn Source,
        classifier: &'a mut dyn Classifier,
        assessor: &'a Assessor,
        results: Option<&'a Results>,
        gallery: Option<&'a Gallery>,
        status: &'a Status,
        outbox: &'a Mutex<Outbox>,
    ) -> Self {
        let restarts = source.condition().decoder_restarts;
        Self {
            source,
            classifier,
            assessor,
            results,
            gallery,
            status,
            outbox,
            restarts,
            unkept: None,
            made: None,
            copy: None,
            staged: None,
            told: false,
            news: false,
            trouble: None,
        }
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
        let Some(item) = self.unkept.take() else { return Ok(()) };
        self.lay_down();
        if let Content::Judged(report) = &item.content {
            self.discard(&report.report_id);
        }
        Ok(self.source.settle(&item, Outcome::Later)?)
    }

    /// The way of one item: true when its report was queued.
    fn go(&mut self, mut item: Item) -> Result<bool, PipelineError> {
        if let Content::Refused(refusal) = &item.content {
            self.source.settle(&item, Outcome::Rejected(refusal.clone()))?;
            self.status.rejected(refusal.code);
            return Ok(false);
        }
        // By another model or configuration than this one's, or by a process that the file has in its hands.
        if let Content::Judged(report) = &item.content
            && !self.assessor.is_own(report)
        {
            self.discard(&report.report_id);
            self.source.settle(&item, Outcome::Disbelieved)?;
            return Ok(false);
        }
        match self.report(&mut item) {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    log::info!("reports can be kept again");
                }
                self.source.settle(&item, Outcome::Reported)?;
                self.lay_down();
            }
            // The disk is full, read-only or away: the image waits where it is, and so does the line.
            Err(PipelineError::Outbox(error)) if error.is_passing() => self.wait_with(item, &error),
            // Folders of our own: whatever is wrong with them passes, or somebody must see to it.
            Err(PipelineError::Results(error)) => self.wait_with(item, &error),
            Err(error) => return Err(error),
        }
        Ok(std::mem::take(&mut self.news))
    }

    /// Nothing is at hand any more.
    fn lay_down(&mut self) {
        (self.made, self.copy, self.staged, self.told) = (None, None, None, false);
    }

    /// Keeps an item at hand until what belongs to it can be kept.
    fn wait_with(&mut self, item: Item, error: &dyn Display) {
        self.say_once(error);
        self.unkept = Some(item);
        thread::sleep(TURN);
    }

    /// Removes what was staged for a report that does not come under this id.
    fn discard(&self, report_id: &str) {
        // What is staged for a report in the outbox is released when its image is offered again.
        if let Some(results) = self.results
            && matches!(lock(self.outbox).known(report_id), Ok(None))
        {
            results.discard(report_id);
        }
    }

    /// Sees to it that the image's report is durable. Once the image is judged the item holds its report in the place of
    /// its pixels, so that it is judged once, however long the report cannot be kept.
    fn report(&mut self, item: &mut Item) -> Result<(), PipelineError> {
        if let Content::Radiograph(radiograph) = &item.content {
            let id = self.assessor.report_id(&radiograph.origin);
            let known = lock(self.outbox).known(&id)?;
            if let Some(known) = known {
                let sequence = known.sequence();
                if !self.told {
                    self.told = true;
                    self.status.repeated();
                    log::info!(
                        ROENTGEN_REPORT_ID = id.as_str(), ROENTGEN_SEQUENCE = sequence;
                        "the same image again: it stands as report {sequence}, it is not judged again"
                    );
                }
                return self.release(&id, sequence);
            }
            let maker = self.results.map(Results::maker);
            let filing = item.filing.take();
            if let Some(results) =
                self.results.filter(|_| filing.is_none() && radiograph.origin.kind == OriginKind::Dicom)
            {
                results.unfiled();
            }
            let draw = filing.is_some() && maker.is_some_and(|maker| maker.wants_picture());
            let (received_at, decode) = (item.received_at, item.decode);
            let wanted = Wanted { picture: draw, copy: self.gallery.is_some() };
            let Judged { report, picture, copy } =
                judge_for(wanted, radiograph, received_at, decode, self.classifier, self.assessor)?;
            self.copy = copy;
            self.made = maker.zip(filing).map(|(maker, filing)| maker.make(&filing, &report, picture.as_ref()));
            item.content = Content::Judged(Box::new(report));
        }
        let Content::Judged(report) = &item.content else { return Ok(()) };
        if let (Some(results), Some(made)) = (self.results, &self.made)
            && self.staged.is_none_or(|staged| staged.elapsed() >= STAGED)
        {
            results.stage(made)?;
            self.staged = Some(Instant::now());
        }
        let (enqueued, losses) = {
            let mut outbox = lock(self.outbox);
            (outbox.enqueue(report), outbox.take_losses())
        };
        self.status.dropped(losses.dropped);
        self.status.undeliverable(losses.undeliverable);
        let enqueued = enqueued?;
        match enqueued {
            Enqueued::Queued(sequence) => {
                (self.told, self.news) = (true, true);
                self.status.judged(report);
                tell(sequence, report);
            }
            // By this very item, in an earlier turn.
            Enqueued::AlreadyKnown { .. } if self.told => {}
            Enqueued::AlreadyKnown { sequence, .. } => {
                self.told = true;
                self.status.repeated();
                log::info!(
                    ROENTGEN_REPORT_ID = report.report_id.as_str(), ROENTGEN_SEQUENCE = sequence;
                    "the same image again: it stands as report {sequence}, no second one is sent"
                );
            }
        }
        let (id, sequence) = (report.report_id.clone(), enqueued.sequence());
        if let (Some(gallery), Some(copy)) = (self.gallery, self.copy.take()) {
            gallery.keep(&id, copy);
        }
        self.release(&id, sequence)
    }

    /// The report is durable: what was staged for the PACS may go, be it from now or from before a crash.
    fn release(&mut self, report_id: &str, sequence: u64) -> Result<(), PipelineError> {
        if let Some(results) = self.results {
            results.release(report_id, sequence)?;
            self.made = None;
        }
        Ok(())
    }

    /// Tells the status how it stands with the source, with what judges, and with the results.
    fn tell(&mut self) {
        self.classifier.tend();
        if let Some(running) = self.classifier.running() {
            self.status.runs(running);
        }
        self.status.results(self.results.map(Results::standing));
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
    fn say_once(&mut self, error: &dyn Display) {
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
    Ok(judge_and_draw(radiograph, received_at, decode, classifier, assessor, false)?.0)
}

/// The same, and draws the picture for a reader where it is wanted.
pub fn judge_and_draw(
    radiograph: &Radiograph,
    received_at: SystemTime,
    decode: Duration,
    classifier: &mut dyn Classifier,
    assessor: &Assessor,
    draw: bool,
) -> Result<(Report, Option<RgbImage>), ClassifyError> {
    let wanted = Wanted { picture: draw, copy: false };
    let judged = judge_for(wanted, radiograph, received_at, decode, classifier, assessor)?;
    Ok((judged.report, judged.picture))
}

/// What is wanted of a radiograph besides its report.
#[derive(Clone, Copy)]
struct Wanted {
    /// The picture for a reader.
    picture: bool,
    /// The copy for the dashboard.
    copy: bool,
}

/// What came of it.
struct Judged {
    report: Report,
    picture: Option<RgbImage>,
    copy: Option<gallery::Copy>,
}

fn judge_for(
    wanted: Wanted,
    radiograph: &Radiograph,
    received_at: SystemTime,
    decode: Duration,
    classifier: &mut dyn Classifier,
    assessor: &Assessor,
) -> Result<Judged, ClassifyError> {
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
    let report = assessor.assess(&seen, received_at, timing, 0, classifier.name());
    let picture = wanted.picture.then(|| heatmap::render(&seen, &report));
    let copy = wanted.copy.then(|| gallery::Copy::of(radiograph, assess::evidence_map(&evidence)));
    Ok(Judged { report, picture, copy })
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
