//! When a picture is taken: what is seen frame by frame, and what follows from it. A film is handed over once: the next time
//! only when it has left or another lies there, or when somebody asks. No device, no thread, no file.

use super::film::{Film, NoFilm, develop, print_at, sharpness};
use super::find::Found;
use super::flatten::Light;
use super::grey::Grey;
use super::kept::Last;
use super::remote::Wish;
use super::watch::{Scene, Watch};
use std::time::{Duration, Instant};

/// After how long a still scene is looked at again, in which all is well.
const AGAIN: Duration = Duration::from_secs(10);
/// The same where something is to be mended: a lamp shines in, the film is cut off.
const SOON: Duration = Duration::from_secs(2);
/// How long a picture that somebody asked for waits until nothing moves.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a frame has led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Nothing new.
    Nothing,
    /// Nothing lies there (any more).
    Empty,
    /// The film that lies there was handed over before.
    Known,
    /// A film to be handed over; [`Keeper::remember`] it when it is.
    Film(Box<Film>),
    /// Something lies there of which no picture can be made, and why.
    Unusable(NoFilm),
    /// The picture of the empty light box that was asked for.
    Reference(Light),
    /// What was asked for cannot be done now, and why.
    Failed(String),
}

/// Frames of one film, the best so far.
#[derive(Debug)]
struct Burst {
    best: Grey,
    found: Found,
    sharpness: f64,
    frames: u32,
}

/// Looks at one frame after the other.
#[derive(Debug)]
pub struct Keeper {
    watch: Watch,
    frames: u32,
    reference: Option<Light>,
    last: Option<Last>,
    burst: Option<Burst>,
    /// Something has moved since the scene was looked at.
    has_moved: bool,
    /// When the scene is looked at again although nothing moves.
    again: Option<Instant>,
    /// What somebody asked for, and until when it waits.
    wanted: Option<(Wish, Option<Instant>)>,
}

impl Keeper {
    /// One that takes the best of `frames` when nothing has moved for `still_for`. `last` was handed over before.
    pub fn new(still_for: Duration, frames: u32, reference: Option<Light>, last: Option<Last>) -> Self {
        Self {
            watch: Watch::new(still_for),
            frames: frames.max(1),
            reference,
            last,
            burst: None,
            has_moved: true,
            again: None,
            wanted: None,
        }
    }

    /// The film that was handed over last, as far as it may lie there still.
    pub fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// Whether the next frames should follow at once.
    pub fn is_in_haste(&self) -> bool {
        self.burst.is_some()
    }

    /// The light box looks like this when it is empty.
    pub fn set_reference(&mut self, reference: Option<Light>) {
        self.reference = reference;
    }

    /// Whether there is a picture of the empty light box.
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }

    /// Asks for something, whatever was handed over before. What was asked for before is forgotten.
    pub fn want(&mut self, wish: Wish) {
        self.wanted = Some((wish, None));
        self.burst = None;
    }

    /// Forgets what moved: there was a gap.
    pub fn interrupt(&mut self) {
        self.watch.forget();
        self.burst = None;
        self.has_moved = true;
    }

    /// A film is in safe hands.
    pub fn remember(&mut self, film: &Film) {
        self.last = Some(Last::new(film.print.clone(), &film.found.corners));
    }

    /// Looks at a frame.
    pub fn see(&mut self, frame: Grey, at: Instant) -> Seen {
        if let Some((_, until @ None)) = &mut self.wanted {
            *until = Some(at + PATIENCE);
        }
        if self.watch.look(&frame, at) == Scene::Moving {
            self.has_moved = true;
            self.burst = None;
            if self.wanted.is_some_and(|(_, until)| until.is_some_and(|until| at > until)) {
                self.wanted = None;
                return Seen::Failed("something moves before the camera; try again when nothing does".into());
            }
            return Seen::Nothing;
        }
        if let Some(mut burst) = self.burst.take() {
            let sharpness = sharpness(&frame, &burst.found.corners);
            burst.frames += 1;
            if sharpness > burst.sharpness {
                (burst.best, burst.sharpness) = (frame, sharpness);
            }
            return self.go_on(burst, at);
        }
        if let Some((Wish::Reference, _)) = self.wanted {
            self.wanted = None;
            return Light::of_empty(&frame).map_or_else(Seen::Failed, Seen::Reference);
        }
        let is_due = self.again.is_none_or(|again| at >= again);
        if !self.has_moved && !is_due && self.wanted.is_none() {
            return Seen::Nothing;
        }
        (self.has_moved, self.again) = (false, Some(at + AGAIN));
        match develop(&frame, self.reference.as_ref()) {
            Ok(film) if self.is_known(&film) => Seen::Known,
            Ok(film) => {
                let sharpness = sharpness(&frame, &film.found.corners);
                self.go_on(Burst { best: frame, found: film.found, sharpness, frames: 1 }, at)
            }
            Err(reason) => self.refuse(&frame, reason, at),
        }
    }

    /// Whether it was handed over before and nobody asks for it. Where it lies now is remembered.
    fn is_known(&mut self, film: &Film) -> bool {
        let is_known = self.last.as_ref().is_some_and(|last| last.print.is_of_same(&film.print));
        if is_known && self.wanted.is_none() {
            self.remember(film);
        }
        is_known && self.wanted.is_none()
    }

    /// Takes more frames, or makes a picture of the best.
    fn go_on(&mut self, burst: Burst, at: Instant) -> Seen {
        if burst.frames < self.frames {
            self.burst = Some(burst);
            return Seen::Nothing;
        }
        match develop(&burst.best, self.reference.as_ref()) {
            Ok(film) if self.is_known(&film) => Seen::Known,
            Ok(film) => {
                self.wanted = None;
                Seen::Film(Box::new(film))
            }
            Err(reason) => self.refuse(&burst.best, reason, at),
        }
    }

    /// No picture can be made.
    fn refuse(&mut self, frame: &Grey, reason: NoFilm, at: Instant) -> Seen {
        self.again = Some(at + SOON);
        if self.wanted.take().is_some() {
            return Seen::Failed(reason.to_string());
        }
        // A hand that rests on the film hides its edges, and takes it not away.
        let is_covered = self
            .last
            .as_ref()
            .is_some_and(|last| print_at(frame, &last.corners()).is_some_and(|print| last.print.is_partly(&print)));
        if is_covered {
            return Seen::Known;
        }
        match reason {
            NoFilm::Nothing => {
                self.last = None;
                Seen::Empty
            }
            reason => Seen::Unusable(reason),
        }
    }
}
