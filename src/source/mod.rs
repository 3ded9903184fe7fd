//! Where radiographs come from: the trait of all doors into the box. Not the judgement of what came in.

pub mod folder;

use crate::radiograph::{Radiograph, Refusal};
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
    /// The radiograph, or why this is none that can be judged.
    pub radiograph: Result<Radiograph, Refusal>,
}

/// What became of an item.
#[derive(Debug)]
pub enum Outcome {
    /// Its report is durable.
    Reported,
    /// It cannot be judged; the reason goes beside it.
    Rejected(Refusal),
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
}
