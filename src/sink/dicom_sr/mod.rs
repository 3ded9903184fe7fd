//! Results back to the PACS: of each report on a DICOM radiograph a structured report and a picture, in the original's study,
//! made when it is judged, kept on disk until the PACS has acknowledged them. Not the judging and not the drawing.
//!
//! Off unless `[dicom_results]` names a PACS. It is the one way on which a patient's name goes through the program: from
//! the radiograph's file, sealed ([`crate::radiograph::dicom::Filing`]), into these objects; they lie in
//! `state_dir/results`, for the daemon's user alone, and go to that PACS and nowhere else. Logs, status and the outbox know them by
//! the report's id.
//!
//! [`Maker`] makes them, `store` keeps them, `send` brings them to the PACS in a thread of its own (C-STORE, `association`); what it
//! does not take is offered again by the rules of `tries`. What happens at a crash stands in `store`. Images that came as PNG, JPEG or from a camera have no study to be
//! filed in: there are no results on them.

mod association;
mod capture;
mod codes;
mod command;
mod config;
mod document;
mod implicit;
mod own;
mod send;
mod shelf;
mod store;
mod tries;
mod uid;

pub use config::{Config, Kind};

use crate::named_file::FileError;
use crate::pseudonym::Key;
use crate::radiograph::dicom::Filing;
use crate::report::Report;
use association::Peer;
use image::RgbImage;
use send::Courier;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use store::{Depth, Store};
use uid::Uids;

/// Who made the objects.
const MANUFACTURER: &str = "Roentgen";
const MODEL: &str = "roentgend";

/// How long an end waits for the object that is on its way.
const GRACE: Duration = Duration::from_secs(2);

/// The time, as long as somebody vouches for the clock.
pub type Time = fn() -> Option<SystemTime>;

/// Results cannot be kept at present: a disk that is full or read-only, or a folder that is gone.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {error}")]
pub struct ResultsError {
    /// What was being done.
    pub what: &'static str,
    /// To what.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// Results cannot be sent by this configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate or key cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// No thread is to be had.
    #[error("cannot start the thread that sends results to the PACS: {0}")]
    Thread(#[source] io::Error),
}

/// The objects of one report. There is no `Debug`: they name the patient.
pub struct Made {
    report_id: String,
    objects: Vec<(Kind, Vec<u8>)>,
}

/// Makes the objects; knows the box.
pub struct Maker {
    device: String,
    /// The UID of this device, another one in every box whatever it is called.
    observer: String,
    kinds: Vec<Kind>,
}

impl Maker {
    fn new(config: &Config, device: &str, key: &Key) -> Self {
        let observer = uid::derived(&key.pseudonym("device observer", device));
        Self { device: device.to_owned(), observer, kinds: config.send.clone() }
    }

    /// Whether the picture of a radiograph is wanted.
    pub fn wants_picture(&self) -> bool {
        self.kinds.contains(&Kind::SecondaryCapture)
    }

    /// The objects of one report; without a picture only the structured report.
    pub fn make(&self, filing: &Filing, report: &Report, picture: Option<&RgbImage>) -> Made {
        let uids = Uids::new(filing, report, &self.observer);
        let of = |kind: Kind| match kind {
            Kind::Sr => Some((kind, document::file(self, filing, report, &uids))),
            Kind::SecondaryCapture => Some((kind, capture::file(self, filing, report, &uids, picture?)?)),
        };
        let objects = Kind::ALL.into_iter().filter(|kind| self.kinds.contains(kind)).filter_map(of).collect();
        Made { report_id: report.report_id.clone(), objects }
    }
}

/// How it stands with the results.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Objects that wait for the PACS.
    pub waiting: u64,
    /// Objects that it does not take.
    pub refused: u64,
    /// Bytes that these take, with what is kept for reports that are not durable yet.
    pub bytes: u64,
    /// Objects that it has acknowledged since the start.
    pub sent: u64,
    /// Objects that were dropped since the start.
    pub dropped: u64,
    /// When objects were dropped last.
    pub dropped_at: Option<Instant>,
    /// Why they wait, and since when.
    pub trouble: Option<(String, Instant)>,
    /// Why the last one was set aside.
    pub refusal: Option<String>,
    /// DICOM radiographs since the start on which nothing can be sent: they do not say of which study they are.
    pub unfiled: u64,
    /// Counts what is worth a message at once.
    pub news: u64,
}

/// Makes results, keeps them, and sends them once [`Results::begin`] was called. Dropping it ends that.
pub struct Results {
    maker: Maker,
    config: Config,
    store: Arc<Store>,
    /// `None`: nothing is sent.
    peer: Option<Peer>,
    /// But for what lies there, which the store knows.
    told: Arc<Mutex<Standing>>,
    /// Tells the thread that something waits; hanging up ends it.
    news: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Results {
    /// Reads the files that the configuration names and opens the folders. Sends nothing yet.
    pub fn new(config: &Config, device: &str, key: &Key, state_dir: &Path, time: Time) -> Result<Self, StartError> {
        let peer = Peer::new(config)?;
        let mut results = Self::unsent(config, device, key, state_dir, time);
        results.peer = Some(peer);
        Ok(results)
    }

    /// The same for a process that only makes results, and keeps them for another one to send.
    pub fn unsent(config: &Config, device: &str, key: &Key, state_dir: &Path, time: Time) -> Self {
        let store = Arc::new(Store::open(state_dir, config, time));
        let maker = Maker::new(config, device, key);
        Self { maker, config: config.clone(), store, peer: None, told: Arc::default(), news: None, thread: None }
    }

    /// Goes on with the counts of the one that it takes the place of.
    pub fn succeed(&mut self, before: &Results) {
        // Not the trouble: the configuration may have been mended.
        let told = Standing { trouble: None, refusal: None, ..lock(&before.told).clone() };
        self.told = Arc::new(Mutex::new(told));
    }

    /// Begins to send, and tidies up what an earlier run has left half-made.
    pub fn begin(&mut self) -> Result<(), StartError> {
        let Some(peer) = self.peer.clone().filter(|_| self.thread.is_none()) else { return Ok(()) };
        self.store.sweep();
        let (news, heard) = channel();
        let courier = Courier::new(Arc::clone(&self.store), peer, self.config.clone(), Arc::clone(&self.told), heard);
        let builder = thread::Builder::new().name("results".into());
        self.thread = Some(builder.spawn(move || courier.run()).map_err(StartError::Thread)?);
        self.news = Some(news);
        Ok(())
    }

    /// What makes the objects.
    pub fn maker(&self) -> &Maker {
        &self.maker
    }

    /// Keeps the objects of a report that is not durable yet: they are, on return, and are not sent before
    /// [`Results::release`].
    pub fn stage(&self, made: &Made) -> Result<(), ResultsError> {
        self.store.stage(made)
    }

    /// Their report is durable, under this sequence: they may go. Does nothing where none are staged.
    pub fn release(&self, report_id: &str, sequence: u64) -> Result<(), ResultsError> {
        if self.store.release(report_id, sequence)? > 0
            && let Some(news) = &self.news
        {
            // Fails only where the thread has ended, which it does when this is dropped.
            let _ = news.send(());
        }
        Ok(())
    }

    /// Removes what is kept for a report that will not become durable under this id.
    pub fn discard(&self, report_id: &str) {
        self.store.discard(report_id);
    }

    /// Notes that nothing can be sent on a DICOM radiograph, which does not say of which study it is.
    pub fn unfiled(&self) {
        let mut told = lock(&self.told);
        if told.unfiled == 0 {
            log::warn!(
                "nothing goes to the PACS on a DICOM radiograph that names no study, series or instance (or no sound UID of                  one): have the modality looked at; the telemetry counts further ones"
            );
        }
        told.unfiled += 1;
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let Depth { waiting, refused, bytes } = self.store.depth();
        let told = lock(&self.told).clone();
        let refusal = told.refusal.filter(|_| refused > 0);
        let trouble = if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let since = told.trouble.map_or_else(Instant::now, |(_, since)| since);
            Some(("the thread that sends them has ended, a defect of the program: restart roentgend".into(), since))
        } else {
            told.trouble
        };
        Standing { waiting, refused, bytes, refusal, trouble, ..told }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        drop(self.news.take());
        let Some(thread) = self.thread.take() else { return };
        let until = Instant::now() + GRACE;
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        // One that waits for a PACS which does not answer is left alone: it ends at its time limit, and an object that
        // it still brings there is the same one to the next.
    }
}

/// Whether objects lie in `state_dir` that were made for a PACS. They name patients.
pub fn are_left(state_dir: &Path) -> bool {
    store::holds_any(state_dir)
}

/// A poisoned lock is used on: every change is one step.
fn lock(told: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks the PACS for an association, and says what it takes or what is wrong.
pub fn probe(config: &Config) -> Result<String, String> {
    let peer = Peer::new(config).map_err(|error| error.to_string())?;
    let association = peer.connect().map_err(|trouble| trouble.to_string())?;
    let missing: Vec<_> =
        config.send.iter().filter(|kind| !association.takes(**kind)).map(|kind| kind.title()).collect();
    association.release();
    if missing.is_empty() {
        Ok(format!("{} ({}) takes what is sent", config.address, config.called_ae_title))
    } else {
        Err(format!(
            "{} does not take: {}; have it enabled there, or change dicom_results.send",
            config.address,
            missing.join(", ")
        ))
    }
}
