//! The thread that brings the objects to the PACS: in order, again and again with pauses that grow, for as long as they may
//! wait. Nothing that goes wrong here stops or delays a radiograph.

use super::Standing;
use super::association::{Association, ConnectError, Peer, StoreError, Trouble};
use super::command::Answer;
use super::config::{Config, Kind};
use super::store::{Name, Store};
use super::uid::Uids;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause after a first failure; it doubles up to the configured one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often the folder is looked at while nothing comes: somebody may have moved objects back.
const IDLE: Duration = Duration::from_secs(30);

/// How often an object is offered that the PACS says it will never take, and one that it refuses for another reason.
const TRIES_LASTING: u32 = 3;
const TRIES: u32 = 10;

/// The daemon wants the thread to end.
struct Stopped;

/// Why a round has ended before everything was through.
enum Ended {
    Stopped,
    Trouble(Trouble),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// What the thread works with.
pub(super) struct Courier {
    pub(super) store: Arc<Store>,
    pub(super) peer: Peer,
    pub(super) config: Config,
    pub(super) told: Arc<Mutex<Standing>>,
    /// Something waits; hanging up ends the thread.
    pub(super) news: Receiver<()>,
    /// How often objects were refused.
    pub(super) tries: HashMap<Name, u32>,
}

impl Courier {
    /// Sends until it is told to stop.
    pub(super) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.tidy();
            let wait = match self.round() {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if self.idle().is_err() {
                        return;
                    }
                    continue;
                }
                Err(Ended::Stopped) => return,
                Err(Ended::Trouble(trouble)) => {
                    self.say_once(trouble);
                    let wait = pause;
                    pause = (pause * 2).min(Duration::from_secs(self.config.max_retry_s));
                    wait
                }
            };
            if self.rest(wait).is_err() {
                return;
            }
        }
    }

    /// Sends everything that waits.
    fn round(&mut self) -> Result<(), Ended> {
        if self.store.next(None).is_none() {
            self.well();
            return Ok(());
        }
        let mut association = match self.peer.connect() {
            Ok(association) => association,
            Err(ConnectError::Trouble(trouble)) => return Err(trouble.into()),
            Err(ConnectError::TakesNothing(trouble)) => {
                let mut at = None;
                while let Some(name) = self.store.next(at.as_ref()) {
                    self.refused(&name, &trouble.0, true)?;
                    at = Some(name);
                }
                return Err(trouble.into());
            }
        };
        let mut refused = None;
        let mut at: Option<Name> = None;
        while let Some(name) = self.store.next(at.as_ref()) {
            if self.is_stopped() {
                association.release();
                return Err(Ended::Stopped);
            }
            match self.one(&mut association, &name) {
                Ok(Some(Answer::Stored)) => self.delivered(&name)?,
                Ok(Some(Answer::Busy(reason))) => {
                    association.release();
                    return Err(self.trouble(&reason).into());
                }
                Ok(Some(Answer::Refused { reason, lasting })) => {
                    let reason = self.trouble(&reason);
                    if !self.refused(&name, &reason.0, lasting)? {
                        refused = Some(reason);
                    }
                }
                // Somebody has removed it.
                Ok(None) => {}
                Err(StoreError::Lost(reason)) => return Err(self.trouble(&reason).into()),
                Err(StoreError::Unread(error)) => {
                    // In the middle of a message: the association cannot go on.
                    let reason = format!("a result cannot be read from the disk: {error}");
                    self.refused(&name, &reason, false)?;
                    return Err(Trouble(reason).into());
                }
            }
            at = Some(name);
        }
        association.release();
        match refused {
            Some(trouble) => Err(trouble.into()),
            None => {
                self.well();
                Ok(())
            }
        }
    }

    /// Sends one object; `None` where it is gone.
    fn one(&self, association: &mut Association, name: &Name) -> Result<Option<Answer>, StoreError> {
        let opened = self.store.open_waiting(name).map_err(|error| StoreError::Unread(error.error))?;
        let Some(file) = opened else { return Ok(None) };
        let mut data_set = data_set(file).map_err(StoreError::Unread)?;
        let instance = Uids(&name.report_id).of(instance_of(name.kind));
        association.store(name.kind, &instance, &mut data_set).map(Some)
    }

    fn delivered(&mut self, name: &Name) -> Result<(), Trouble> {
        self.tries.remove(name);
        let Name { sequence, kind, report_id } = name;
        log::info!(
            ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
            "the PACS has the {kind} of report {sequence}"
        );
        lock(&self.told).sent += 1;
        self.well();
        self.store.delivered(name).map_err(|error| Trouble(error.to_string()))
    }

    /// Notes a refusal; true where the object was set aside for it.
    fn refused(&mut self, name: &Name, reason: &str, lasting: bool) -> Result<bool, Trouble> {
        let tries = self.tries.entry(name.clone()).or_default();
        *tries += 1;
        if *tries < if lasting { TRIES_LASTING } else { TRIES } {
            return Ok(false);
        }
        self.tries.remove(name);
        self.store.refuse(name).map_err(|error| Trouble(error.to_string()))?;
        let Name { sequence, kind, report_id } = name;
        log::error!(
            ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
            "the {kind} of report {sequence} is set aside in state_dir/results/refused: {reason}. Move it back to \
             results/waiting once that is mended"
        );
        let mut told = lock(&self.told);
        told.refusal = Some(reason.to_owned());
        told.news += 1;
        Ok(true)
    }

    fn trouble(&self, reason: &str) -> Trouble {
        Trouble(format!("{}: {reason}", self.config.address))
    }

    /// Says a trouble where it is another than the last one.
    fn say_once(&self, Trouble(reason): Trouble) {
        let mut told = lock(&self.told);
        if told.trouble.as_ref().is_none_or(|(before, _)| *before != reason) {
            log::warn!("results wait for the PACS: {reason}");
            let since = told.trouble.take().map_or_else(Instant::now, |(_, since)| since);
            told.trouble = Some((reason, since));
        }
    }

    fn well(&self) {
        if lock(&self.told).trouble.take().is_some() {
            log::info!("the PACS takes results again");
        }
    }

    fn tidy(&self) {
        let dropped = self.store.tidy();
        if dropped.is_empty() {
            return;
        }
        let pictures = dropped.iter().filter(|name| name.kind == Kind::SecondaryCapture).count();
        log::error!(
            "dropped {pictures} pictures and {} structured reports that waited for the PACS, by the bounds of \
             [dicom_results]; the reports themselves are in the outbox",
            dropped.len() - pictures
        );
        let mut told = lock(&self.told);
        told.dropped += dropped.len() as u64;
        told.dropped_at = Some(Instant::now());
        told.news += 1;
    }

    /// Waits until something comes.
    fn idle(&self) -> Result<(), Stopped> {
        match self.news.recv_timeout(IDLE) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = self.store.look() {
                    self.say_once(Trouble(error.to_string()));
                }
                Ok(())
            }
        }
    }

    /// Waits, whatever comes; then looks at what has come.
    fn rest(&self, pause: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + pause;
        loop {
            match self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
            }
        }
    }

    fn is_stopped(&self) -> bool {
        loop {
            match self.news.try_recv() {
                Ok(()) => {}
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }
}

/// A poisoned lock is used on: every change is one step.
pub(super) fn lock(told: &Mutex<Standing>) -> std::sync::MutexGuard<'_, Standing> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name by which an object's UID is derived.
pub(super) fn instance_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Sr => "report instance",
        Kind::SecondaryCapture => "picture instance",
    }
}

/// A file of ours from its data set on: behind preamble, prefix and the file meta information.
fn data_set(mut file: File) -> io::Result<impl Read> {
    let mut head = [0; 144];
    file.read_exact(&mut head)?;
    let (meta, length) = (&head[128..140], &head[140..]);
    if meta != b"DICM\x02\0\0\0UL\x04\0" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no object of this program"));
    }
    let length = length.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
    let mut file = BufReader::with_capacity(64 << 10, file);
    let skipped = io::copy(&mut file.by_ref().take(length), &mut io::sink())?;
    if skipped < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(file)
}
