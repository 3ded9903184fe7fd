//! Results back to the PACS: of each report on a DICOM radiograph a structured report and a picture, in the original's study,
//! made when it is judged, kept on disk until the PACS has acknowledged them. Not the judging and not the drawing.
//!
//! Off unless `[dicom_results]` names a PACS. It is the one way on which a patient's name goes through the program: from
//! the radiograph's file, sealed ([`crate::radiograph::dicom::Filing`]), into these objects; they lie in
//! `state_dir/results`, for the daemon's user alone, and go to that PACS and nowhere else. Logs, status and the outbox know them by
//! the report's id.
//!
//! [`Maker`] makes them, `store` keeps them, `send` brings them to the PACS in a thread of its own (C-STORE, `association`).
//! What happens at a crash stands in `store`. Images that came as PNG, JPEG or from a camera have no study to be
//! filed in: there are no results on them.

mod association;
mod capture;
mod codes;
mod command;
mod config;
mod document;
mod implicit;
mod send;
mod store;
mod uid;

pub use config::{Config, Kind};

use crate::named_file::FileError;
use crate::pseudonym::Key;
use crate::radiograph::dicom::Filing;
use crate::report::Report;
use association::{ConnectError, Peer};
use image::RgbImage;
use send::{Courier, lock};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use store::{Depth, Store};
use uid::Uids;

/// Who made the objects.
const MANUFACTURER: &str = "Roentgen";
const MODEL: &str = "roentgend";

/// How long an end waits for the object that is on its way.
const GRACE: Duration = Duration::from_secs(2);

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
        let uids = Uids(&report.report_id);
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
    /// Bytes that both take.
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
    pub fn new(config: &Config, device: &str, key: &Key, state_dir: &Path) -> Result<Self, StartError> {
        let peer = Peer::new(config)?;
        let mut results = Self::unsent(config, device, key, state_dir);
        results.peer = Some(peer);
        Ok(results)
    }

    /// The same for a process that only makes results, and keeps them for another one to send.
    pub fn unsent(config: &Config, device: &str, key: &Key, state_dir: &Path) -> Self {
        let store = Arc::new(Store::open(state_dir, config));
        let maker = Maker::new(config, device, key);
        Self { maker, config: config.clone(), store, peer: None, told: Arc::default(), news: None, thread: None }
    }

    /// Begins to send, and tidies up what an earlier run has left half-made.
    pub fn begin(&mut self) -> Result<(), StartError> {
        let Some(peer) = self.peer.clone().filter(|_| self.thread.is_none()) else { return Ok(()) };
        self.store.sweep();
        let (news, heard) = channel();
        let courier = Courier {
            store: Arc::clone(&self.store),
            peer,
            config: self.config.clone(),
            told: Arc::clone(&self.told),
            news: heard,
            tries: HashMap::new(),
        };
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

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let Depth { waiting, refused, bytes } = self.store.depth();
        let told = lock(&self.told).clone();
        let refusal = told.refusal.filter(|_| refused > 0);
        Standing { waiting, refused, bytes, refusal, ..told }
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

/// Asks the PACS for an association, and says what it takes or what is wrong.
pub fn probe(config: &Config) -> Result<String, String> {
    let peer = Peer::new(config).map_err(|error| error.to_string())?;
    let association = peer.connect().map_err(|error| match error {
        ConnectError::Trouble(trouble) | ConnectError::TakesNothing(trouble) => trouble.to_string(),
    })?;
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
