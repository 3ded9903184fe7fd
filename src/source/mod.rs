//! Where radiographs come from: the trait of all doors into the box. Not the judgement of what came in.

mod bell;
pub mod camera;
pub mod decoder;
pub mod dicom_scp;
mod doors;
pub mod folder;
pub mod process;
pub mod reserve;
pub mod spool;
mod trouble;

pub use doors::Doors;

use crate::radiograph::dicom::Filing;
use crate::radiograph::{Radiograph, Refusal};
use crate::report::Report;
use std::time::{Duration, SystemTime};

/// One thing that a source handed over and now waits for an [`Outcome`] on.
#[derive(Debug)]
pub struct Item {
    /// The source's own handle for it, e.g. the file's path in `incoming/`. Never published and never logged: a file's
    /// name may be a patient's.
    pub handle: std::path::PathBuf,
    /// When it reached the box.
    pub received_at: SystemTime,
    /// How long reading and decoding took.
    pub decode: Duration,
    /// What it turned out to be.
    pub content: Content,
    /// What a result on it is filed under, where results go back to a PACS and it came as DICOM.
    pub filing: Option<Filing>,
}

/// What an item turned out to be.
#[derive(Debug)]
pub enum Content {
    /// A radiograph to judge.
    Radiograph(Radiograph),
    /// Nothing that can be judged, and why.
    Refused(Refusal),
    /// A radiograph that a process of its own has judged, since this one may have crashed over it before.
    Judged(Box<Report>),
}

impl Content {
    /// The radiograph, or why there is none; `None` for one that is judged already.
    pub fn radiograph(&self) -> Option<Result<&Radiograph, &Refusal>> {
        match self {
            Self::Radiograph(radiograph) => Some(Ok(radiograph)),
            Self::Refused(refusal) => Some(Err(refusal)),
            Self::Judged(_) => None,
        }
    }
}

/// What became of an item.
#[derive(Debug)]
pub enum Outcome {
    /// Its report is durable.
    Reported,
    /// It cannot be judged; the reason goes beside it.
    Rejected(Refusal),
    /// Another process has judged it, and not as this box would now. It stays where it is and is judged again.
    Disbelieved,
    /// Its report cannot be kept now. It stays where it is and is handed over again.
    Later,
}

/// Whether a source takes images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intake {
    /// It does.
    Open,
    /// It does not, for a reason that will pass or that somebody must see to. What was dropped stays where it is.
    Closed {
        /// Why, in words for a technician.
        reason: String,
    },
}

/// How it stands with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether it takes images.
    pub intake: Intake,
    /// How many are known to wait.
    pub waiting: u64,
    /// How often the process that decodes was replaced because of what it did.
    pub decoder_restarts: u64,
}

/// A source stopped working altogether (not: one image was bad).
#[derive(Debug, thiserror::Error)]
#[error("{what}: {place}: {error}")]
pub struct SourceError {
    /// What was being done.
    pub what: &'static str,
    /// To what: a folder's path, or a file's [`tag`](crate::pseudonym::Key::tag), since its name may be a patient's.
    pub place: String,
    /// What the system said.
    #[source]
    pub error: std::io::Error,
}

/// A door through which radiographs come.
pub trait Source {
    /// The next item, or `None` when none came within `patience`.
    fn next(&mut self, patience: Duration) -> Result<Option<Item>, SourceError>;

    /// Settles an item: a reported one goes to `done/`, a rejected one to `rejected/` with its reason.
    fn settle(&mut self, item: &Item, outcome: Outcome) -> Result<(), SourceError>;

    /// How it stands with it.
    fn condition(&self) -> Condition;
}
