//! The camera's thread: opens the device and opens it again when it went away, shows its frames to the [`Keeper`], and hands
//! over what comes of them. Nothing that goes wrong here stops anything else, and nothing waits for it but its own end.

use super::eye::{Away, Eye, Open, Store};
use super::film::{Film, encoded};
use super::grey::Grey;
use super::keeper::{Keeper, Seen};
use super::kept::{Kept, TakenBy};
use super::remote::{Remote, Ticket, Wish};
use super::{Config, LEAST_PAUSE};
use std::collections::VecDeque;
use std::io;
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
/// Pictures that are held in memory while there is no room on the disk.
const MOST_UNKEPT: usize = 8;
/// What may be wrong: with the film that lies there, and with keeping pictures.
const FILM: usize = 0;
const DISK: usize = 1;
/// How long the thread's end is waited for.
const FAREWELL: Duration = Duration::from_secs(5);
/// The pause after this code itself has broken down.
const BREAKDOWN: Duration = Duration::from_secs(10);

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
    /// Pictures that could not be kept yet, the oldest first.
    unkept: VecDeque<Picture>,
    /// What is wrong with the film that lies there, and with keeping pictures.
    troubles: [Option<String>; 2],
    /// When the last picture was taken, for the interval.
    taken_at: Instant,
    /// Which reference picture is used, or was found unfit: for which camera, and when it was taken.
    reference_of: Option<(TakenBy, Option<SystemTime>)>,
    pictures: u64,
}

impl Worker {
    fn new(config: &Config, state_dir: &Path, open: Open, store: Store, remote: Remote) -> Self {
        let now = Instant::now();
        let kept = Kept::new(state_dir);
        let still = Duration::from_millis(config.still_ms);
        // Which reference picture fits is known when the camera is.
        let keeper = Keeper::new(still, config.burst, None, kept.films());
        remote.tell(|condition| condition.device = config.device.clone());
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
            unkept: VecDeque::new(),
            troubles: [None, None],
            taken_at: now,
            reference_of: None,
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
                self.lose("the program made a mistake over it; it begins anew");
                BREAKDOWN
            });
        }
        // What could not be kept has its last chance.
        self.keep(Instant::now());
        if !self.unkept.is_empty() {
            log::error!("{} pictures of films could not be kept and are lost", self.unkept.len());
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
            Ok(Some((frame, taken))) => self.show(frame, taken),
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
        self.keeper.forget_wish();
        if let Some((ticket, _)) = self.asked.take() {
            self.remote.answer(ticket, Err(reason.clone()));
        }
        self.troubles[FILM] = None;
        let complaint = self.troubles[DISK].clone();
        self.remote.tell(|condition| {
            condition.losses += u64::from(was_there);
            (condition.mode, condition.away, condition.complaint) = (None, Some(reason), complaint);
        });
    }

    /// Shows a frame to the keeper, and does what follows.
    fn show(&mut self, frame: Grey, taken: Instant) {
        let now = Instant::now();
        self.welcome();
        self.look_for_reference();
        let films = self.keeper.films().to_vec();
        let seen = self.keeper.see(frame, taken);
        // What took its time to look at must not be followed by what was taken meanwhile.
        self.last_frame = Instant::now();
        self.next_look = if self.keeper.is_in_haste() { Instant::now() } else { (now + LOOK).max(Instant::now()) };
        match seen {
            Seen::Nothing => {}
            Seen::Empty | Seen::Known => {
                self.complain(FILM, None);
                if !films.is_empty() && self.keeper.films().is_empty() {
                    log::debug!("the film has left the camera's view");
                }
            }
            Seen::Unusable(reason) => self.complain(FILM, Some(format!("camera {}: {reason}", self.device))),
            Seen::Restless => {
                let what = "something moves all the time, so that no film can be taken: a lamp that flickers, a clock, a fan, \
                            people behind the light box";
                self.complain(FILM, Some(format!("camera {}: {what}", self.device)));
            }
            Seen::Failed(reason) => self.answer(Err(reason)),
            Seen::Reference(light) => {
                let Some(by) = self.eye.as_deref().map(TakenBy::eye) else { return };
                let done = self.kept.keep_reference(&light, &by);
                self.reference_of = None;
                self.look_for_reference();
                let path = self.kept.reference_path();
                self.answer(match done {
                    Ok(()) => Ok("the picture of the empty light box is kept".into()),
                    Err(error) => Err(format!("cannot keep {}: {error}", path.display())),
                });
            }
            Seen::Film(film) => self.take(film, now),
        }
        if self.keeper.films() != films && self.unkept.is_empty() {
            self.keep_films();
        }
    }

    /// Uses the reference picture where it is of this camera in this mode; one that the command line took from then on.
    fn look_for_reference(&mut self) {
        let Some(by) = self.eye.as_deref().map(TakenBy::eye) else { return };
        let wanted = Some((by.clone(), self.kept.reference_time()));
        if wanted == self.reference_of {
            return;
        }
        self.reference_of = wanted;
        let (light, unfit) = self.kept.reference(&by).map_or_else(|unfit| (None, Some(unfit)), |light| (light, None));
        if let Some(unfit) = unfit.as_ref().filter(|_| self.remote.condition().reference_unfit != unfit) {
            log::warn!("camera {}: {unfit}", self.device);
        }
        let has_reference = light.is_some();
        self.keeper.set_reference(light);
        self.remote.tell(|condition| (condition.has_reference, condition.reference_unfit) = (has_reference, unfit));
    }

    /// Makes a file of a film.
    fn take(&mut self, film: Box<Film>, now: Instant) {
        self.complain(FILM, None);
        self.keeper.remember(&film);
        self.taken_at = now;
        self.pictures += 1;
        let is_deep = self.eye.as_ref().is_some_and(|eye| eye.is_deep());
        let Some(png) = encoded(&film.picture, is_deep) else {
            return self.answer(Err("the picture could not be written as PNG".into()));
        };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let ticket = self.asked.take().map(|(ticket, _)| ticket);
        if self.unkept.len() >= MOST_UNKEPT
            && let Some(oldest) = self.unkept.pop_front()
        {
            log::error!("the picture of a film that could not be kept is lost: more came than memory holds");
            if let Some(ticket) = oldest.ticket {
                self.remote.answer(ticket, Err("it could not be kept, and other films came".into()));
            }
        }
        self.unkept.push_back(Picture { name: format!("film-{time}-{}.png", self.pictures), png, film, ticket });
        self.keep(now);
    }

    /// Hands over what is not kept yet.
    fn keep(&mut self, now: Instant) {
        while let Some(picture) = self.unkept.pop_front() {
            if let Err(reason) = (self.store)(&picture.name, &picture.png) {
                self.complain(DISK, Some(format!("the camera's pictures cannot be kept now: {reason}")));
                self.retry_at = now + RETRY;
                return self.unkept.push_front(picture);
            }
            let (width, height) = (picture.film.picture.width(), picture.film.picture.height());
            log::info!("camera {}: a film was taken, {width} × {height} pixels", self.device);
            self.remote.tell(|condition| condition.films += 1);
            self.complain(DISK, None);
            if let Some(ticket) = picture.ticket {
                self.remote.answer(ticket, Ok("the film was taken; its report follows".into()));
            }
            if self.unkept.is_empty() {
                self.keep_films();
            }
        }
    }

    fn keep_films(&self) {
        if let Err(error) = self.kept.keep_films(self.keeper.films()) {
            log::warn!("which films were taken cannot be kept, so that a restart may report them again: {error}");
        }
    }

    /// A frame has come: the camera is there.
    fn welcome(&mut self) {
        let Some(eye) = self.eye.as_ref().filter(|_| self.remote.condition().mode.is_none()) else { return };
        let mode = eye.mode();
        log::info!("camera {}: {mode}", self.device);
        self.remote.tell(|condition| (condition.mode, condition.away) = (Some(mode), None));
    }

    /// What is wrong; said once, whatever the figures in it.
    fn complain(&mut self, about: usize, complaint: Option<String>) {
        let kind = |text: &Option<String>| text.as_ref().map(|text| text.replace(|c: char| c.is_ascii_digit(), ""));
        if kind(&self.troubles[about]) == kind(&complaint) {
            return;
        }
        if let Some(complaint) = &complaint {
            log::warn!("{complaint}");
        }
        self.troubles[about] = complaint;
        let worst = self.troubles[DISK].clone().or_else(|| self.troubles[FILM].clone());
        self.remote.tell(|condition| condition.complaint = worst);
    }

    /// Answers whoever asked.
    fn answer(&mut self, outcome: Result<String, String>) {
        if let Some((ticket, _)) = self.asked.take() {
            self.remote.answer(ticket, outcome);
        }
    }
}
