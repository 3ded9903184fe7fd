//! What others ask of the camera's thread, and what it tells them: a handle that clones share. Nobody waits on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most wishes that wait, and most answers that are kept.
const MOST: usize = 32;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A picture of the film that lies there, whether or not it was reported.
    Picture,
    /// The light box is empty now: its picture is to be the reference.
    Reference,
}

/// What one wish is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a wish: what was done, or why not, in words.
pub type Outcome = Result<String, String>;

/// How it stands with the camera.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Which camera, as the configuration says.
    pub device: String,
    /// In which mode it runs, e.g. `YUYV 1280x720`; `None` while it is away.
    pub mode: Option<String>,
    /// Why there are no pictures; `None` while there are, and before that is known.
    pub away: Option<String>,
    /// Why the film that lies there, or its picture, cannot be used.
    pub complaint: Option<String>,
    /// How many films it has handed over since the start.
    pub films: u64,
    /// How often it went away.
    pub losses: u64,
    /// Whether it has a picture of the empty light box, and uses it.
    pub has_reference: bool,
    /// Why it does not use the one that is kept.
    pub reference_unfit: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    condition: Condition,
    last: u64,
    wishes: VecDeque<(Ticket, Wish)>,
    answers: VecDeque<(Ticket, Outcome)>,
    is_closed: bool,
}

/// The handle.
#[derive(Debug, Clone, Default)]
pub struct Remote(Arc<Mutex<Shared>>);

impl Remote {
    /// Asks for something; [`Self::outcome`] says what became of it.
    pub fn ask(&self, wish: Wish) -> Ticket {
        let mut shared = self.lock();
        shared.last += 1;
        let ticket = Ticket(shared.last);
        if shared.wishes.len() >= MOST {
            answer(&mut shared, ticket, Err("too many pictures are asked for at once".into()));
        } else {
            shared.wishes.push_back((ticket, wish));
        }
        ticket
    }

    /// What became of a wish; `None` as long as it is not known.
    pub fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        let shared = self.lock();
        shared.answers.iter().find(|(answered, _)| *answered == ticket).map(|(_, outcome)| outcome.clone())
    }

    /// Whether its thread has ended: nothing is answered any more.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// The thread ends.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// How it stands with the camera.
    pub fn condition(&self) -> Condition {
        self.lock().condition.clone()
    }

    /// Takes the oldest wish, and with it the duty to [`Self::answer`].
    pub(super) fn take(&self) -> Option<(Ticket, Wish)> {
        self.lock().wishes.pop_front()
    }

    /// Says what became of a wish.
    pub(super) fn answer(&self, ticket: Ticket, outcome: Outcome) {
        answer(&mut self.lock(), ticket, outcome);
    }

    /// Changes what is known about the camera.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.lock().condition);
    }

    /// A poisoned lock is used on: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(shared: &mut Shared, ticket: Ticket, outcome: Outcome) {
    if shared.answers.len() >= MOST {
        shared.answers.pop_front();
    }
    shared.answers.push_back((ticket, outcome));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_answered_each_and_in_bounds() {
        let remote = Remote::default();
        let (first, second) = (remote.ask(Wish::Picture), remote.ask(Wish::Reference));
        assert_eq!(remote.take(), Some((first, Wish::Picture)));
        assert_eq!(remote.take(), Some((second, Wish::Reference)));
        assert_eq!(remote.take(), None);
        remote.answer(second, Err("no".into()));
        assert_eq!((remote.outcome(first), remote.outcome(second)), (None, Some(Err("no".into()))));
        let tickets: Vec<Ticket> = (0..1000).map(|_| remote.ask(Wish::Picture)).collect();
        assert!(remote.outcome(tickets[999]).is_some_and(|outcome| outcome.is_err()));
        assert_eq!(std::iter::from_fn(|| remote.take()).count(), MOST);
    }
}
