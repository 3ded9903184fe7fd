//! The wish that the daemon read its configuration again, or look which bundle is active, and the answer: for a signal, a
//! command over MQTT, an installed bundle. Not the reading itself, which the daemon does between two images.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle on the wish; clones share it. Asking and looking never wait.
#[derive(Debug, Clone, Default)]
pub struct Reload(Arc<Shared>);

/// What one wish is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What was asked for until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The last of the tickets that the answer is for.
    pub ticket: Ticket,
    /// The configuration is to be read again, and with it the bundle.
    pub configuration: bool,
    /// The bundle that is active now is to be loaded, by the configuration in force at least.
    pub bundle: bool,
}

/// What became of a reload: what changed in words, or why it was refused and all stayed as it was.
pub type Outcome = Result<String, String>;

#[derive(Debug, Default)]
struct Shared {
    /// A flag of its own, since a signal handler may set one and may not take a lock.
    signalled: Arc<AtomicBool>,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// The last ticket that was given out.
    last: u64,
    configuration: bool,
    bundle: bool,
    /// The newest ticket that is answered, and how.
    answered: Option<(Ticket, Outcome)>,
    /// How many answers there have been.
    answers: u64,
}

impl Reload {
    /// Asks that the configuration be read again. Several wishes before it happens are one.
    pub fn ask(&self) -> Ticket {
        let mut asked = self.lock();
        asked.configuration = true;
        asked.ticket()
    }

    /// Asks that the active bundle be loaded, even where the configuration file is bad by now.
    pub fn ask_for_bundle(&self) -> Ticket {
        let mut asked = self.lock();
        asked.bundle = true;
        asked.ticket()
    }

    /// What became of it: `None` as long as the daemon has not come to it.
    pub fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        self.lock().answered.as_ref().filter(|(answered, _)| *answered >= ticket).map(|(_, outcome)| outcome.clone())
    }

    /// The flag that a signal handler sets to have the configuration read again.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.signalled)
    }

    /// Takes what was asked for, if anything was, and with it the duty to [`Self::answer`].
    pub fn take(&self) -> Option<Wish> {
        let mut asked = self.lock();
        let configuration = std::mem::take(&mut asked.configuration) | self.0.signalled.swap(false, Ordering::Relaxed);
        let bundle = std::mem::take(&mut asked.bundle);
        (configuration || bundle).then_some(Wish { ticket: Ticket(asked.last), configuration, bundle })
    }

    /// Answers all wishes up to this ticket.
    pub fn answer(&self, ticket: Ticket, outcome: Outcome) {
        let mut asked = self.lock();
        asked.answered = Some((ticket, outcome));
        asked.answers += 1;
    }

    /// How many reloads were answered, and what became of the last.
    pub fn answered(&self) -> (u64, Option<Outcome>) {
        let asked = self.lock();
        (asked.answers, asked.answered.as_ref().map(|(_, outcome)| outcome.clone()))
    }

    /// A poisoned lock is used on: nothing that is done under it can panic.
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_answered_together_and_a_later_one_on_its_own() {
        let reload = Reload::default();
        assert_eq!(reload.take(), None);
        let (first, second) = (reload.ask(), reload.clone().ask_for_bundle());
        let taken = reload.take().expect("a wish");
        assert!(taken.configuration && taken.bundle);
        assert_eq!(reload.take(), None, "taken once");
        let late = reload.ask_for_bundle();
        assert_eq!(reload.outcome(first), None);
        reload.answer(taken.ticket, Err("no".into()));
        assert_eq!(reload.outcome(first), Some(Err("no".into())));
        assert_eq!(reload.outcome(second), Some(Err("no".into())));
        assert_eq!(reload.outcome(late), None, "it came after the reload had begun");
        let wish = reload.take().expect("the late wish");
        assert!(wish.bundle && !wish.configuration);
        reload.answer(wish.ticket, Ok("bundle".into()));
        assert_eq!(reload.outcome(late), Some(Ok("bundle".into())));
    }

    #[test]
    fn a_signal_asks_without_a_ticket() {
        let reload = Reload::default();
        reload.flag().store(true, Ordering::Relaxed);
        let taken = reload.take().expect("the signal's wish");
        assert!(taken.configuration && !taken.bundle);
        assert_eq!(reload.take(), None);
    }
}
