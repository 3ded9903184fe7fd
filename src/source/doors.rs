//! All doors of the box as one source: several watched folders, asked in turn. Watches and decodes nothing itself.
//!
//! A door with a thousand images does not starve another: each is asked for one image in its turn. Nor does it delay
//! another: while nothing is there all are waited for at once, on one bell, and while one image is being decoded (each door
//! has its own process for that, so that a file that hangs holds up its own door and no other) the others are asked.

use super::bell::Bell;
use super::folder::Folder;
use super::process::Program;
use super::{Condition, Intake, Item, Outcome, Source, SourceError};
use std::time::{Duration, Instant};

/// How long one decoder is listened to before the other doors are asked again.
const SLICE: Duration = Duration::from_millis(10);

/// The least pause between two rounds in which no door had anything to do.
const BREATH: Duration = Duration::from_millis(5);

/// The doors.
pub struct Doors {
    doors: Vec<Folder>,
    /// Whose turn it is.
    turn: usize,
    bell: Bell,
}

impl Doors {
    /// A box with this one door.
    pub fn new(folder: Folder) -> Self {
        let mut doors = Self { doors: Vec::new(), turn: 0, bell: Bell::default() };
        doors.add(folder);
        doors
    }

    /// Another door: a spool's.
    pub fn add(&mut self, folder: Folder) {
        folder.ring(self.bell.clone());
        self.doors.push(folder);
    }

    /// Has suspects tried by another program from now on.
    pub fn try_with(&mut self, program: &Program) {
        for door in &mut self.doors {
            door.try_with(program.clone());
        }
    }

    /// Asks every door once, beginning with the one whose turn it is.
    fn ask_all(&mut self) -> Result<Option<Item>, SourceError> {
        for _ in 0..self.doors.len() {
            let at = self.turn;
            self.turn = (at + 1) % self.doors.len();
            if let Some(item) = self.doors[at].next(Duration::ZERO)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

impl Source for Doors {
    fn next(&mut self, patience: Duration) -> Result<Option<Item>, SourceError> {
        if let [door] = &mut *self.doors {
            return door.next(patience);
        }
        let deadline = Instant::now() + patience;
        loop {
            if let Some(item) = self.ask_all()? {
                return Ok(Some(item));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            if let Some(door) = self.doors.iter_mut().find(|door| door.is_decoding()) {
                if let Some(item) = door.next(SLICE.min(deadline - now))? {
                    return Ok(Some(item));
                }
            } else {
                let rest = self.doors.iter().map(Folder::rest).min().unwrap_or_default();
                self.bell.wait(deadline.min(now + rest.max(BREATH)));
            }
        }
    }

    fn settle(&mut self, item: &Item, outcome: Outcome) -> Result<(), SourceError> {
        match self.doors.iter_mut().find(|door| door.has(item)) {
            Some(door) => door.settle(item, outcome),
            // Of no door: of one that a reload has closed. It lies where it was, and is judged when that is open again.
            None => Ok(()),
        }
    }

    fn condition(&self) -> Condition {
        let conditions: Vec<_> = self.doors.iter().map(Folder::condition).collect();
        let closed = self.doors.iter().zip(&conditions).filter_map(|(door, condition)| match &condition.intake {
            Intake::Open => None,
            Intake::Closed { reason } if self.doors.len() == 1 => Some(reason.clone()),
            Intake::Closed { reason } => Some(format!("{}: {reason}", door.name())),
        });
        let reasons: Vec<_> = closed.collect();
        Condition {
            intake: if reasons.is_empty() { Intake::Open } else { Intake::Closed { reason: reasons.join("; ") } },
            waiting: conditions.iter().map(|condition| condition.waiting).sum(),
            decoder_restarts: conditions.iter().map(|condition| condition.decoder_restarts).sum(),
        }
    }
}
