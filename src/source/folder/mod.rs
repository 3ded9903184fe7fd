//! The drop folder: `incoming/` → `done/` or `rejected/`. Finds out when a file is complete, opens it, and moves it once
//! the pipeline has settled it. Not a synchroniser: subfolders, links and devices are left where they are.
//!
//! A file is taken when it is closed after writing or renamed in (inotify). Where the file system gives no events (NFS,
//! SMB), and for what was there at the start, it is taken when size and modification time have not changed for
//! `settle_ms`. A file whose writer was seen opening it is not taken by that rule: its close will be seen too. Names
//! ending in `.part`, `.tmp` or `.partial` and dot files are not touched.
//!
//! A file's name may be a patient's. Log lines, errors and reasons call a file by its [`tag`](Key::tag) instead.
//!
//! The same watches over the spools of the other doors ([`super::spool`]); a [`Manner`] says what is different there.
//!
//! What goes wrong once it is open stops nothing: a full disk, a folder that is gone, a share that does not answer. Then no
//! image is taken, which [`Source::condition`] says with the reason, and what was dropped stays where it is; it goes on by
//! itself. What goes wrong with one file is that file's: it is tried again, refused, or left where it is.

mod arrivals;
mod hand;
mod identity;
mod manner;
mod moves;
mod names;
mod retention;
mod settle;
mod take;
pub mod trial;

pub(in crate::source) use hand::RUN;
pub use identity::arrived;
pub use manner::Manner;
pub use names::may_be_taken;
pub use retention::{Bounds, Time};

use super::bell::Bell;
use super::decoder::Decoder;
use super::process::Program;
use super::reserve::{self, Reserve};
use super::{Condition, Intake, Item, Outcome, Source, SourceError};
use arrivals::Arrivals;
use hand::Hand;
use identity::Identity;
use retention::Retention;
use serde::{Deserialize, Serialize};
use settle::Settling;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use take::{AtHand, Delay};
use trial::Trials;

/// The `[source.folder]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder that images are dropped into; `done/` and `rejected/` lie beside it.
    pub incoming: PathBuf,
    /// Milliseconds without change after which a file counts as complete where no events come; 100 to 600000.
    pub settle_ms: u64,
    /// Milliseconds between two looks at the whole folder; 50 to 600000.
    pub poll_ms: u64,
    /// Days after which a settled file is deleted from `done/`; 0: never; at most 36500.
    pub keep_done_days: u32,
    /// Bytes beyond which the oldest files of `done/` are deleted; 0: never.
    pub keep_done_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let incoming = "/var/lib/roentgen/incoming".into();
        Self { incoming, settle_ms: 2000, poll_ms: 1000, keep_done_days: 0, keep_done_bytes: 0 }
    }
}

impl Config {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        if self.incoming.file_name().is_none() || self.incoming.parent().is_none() {
            return Err(
                "source.folder.incoming must be a folder inside another one, such as /var/lib/roentgen/incoming"
                    .to_owned(),
            );
        }
        if !(100..=600_000).contains(&self.settle_ms) {
            return Err("source.folder.settle_ms: write a number of milliseconds from 100 to 600000".into());
        }
        if !(50..=600_000).contains(&self.poll_ms) {
            return Err("source.folder.poll_ms: write a number of milliseconds from 50 to 600000".into());
        }
        if self.keep_done_days > 36_500 {
            return Err("source.folder.keep_done_days: write a number of days up to 36500, or 0 for ever".into());
        }
        Ok(())
    }

    /// Where settled files go.
    pub fn done(&self) -> PathBuf {
        self.incoming.with_file_name("done")
    }

    /// Where refused files and their reasons go.
    pub fn rejected(&self) -> PathBuf {
        self.incoming.with_file_name("rejected")
    }
}

/// The drop folder, or another one that is watched as it is.
pub struct Folder {
    manner: Manner,
    incoming: PathBuf,
    done: PathBuf,
    rejected: PathBuf,
    decoder: Decoder,
    arrivals: Arrivals,
    /// What is not to be offered again: being decoded, handed over, moved, or waiting for its trial; as it was then.
    taken: HashMap<PathBuf, Identity>,
    /// What is being decoded.
    at_hand: Option<AtHand>,
    /// What could not be read, and when it is tried again.
    delayed: HashMap<PathBuf, Delay>,
    /// What is settled and could not be moved yet.
    unmoved: Vec<Settling>,
    reserve: Option<Reserve>,
    /// What `done/` and `rejected/` need not hold any more.
    retention: Vec<Retention>,
    /// Files that may have crashed this program, and how they are tried.
    suspects: Option<(Hand, Trials)>,
    intake: Intake,
    /// Whether intake opens as soon as nothing is in its way, or only when an image has come through.
    opens: Opens,
}

/// What must be seen before a closed intake opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    /// That what stood in the way is gone.
    Freely,
    /// That an image has come through, or that none is there.
    WithAnImage,
}

/// Why no image can be taken now.
struct Blocked {
    reason: String,
    opens: Opens,
}

impl From<String> for Blocked {
    fn from(reason: String) -> Self {
        Self { reason, opens: Opens::Freely }
    }
}

/// How often a trial is looked at.
const TRIAL_POLL: Duration = Duration::from_millis(100);

/// How often it is looked whether what stands in the way is gone.
const CLOSED_POLL: Duration = Duration::from_millis(250);

impl Folder {
    /// Makes the three folders where they are missing, checks that files can be moved and decoded, removes what an earlier
    /// run has left half-moved, and starts to watch.
    pub fn open(config: &Config, decoder: Decoder) -> Result<Self, SourceError> {
        Self::open_as(Manner::DROP_FOLDER, config, decoder)
    }

    /// The same for another folder than the drop folder.
    pub(in crate::source) fn open_as(
        manner: Manner,
        config: &Config,
        mut decoder: Decoder,
    ) -> Result<Self, SourceError> {
        let (incoming, done, rejected) = (config.incoming.clone(), config.done(), config.rejected());
        let is_used = [true, manner.keeps_reported, manner.keeps_rejected];
        for (folder, _) in [&incoming, &done, &rejected].into_iter().zip(is_used).filter(|(_, is_used)| *is_used) {
            fs::create_dir_all(folder).map_err(failed("cannot make the folder", folder.display()))?;
            moves::check_writable(folder)?;
        }
        for folder in [&done, &rejected] {
            moves::sweep(folder);
        }
        moves::sweep_reasons(&rejected, &incoming, |path| decoder.key().tag(path));
        decoder.check().map_err(failed("cannot decode images", "the decoder's process"))?;
        let arrivals = Arrivals::watch(config, decoder.key().clone())?;
        Ok(Self {
            manner,
            incoming,
            done,
            rejected,
            decoder,
            arrivals,
            taken: HashMap::new(),
            at_hand: None,
            delayed: HashMap::new(),
            unmoved: Vec::new(),
            reserve: None,
            retention: Vec::new(),
            suspects: None,
            intake: Intake::Open,
            opens: Opens::Freely,
        })
    }

    /// Takes images only while there is room on the disks of `done/`, `rejected/` and `state_dir`.
    pub fn with_reserve(mut self, config: &reserve::Config, state_dir: &Path) -> Self {
        let folders = vec![state_dir.to_owned(), self.done.clone(), self.rejected.clone()];
        self.reserve = Some(Reserve::new(config, folders));
        self
    }

    /// Notes in `state_dir` which image is at hand. One at which an earlier run has died is judged by `program`, which
    /// reads the file from its standard input and prints a [`trial::Answer`].
    pub fn with_trials(mut self, program: Program, state_dir: &Path) -> Self {
        let decode = Duration::from_secs(self.decoder.limits().decode_seconds);
        match Hand::open(state_dir) {
            Ok(mut hand) => {
                if let Ok((device, files)) = self.arrivals.identities() {
                    hand.retain(device, &files);
                }
                self.suspects = Some((hand, Trials::new(program, decode)));
            }
            Err(error) => {
                let state_dir = state_dir.display();
                log::warn!("{state_dir}: an image that crashes the program cannot be told at the next start: {error}");
            }
        }
        self
    }

    /// Has suspects tried by another program from now on.
    pub fn try_with(&mut self, program: Program) {
        if let Some((_, trials)) = &mut self.suspects {
            trials.try_with(program);
        }
    }

    /// Rings this bell whenever there is something to look at.
    pub(in crate::source) fn ring(&self, bell: Bell) {
        self.arrivals.ring(bell);
    }

    /// What logs and errors call this door.
    pub(in crate::source) fn name(&self) -> &'static str {
        self.manner.name
    }

    /// Whether it handed this item over and waits for its outcome.
    pub(in crate::source) fn has(&self, item: &Item) -> bool {
        self.taken.contains_key(&item.handle)
    }

    /// Whether an image is being decoded.
    pub(in crate::source) fn is_decoding(&self) -> bool {
        self.at_hand.is_some()
    }

    /// For how long it need not be asked for an item, unless its bell rings.
    pub(in crate::source) fn rest(&self) -> Duration {
        match &self.suspects {
            _ if self.intake != Intake::Open => CLOSED_POLL,
            Some((_, trials)) if trials.is_running() => TRIAL_POLL,
            _ => self.arrivals.rest(),
        }
    }

    /// What a file is called where its name must not stand.
    fn tag(&self, path: &Path) -> String {
        self.decoder.key().tag(path)
    }

    /// One step towards the next item: at most until the deadline.
    fn step(&mut self, deadline: Instant) -> Result<Option<Item>, Blocked> {
        // Also where no image can be taken: want of room may be the reason.
        for retention in &mut self.retention {
            retention.step(Instant::now());
        }
        self.move_the_unmoved()?;
        if self.at_hand.is_some() {
            return self.decoded(deadline);
        }
        if let Some(item) = self.tried() {
            return Ok(Some(item));
        }
        if let Some(reserve) = &mut self.reserve {
            reserve.check()?;
        }
        self.folders_are_there()?;
        self.arrivals.look().map_err(|error| error.to_string())?;
        let until = match &self.suspects {
            Some((_, trials)) if trials.is_wanted() => Instant::now(),
            Some((_, trials)) if trials.is_running() => deadline.min(Instant::now() + TRIAL_POLL),
            _ => deadline,
        };
        let Self { arrivals, taken, delayed, .. } = self;
        let is_held = |path: &Path| {
            taken.contains_key(path) || delayed.get(path).is_some_and(|delay| delay.until > Instant::now())
        };
        let next = arrivals.next(until, is_held).map_err(|error| error.to_string())?;
        if self.opens == Opens::Freely || self.arrivals.waiting() == 0 {
            self.open_intake();
        }
        match next {
            Some(path) => match self.take(path)? {
                Some(item) => Ok(Some(item)),
                None if self.at_hand.is_some() => self.decoded(deadline),
                None => Ok(None),
            },
            None => {
                self.hold_a_trial();
                Ok(None)
            }
        }
    }

    /// `done/` and `rejected/` are made again where somebody removed them; the drop folder itself is not, which may be a
    /// disk that will be back.
    fn folders_are_there(&self) -> Result<(), Blocked> {
        let Manner { is_own, keeps_reported, keeps_rejected, .. } = self.manner;
        let folders = [(&self.incoming, is_own), (&self.done, keeps_reported), (&self.rejected, keeps_rejected)];
        for (folder, is_ours) in folders {
            if is_ours && !folder.is_dir() {
                fs::create_dir_all(folder)
                    .map_err(|error| format!("cannot make the folder {} again: {error}", folder.display()))?;
                log::warn!("{} was gone; it is there again", folder.display());
            }
        }
        Ok(())
    }

    fn open_intake(&mut self) {
        if self.intake != Intake::Open {
            log::info!("images are taken again{}", self.from());
            self.intake = Intake::Open;
        }
        self.opens = Opens::Freely;
    }

    fn close_intake(&mut self, Blocked { reason, opens }: Blocked) {
        match &self.intake {
            Intake::Open => log::warn!("no image is taken{}: {reason}", self.from()),
            // One trouble may show in several ways, in turns.
            Intake::Closed { reason: before } if *before != reason => {
                log::debug!("no image is taken{}: {reason}", self.from());
            }
            Intake::Closed { .. } => {}
        }
        self.intake = Intake::Closed { reason };
        self.opens = opens;
    }

    /// Where images come from, where that is not the drop folder.
    fn from(&self) -> String {
        let is_drop_folder = self.manner == Manner::DROP_FOLDER;
        if is_drop_folder { String::new() } else { format!(" from {}", self.manner.name) }
    }
}

impl Source for Folder {
    fn next(&mut self, patience: Duration) -> Result<Option<Item>, SourceError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.step(deadline) {
                Ok(Some(item)) => return Ok(Some(item)),
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return Ok(None),
                Err(blocked) => {
                    self.close_intake(blocked);
                    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
                    return Ok(None);
                }
            }
        }
    }

    fn settle(&mut self, item: &Item, outcome: Outcome) -> Result<(), SourceError> {
        self.settled(item, outcome);
        Ok(())
    }

    fn condition(&self) -> Condition {
        Condition {
            intake: self.intake.clone(),
            waiting: self.arrivals.waiting(),
            decoder_restarts: self.decoder.restarts(),
        }
    }
}

/// Adds to an error of the system what was done, and to which folder or to the file of which tag.
fn failed(what: &'static str, place: impl Display) -> impl FnOnce(std::io::Error) -> SourceError {
    let place = place.to_string();
    move |error| SourceError { what, place, error }
}
