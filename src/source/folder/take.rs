//! Taking one complete file: opening it, having it decoded, or, where it is a suspect, having it tried. Moves no file.

use super::identity::Identity;
use super::trial::{self, Suspect, Verdict};
use super::{Blocked, Folder, Opens};
use crate::plain_file;
use crate::radiograph::Refusal;
use crate::radiograph::file::unreadable;
use crate::source::decoder::Failure;
use crate::source::trouble::{Fate, fate};
use crate::source::{Content, Item};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How often a file is read that a disk or share does not give, and the pause after the first time; it doubles.
const MAX_TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// After how long a file is offered again whose report could not be kept.
const LATER: Duration = Duration::from_secs(3);

/// After how many trials that it killed a file is refused.
const MAX_DEATHS: u32 = 2;

/// The file that is being decoded.
pub(super) struct AtHand {
    path: PathBuf,
    identity: Identity,
    since: Instant,
}

/// When a file is tried again.
pub(super) struct Delay {
    pub(super) until: Instant,
    identity: Identity,
    tries: u32,
}

impl Folder {
    /// Starts on one complete file: it is at hand then, or an item already, or nothing, being gone or a suspect.
    pub(super) fn take(&mut self, path: PathBuf) -> Result<Option<Item>, Blocked> {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            Err(error) => {
                log::debug!("{}: gone before it was read: {error}", self.tag(&path));
                return Ok(None);
            }
        };
        let identity = Identity::of(&metadata);
        if let Some((hand, trials)) = &mut self.suspects {
            if hand.is_suspect(&identity) {
                self.taken.insert(path.clone(), identity);
                trials.add(Suspect { path, identity, kills: 0 });
                return Ok(None);
            }
            hand.take(identity);
        }
        self.taken.insert(path.clone(), identity);
        let since = Instant::now();
        match plain_file::open(&path) {
            Ok((file, _)) => {
                self.decoder.start(file);
                self.at_hand = Some(AtHand { path, identity, since });
                Ok(None)
            }
            Err(error) => {
                let refusal = self.unread(&path, identity, &error)?;
                Ok(refusal.map(|refusal| self.item(path, identity, since.elapsed(), Content::Refused(refusal))))
            }
        }
    }

    /// What the file at hand has turned out to be, if that is known by then.
    pub(super) fn decoded(&mut self, until: Instant) -> Result<Option<Item>, Blocked> {
        let Some(decoded) = self.decoder.poll(until) else { return Ok(None) };
        let Some(AtHand { path, identity, since }) = self.at_hand.take() else { return Ok(None) };
        let content = match decoded {
            Ok(mut radiograph) => {
                let origin = &mut radiograph.origin;
                origin.kind = self.manner.kind.unwrap_or(origin.kind);
                Content::Radiograph(radiograph)
            }
            Err(Failure::Refused(refusal)) => Content::Refused(refusal),
            Err(Failure::Unread(error)) => match self.unread(&path, identity, &error)? {
                Some(refusal) => Content::Refused(refusal),
                None => return Ok(None),
            },
            Err(Failure::NoDecoder(error)) => {
                self.put_back(&path);
                let reason = format!("no process can be started to decode it: {error}");
                return Err(Blocked { reason, opens: Opens::WithAnImage });
            }
        };
        self.open_intake();
        self.delayed.remove(&path);
        let filing = self.decoder.take_filing();
        Ok(Some(Item { filing, ..self.item(path, identity, since.elapsed(), content) }))
    }

    /// What it comes to that a file could not be read: a refusal, or nothing, being tried again later or gone.
    fn unread(&mut self, path: &Path, identity: Identity, error: &io::Error) -> Result<Option<Refusal>, Blocked> {
        if matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound) {
            self.put_back(path);
            return Ok(None);
        }
        let earlier = self.delayed.get(path).filter(|delay| delay.identity == identity).map_or(0, |delay| delay.tries);
        match fate(error) {
            Fate::Box => {
                self.put_back(path);
                let reason = format!("what was dropped cannot be read: {error}");
                Err(Blocked { reason, opens: Opens::WithAnImage })
            }
            Fate::Passing if earlier + 1 < MAX_TRIES => {
                log::warn!("{}: cannot be read now and is tried again: {error}", self.tag(path));
                self.put_back(path);
                self.delay(path, identity, FIRST_PAUSE * 2u32.pow(earlier), earlier + 1);
                Ok(None)
            }
            Fate::Passing | Fate::Lasting => Ok(Some(unreadable(error))),
        }
    }

    /// Hands a file over again later, which is in order.
    pub(super) fn postpone(&mut self, path: &Path, identity: Identity) {
        self.put_back(path);
        self.delay(path, identity, LATER, 0);
    }

    fn delay(&mut self, path: &Path, identity: Identity, pause: Duration, tries: u32) {
        let now = Instant::now();
        // What is long overdue is gone from the folder.
        self.delayed.retain(|_, delay| now.saturating_duration_since(delay.until) < Duration::from_secs(600));
        self.delayed.insert(path.to_owned(), Delay { until: now + pause, identity, tries });
    }

    /// Nothing has been done with this file: it is offered again.
    fn put_back(&mut self, path: &Path) {
        self.taken.remove(path);
        self.arrivals.again(path);
        self.lay_down();
    }

    /// No file is at hand.
    pub(super) fn lay_down(&mut self) {
        if let Some((hand, _)) = &mut self.suspects {
            hand.release();
        }
    }

    fn item(&self, handle: PathBuf, identity: Identity, decode: Duration, content: Content) -> Item {
        Item { handle, received_at: identity.arrived(SystemTime::now()), decode, content, filing: None }
    }

    /// Starts the next trial, if one waits and none runs.
    pub(super) fn hold_a_trial(&mut self) {
        let Some((hand, trials)) = &mut self.suspects else { return };
        let Some(suspect) = trials.next() else { return };
        match plain_file::open(&suspect.path) {
            Ok((file, metadata)) if Identity::of(&metadata) == suspect.identity => trials.start(suspect, file),
            Err(error) if fate(&error) != Fate::Lasting => trials.put_off(suspect, &error),
            // Gone, or another file by now, which is taken as any other.
            Ok(_) | Err(_) => {
                hand.acquit(&suspect.identity);
                self.taken.remove(&suspect.path);
                self.arrivals.again(&suspect.path);
            }
        }
    }

    /// What a trial has shown, if one has come to an end.
    pub(super) fn tried(&mut self) -> Option<Item> {
        let (hand, trials) = self.suspects.as_mut()?;
        let (suspect, verdict) = trials.poll()?;
        let content = match verdict {
            Verdict::Judged(mut report) => {
                // The trial was handed a file, and does not know by which door it came.
                report.origin.kind = self.manner.kind.unwrap_or(report.origin.kind);
                Content::Judged(report)
            }
            Verdict::Refused(refusal) => Content::Refused(refusal),
            Verdict::Died if hand.died(&suspect.identity) >= MAX_DEATHS => Content::Refused(trial::refusal()),
            Verdict::Died | Verdict::Open => {
                trials.add(suspect);
                return None;
            }
        };
        Some(self.item(suspect.path, suspect.identity, Duration::ZERO, content))
    }
}
