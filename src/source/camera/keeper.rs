//! When a picture is taken: what is seen frame by frame, and what follows from it. A film is handed over once: the next time
//! only when it has left or another lies there, or when somebody asks. No device, no thread, no file.

use super::film::{Film, NoFilm, develop, print_at, sharpness};
use super::find::{Found, Surround, is_bare};
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
/// After how long something is said about what never stands still.
const RESTLESS: Duration = Duration::from_secs(120);
/// After how long something is said about what lies there and is no film: hands take their time.
const UNCLEAR: Duration = Duration::from_secs(5);
/// The same where it seems to lie on a film that was handed over. A quarter of another chest may be so alike (0.92 on drawn
/// scenes) that it is one, which must not be lost without a word.
const COVERED: Duration = Duration::from_secs(30);
/// Films that are remembered until the light box is seen empty: several may lie side by side.
const FILMS: usize = 8;
/// A film has been moved where a corner is so far, of its side, from where it was.
const MOVED: f64 = 0.01;
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
    /// Something has moved for long.
    Restless,
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
    /// Films that were handed over since the box was empty, the last one last.
    films: Vec<Last>,
    burst: Option<Burst>,
    /// Something has moved since the scene was looked at.
    has_moved: bool,
    /// Since when nothing has stood still.
    moving_since: Option<Instant>,
    /// Since when something lies there that is no film.
    unclear_since: Option<Instant>,
    /// When the scene is looked at again although nothing moves.
    again: Option<Instant>,
    /// What somebody asked for, and until when it waits.
    wanted: Option<(Wish, Option<Instant>)>,
}

impl Keeper {
    /// One that takes the best of `frames` when nothing has moved for `still_for`. `films` were handed over before.
    pub fn new(still_for: Duration, frames: u32, reference: Option<Light>, films: Vec<Last>) -> Self {
        Self {
            watch: Watch::new(still_for),
            frames: frames.max(1),
            reference,
            films,
            burst: None,
            has_moved: true,
            moving_since: None,
            unclear_since: None,
            again: None,
            wanted: None,
        }
    }

    /// The films that were handed over and may lie there still.
    pub fn films(&self) -> &[Last] {
        &self.films
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

    /// Nobody waits any more for what was asked for.
    pub fn forget_wish(&mut self) {
        self.wanted = None;
    }

    /// Forgets what moved: there was a gap.
    pub fn interrupt(&mut self) {
        self.watch.forget();
        self.burst = None;
        self.has_moved = true;
        (self.moving_since, self.unclear_since) = (None, None);
    }

    /// A film is in safe hands.
    pub fn remember(&mut self, film: &Film) {
        self.films.retain(|known| !known.print.is_of_same(&film.print));
        if self.films.len() >= FILMS {
            self.films.remove(0);
        }
        self.films.push(Last::new(film.print.clone(), &film.found.corners, film.found.surround == Surround::Lit));
    }

    /// Looks at a frame.
    pub fn see(&mut self, frame: Grey, at: Instant) -> Seen {
        if let Some((_, until @ None)) = &mut self.wanted {
            *until = Some(at + PATIENCE);
        }
        if self.watch.look(&frame, at) == Scene::Moving {
            self.has_moved = true;
            (self.burst, self.unclear_since) = (None, None);
            if self.wanted.is_some_and(|(_, until)| until.is_some_and(|until| at > until)) {
                self.wanted = None;
                return Seen::Failed("something moves before the camera; try again when nothing does".into());
            }
            let since = *self.moving_since.get_or_insert(at);
            let is_long = at.saturating_duration_since(since) > RESTLESS;
            return if is_long { Seen::Restless } else { Seen::Nothing };
        }
        self.moving_since = None;
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
            Ok(film) if self.is_known(&film) => {
                self.unclear_since = None;
                Seen::Known
            }
            Ok(film) => {
                self.unclear_since = None;
                let sharpness = sharpness(&frame, &film.found.corners);
                self.go_on(Burst { best: frame, found: film.found, sharpness, frames: 1 }, at)
            }
            Err(reason) => self.refuse(&frame, reason, at),
        }
    }

    /// Whether it was handed over before and nobody asks for it. Where it lies now is remembered, if it was moved.
    fn is_known(&mut self, film: &Film) -> bool {
        let known = self.films.iter_mut().find(|known| known.print.is_of_same(&film.print));
        if self.wanted.is_some() {
            return false;
        }
        let Some(known) = known else { return false };
        let (width, height) = film.found.size();
        let corners = known.corners();
        let moved = corners.iter().zip(&film.found.corners).map(|(was, is)| was.distance(*is)).fold(0.0, f64::max);
        if moved > MOVED * width.min(height) {
            known.move_to(&film.found.corners);
        }
        true
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
        let unclear_since = self.unclear_since.take();
        if !matches!(reason, NoFilm::Nothing | NoFilm::Unclear) {
            return Seen::Unusable(reason);
        }
        // A hand may rest on a film.
        let is_there =
            |known: &Last| print_at(frame, &known.corners()).is_some_and(|print| known.print.is_partly(&print));
        let is_covered = self.films.iter().any(is_there);
        // They have left only where bare light is seen in their places: the lamp may be off, the camera not used to the light
        // yet, paper cover them.
        let have_left = !is_covered && self.films.iter().all(|known| is_bare(frame, &known.corners(), known.is_lit));
        if have_left {
            self.films.clear();
        }
        if reason == NoFilm::Unclear {
            let since = *self.unclear_since.insert(unclear_since.unwrap_or(at));
            let patience = if is_covered { COVERED } else { UNCLEAR };
            let is_long = at.saturating_duration_since(since) >= patience;
            return if is_long { Seen::Unusable(reason) } else { Seen::Nothing };
        }
        if have_left { Seen::Empty } else { Seen::Known }
    }
}
