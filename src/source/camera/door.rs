//! The camera's thread: opens the device and opens it again when it went away, shows its frames to the [`Keeper`], and hands
//! over what comes of them. Nothing that goes wrong here stops anything else, and nothing waits for it but its own end.

use super::film::Film;
use super::grey::Grey;
use super::keeper::{Keeper, Seen};
use super::kept::Kept;
use super::remote::{Remote, Ticket, Wish};
use super::{Config, LEAST_PAUSE};
use image::{ImageBuffer, ImageFormat, Luma};
use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time from one look to the next.
const LOOK: Duration = Duration::from_millis(250);
/// How long a frame is waited for at a time: the thread's end waits no longer.
const PATIENCE: Duration = Duration::from_millis(200);
/// A camera that has sent nothing for so long is gone, whatever it says.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause before something is tried again: opening the camera, keeping a picture.
const RETRY: Duration = Duration::from_secs(1);
/// How long the thread's end is waited for.
const FAREWELL: Duration = Duration::from_secs(5);
/// The pause after this code itself has broken down.
const BREAKDOWN: Duration = Duration::from_secs(10);

/// Something that gives frames.
pub trait Eye {
    /// The first frame that was taken at `not_before` or later; `None` where none came within `patience`, or a damaged one.
    fn frame(&mut self, not_before: Instant, patience: Duration) -> Result<Option<Grey>, Away>;

    /// Its mode, e.g. `YUYV 1280x720`.
    fn mode(&self) -> String;

    /// Whether its levels have more than 8 bits.
    fn is_deep(&self) -> bool;
}

/// There is no camera, or no longer, and why: in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// Opens the camera.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Eye>, Away> + Send>;

/// Keeps a file of this name, durable on return; an error is said in words, and it is tried again.
pub type Store = Box<dyn FnMut(&str, &[u8]) -> Result<(), String> + Send>;

/// The thread. Dropping it ends it.
pub struct Door {
    remote: Remote,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Starts it. Whether there is a camera it finds out by itself, again and again.
    pub fn start(config: &Config, state_dir: &Path, open: Open, store: Store) -> io::Result<Self> {
        let remote = Remote::default();
        let (stop, stopped) = channel();
        let (config, state_dir, shared) = (config.clone(), state_dir.to_owned(), remote.clone());
        // Made in the thread, since a device need not be one that threads can pass on.
        let run = move || Worker::new(&config, &state_dir, open, store, shared).run(&stopped);
        let thread = std::thread::Builder::new().name("camera".into()).spawn(run)?;
        Ok(Self { remote, stop: Some(stop), thread: Some(thread) })
    }

    /// A handle on it.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + FAREWELL;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(LEAST_PAUSE / 10);
        }
        if thread.is_finished() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        } else {
            // The kernel does not let go of a call on a broken device. It ends when that does, or with the process.
            log::warn!("the camera's thread has not ended in {} s; it is left behind", FAREWELL.as_secs());
        }
        self.remote.close();
    }
}

/// A picture that is to be kept.
struct Picture {
    name: String,
    png: Vec<u8>,
    film: Box<Film>,
    /// Who asked for it.
    ticket: Option<Ticket>,
}

struct Worker {
    device: String,
    interval: Option<Duration>,
    open: Open,
    store: Store,
    remote: Remote,
    kept: Kept,
    keeper: Keeper,
    eye: Option<Box<dyn Eye>>,
    /// When the next frame is to be taken, at the earliest.
    next_look: Instant,
    /// When the last one came.
    last_frame: Instant,
    retry_at: Instant,
    /// What somebody waits for.
    asked: Option<(Ticket, Wish)>,
    unkept: Option<Picture>,
    /// When the last picture was taken, for the interval.
    taken_at: Instant,
    /// When the reference picture that is used was taken.
    reference_of: Option<SystemTime>,
    pictures: u64,
}

impl Worker {
    fn new(config: &Config, state_dir: &Path, open: Open, store: Store, remote: Remote) -> Self {
        let now = Instant::now();
        let kept = Kept::new(state_dir);
        let still = Duration::from_millis(config.still_ms);
        let reference_of = kept.reference_time();
        let keeper = Keeper::new(still, config.burst, kept.reference(), kept.last());
        remote.tell(|condition| {
            condition.device = config.device.clone();
            condition.has_reference = keeper.has_reference();
        });
        Self {
            device: config.device.clone(),
            interval: (config.interval_s > 0).then(|| Duration::from_secs(config.interval_s)),
            open,
            store,
            remote,
            kept,
            keeper,
            eye: None,
            next_look: now,
            last_frame: now,
            retry_at: now,
            asked: None,
            unkept: None,
            taken_at: now,
            reference_of,
            pictures: 0,
        }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        let mut pause = Duration::ZERO;
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            // A mistake in here must not take the camera away until somebody restarts the box.
            pause = catch_unwind(AssertUnwindSafe(|| self.round())).unwrap_or_else(|_| {
                log::error!("the camera's part of the program broke down; it begins anew");
                self.keeper.interrupt();
                self.eye = None;
                BREAKDOWN
            });
        }
        if let Some((ticket, _)) = self.asked.take() {
            self.remote.answer(ticket, Err("the camera is being closed".into()));
        }
    }

    /// One frame, or one attempt to have some. Returns how long to wait before the next.
    fn round(&mut self) -> Duration {
        let now = Instant::now();
        self.attend(now);
        if now >= self.retry_at {
            self.keep(now);
        }
        let Some(eye) = &mut self.eye else {
            if now >= self.retry_at {
                self.open(now);
            }
            return if self.eye.is_some() { Duration::ZERO } else { LEAST_PAUSE };
        };
        match eye.frame(self.next_look, PATIENCE) {
            Ok(Some(frame)) => self.show(frame),
            Ok(None) if self.last_frame.elapsed() > SILENCE => {
                self.lose(
                    "it sends no pictures: unplug it and plug it in again, or see whether another program uses it",
                );
            }
            Ok(None) => {}
            Err(Away(reason)) => self.lose(&reason),
        }
        Duration::ZERO
    }

    /// Takes wishes, and notices when it is time.
    fn attend(&mut self, now: Instant) {
        if self.asked.is_none()
            && let Some((ticket, wish)) = self.remote.take()
        {
            if let Some(away) = self.remote.condition().away {
                return self.remote.answer(ticket, Err(away));
            }
            self.asked = Some((ticket, wish));
            self.keeper.want(wish);
        }
        let is_time = self.interval.is_some_and(|interval| now.saturating_duration_since(self.taken_at) >= interval);
        if is_time && self.asked.is_none() && self.eye.is_some() {
            self.taken_at = now;
            self.keeper.want(Wish::Picture);
        }
    }

    fn open(&mut self, now: Instant) {
        match (self.open)() {
            Ok(eye) => {
                let mode = eye.mode();
                log::info!("camera {}: {mode}", self.device);
                self.remote.tell(|condition| (condition.mode, condition.away) = (Some(mode), None));
                self.keeper.interrupt();
                (self.eye, self.next_look, self.last_frame) = (Some(eye), now, now);
            }
            Err(Away(reason)) => self.lose(&reason),
        }
    }

    /// The camera is not there, or no longer.
    fn lose(&mut self, reason: &str) {
        let was_there = self.eye.take().is_some();
        self.retry_at = Instant::now() + RETRY;
        let reason = format!("camera {}: {reason}", self.device);
        let before = self.remote.condition().away;
        if before.is_none() {
            log::warn!("{reason}; it is tried again until it is back");
        } else if before.as_ref() != Some(&reason) {
            log::debug!("{reason}");
        }
        if let Some((ticket, _)) = self.asked.take() {
            self.remote.answer(ticket, Err(reason.clone()));
        }
        self.remote.tell(|condition| {
            condition.losses += u64::from(was_there);
            (condition.mode, condition.away, condition.complaint) = (None, Some(reason), None);
        });
    }

    /// Shows a frame to the keeper, and does what follows.
    fn show(&mut self, frame: Grey) {
        let now = Instant::now();
        self.last_frame = now;
        self.look_for_reference();
        let last = self.keeper.last().cloned();
        let seen = self.keeper.see(frame, now);
        // What took its time to look at must not be followed by what was taken meanwhile.
        self.next_look = if self.keeper.is_in_haste() { Instant::now() } else { (now + LOOK).max(Instant::now()) };
        match seen {
            Seen::Nothing => {}
            Seen::Empty | Seen::Known => {
                self.complain(None);
                if last.is_some() && self.keeper.last().is_none() {
                    log::debug!("the film has left the camera's view");
                }
            }
            Seen::Unusable(reason) => self.complain(Some(format!("camera {}: {reason}", self.device))),
            Seen::Failed(reason) => self.answer(Err(reason)),
            Seen::Reference(light) => {
                let done = self.kept.keep_reference(&light);
                if done.is_ok() {
                    self.keeper.set_reference(Some(light));
                    self.reference_of = self.kept.reference_time();
                    self.remote.tell(|condition| condition.has_reference = true);
                }
                let path = self.kept.reference_path();
                self.answer(match done {
                    Ok(()) => Ok("the picture of the empty light box is kept".into()),
                    Err(error) => Err(format!("cannot keep {}: {error}", path.display())),
                });
            }
            Seen::Film(film) => self.take(film, now),
        }
        if self.keeper.last() != last.as_ref() && self.unkept.is_none() {
            self.keep_last();
        }
    }

    /// A reference picture that the command line took is used from then on.
    fn look_for_reference(&mut self) {
        let time = self.kept.reference_time();
        if time != self.reference_of {
            self.reference_of = time;
            self.keeper.set_reference(self.kept.reference());
            let has_reference = self.keeper.has_reference();
            self.remote.tell(|condition| condition.has_reference = has_reference);
        }
    }

    /// Makes a file of a film.
    fn take(&mut self, film: Box<Film>, now: Instant) {
        self.complain(None);
        self.keeper.remember(&film);
        self.taken_at = now;
        self.pictures += 1;
        let is_deep = self.eye.as_ref().is_some_and(|eye| eye.is_deep());
        let Some(png) = encoded(&film.picture, is_deep) else {
            return self.answer(Err("the picture could not be written as PNG".into()));
        };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let ticket = self.asked.take().map(|(ticket, _)| ticket);
        // One that could not be kept and is older makes room: the films before a full disk lie there no more.
        if let Some(Picture { ticket: Some(ticket), .. }) = self.unkept.take() {
            self.remote.answer(ticket, Err("another film came before it could be kept".into()));
        }
        self.unkept = Some(Picture { name: format!("film-{time}-{}.png", self.pictures), png, film, ticket });
        self.keep(now);
    }

    /// Hands over what is not kept yet.
    fn keep(&mut self, now: Instant) {
        let Some(picture) = self.unkept.take() else { return };
        match (self.store)(&picture.name, &picture.png) {
            Ok(()) => {
                let (width, height) = (picture.film.picture.width(), picture.film.picture.height());
                log::info!("camera {}: a film was taken, {width} × {height} pixels", self.device);
                self.remote.tell(|condition| condition.films += 1);
                self.complain(None);
                if let Some(ticket) = picture.ticket {
                    self.remote.answer(ticket, Ok("the film was taken; its report follows".into()));
                }
                self.keep_last();
            }
            Err(reason) => {
                self.complain(Some(format!("the camera's picture cannot be kept now: {reason}")));
                self.retry_at = now + RETRY;
                self.unkept = Some(picture);
            }
        }
    }

    fn keep_last(&self) {
        if let Err(error) = self.kept.keep_last(self.keeper.last()) {
            log::warn!("which film was taken last cannot be kept, so that a restart may report it again: {error}");
        }
    }

    /// What is wrong with what lies there; said once.
    fn complain(&self, complaint: Option<String>) {
        let before = self.remote.condition().complaint;
        if before != complaint {
            if let Some(complaint) = &complaint {
                log::warn!("{complaint}");
            }
            self.remote.tell(|condition| condition.complaint = complaint);
        }
    }

    /// Answers whoever asked.
    fn answer(&mut self, outcome: Result<String, String>) {
        if let Some((ticket, _)) = self.asked.take() {
            self.remote.answer(ticket, outcome);
        }
    }
}

/// A picture as PNG, with 16 bits where there are more than 8.
pub fn encoded(picture: &Grey, is_deep: bool) -> Option<Vec<u8>> {
    let (width, height) = (u32::try_from(picture.width()).ok()?, u32::try_from(picture.height()).ok()?);
    let mut png = Cursor::new(Vec::new());
    if is_deep {
        let image: ImageBuffer<Luma<u16>, &[u16]> = ImageBuffer::from_raw(width, height, picture.levels())?;
        image.write_to(&mut png, ImageFormat::Png).ok()?;
    } else {
        let levels = picture.levels().iter().map(|&level| ((u32::from(level) + 128) / 257) as u8).collect();
        let image: ImageBuffer<Luma<u8>, Vec<u8>> = ImageBuffer::from_raw(width, height, levels)?;
        image.write_to(&mut png, ImageFormat::Png).ok()?;
    }
    Some(png.into_inner())
}
