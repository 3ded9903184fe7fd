//! The thread that brings the objects to the PACS: in order, again and again with pauses that grow, for as long as they may
//! wait. Nothing that goes wrong here stops or delays a radiograph.
//!
//! A round offers first what was never offered, then what was and is due again (`tries`): so an object over which the PACS
//! hangs up, or which it does not take, never stands in the way of those behind it.

use super::Standing;
use super::association::{Association, Peer, StoreError, Trouble};
use super::command::Answer;
use super::config::{Config, Kind};
use super::own::opened;
use super::shelf::{Folder, Name};
use super::store::Store;
use super::tries::{FIRST_PAUSE, Failure, Round, Tries};
use super::{ResultsError, lock};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often the folders are looked at: somebody may have moved objects.
const LOOK: Duration = Duration::from_secs(30);

/// How often what was set aside is offered again.
const RECALL: Duration = Duration::from_secs(24 * 3600);

/// After how many refusals in a row the PACS is taken to be in trouble itself: then no more is sent in that round.
const IN_A_ROW: u32 = 20;

/// How many objects that are set aside at once have a line each in the log.
const LINES: usize = 3;

/// Why a round has ended before everything was through.
enum Ended {
    /// The daemon wants the thread to end.
    Stopped,
    /// The PACS is not there.
    Away(Trouble),
    /// It is there, and took something ill.
    Upset(Trouble),
}

/// The daemon wants the thread to end.
struct Stopped;

/// What the thread works with.
pub(super) struct Courier {
    store: Arc<Store>,
    peer: Peer,
    config: Config,
    told: Arc<Mutex<Standing>>,
    /// Something waits; hanging up ends the thread.
    news: Receiver<()>,
    tries: Tries,
    /// What is on its way.
    at_hand: Option<Name>,
    /// Whether something has come since the round began.
    heard: bool,
    /// Troubles that the log knows, until it is well again.
    said: HashSet<String>,
    /// What the disk had, as it was last said.
    disk: Option<String>,
    looked: Option<Instant>,
    recalled: Option<Instant>,
}

impl Courier {
    pub(super) fn new(
        store: Arc<Store>,
        peer: Peer,
        config: Config,
        told: Arc<Mutex<Standing>>,
        news: Receiver<()>,
    ) -> Self {
        let tries = Tries::new(Duration::from_secs(config.max_retry_s));
        Self {
            store,
            peer,
            config,
            told,
            news,
            tries,
            at_hand: None,
            heard: false,
            said: HashSet::new(),
            disk: None,
            looked: None,
            recalled: None,
        }
    }

    /// Sends until it is told to stop.
    pub(super) fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.keep_house();
            let mut round = Round::default();
            self.heard = false;
            let ended = self.guarded(&mut round, Self::round);
            self.weigh(&round);
            if !round.stored.is_empty() {
                pause = FIRST_PAUSE;
            }
            let rested = match ended {
                Err(Ended::Stopped) => return,
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if self.idle().is_err() {
                        return;
                    }
                    continue;
                }
                Err(Ended::Away(trouble)) => {
                    self.say_once(&trouble.0);
                    self.rest(pause, false)
                }
                Err(Ended::Upset(trouble)) => {
                    self.say_once(&trouble.0);
                    self.rest(pause, true)
                }
            };
            if rested.is_err() {
                return;
            }
            pause = (pause * 2).min(Duration::from_secs(self.config.max_retry_s));
        }
    }

    /// A round that outlives a defect of a library that meets a hostile answer.
    fn guarded(
        &mut self,
        round: &mut Round,
        work: impl FnOnce(&mut Self, &mut Round) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let ended = catch_unwind(AssertUnwindSafe(|| work(&mut *self, &mut *round)));
        ended.unwrap_or_else(|_| {
            let reason = "the program broke down over what the PACS answered; this is a defect of the program";
            if let Some(name) = self.at_hand.take() {
                self.tries.failed(round, &name, Failure::Broken, reason, Instant::now());
            }
            Err(Ended::Upset(Trouble(reason.into())))
        })
    }

    /// Offers everything that waits and is due.
    fn round(&mut self, round: &mut Round) -> Result<(), Ended> {
        let due = self.tries.due(Instant::now());
        let first = self.fresh(None);
        if first.is_none() && due.is_empty() {
            self.well();
            return Ok(());
        }
        let mut association = self.peer.connect().map_err(Ended::Away)?;
        let ended = self.offer_all(&mut association, first, due, round);
        association.release();
        ended?;
        self.well();
        Ok(())
    }

    fn offer_all(
        &mut self,
        association: &mut Association,
        first: Option<Name>,
        due: Vec<Name>,
        round: &mut Round,
    ) -> Result<(), Ended> {
        let mut next = first;
        while let Some(name) = next {
            self.offer(association, &name, round)?;
            next = self.fresh(Some(&name));
        }
        for name in due {
            if self.store.waits(&name) {
                self.offer(association, &name, round)?;
            }
        }
        Ok(())
    }

    /// The first that was never offered, of those behind `after`.
    fn fresh(&self, after: Option<&Name>) -> Option<Name> {
        let mut next = self.store.next(after);
        while let Some(name) = next.take_if(|name| self.tries.know(name)) {
            next = self.store.next(Some(&name));
        }
        next
    }

    /// Offers one object. An error: nothing more can be offered over this association.
    fn offer(&mut self, association: &mut Association, name: &Name, round: &mut Round) -> Result<(), Ended> {
        if self.is_stopped() {
            return Err(Ended::Stopped);
        }
        if !association.takes(name.kind) {
            let reason = self.of_pacs(&format!("it does not take a {}", name.kind.title()));
            self.tries.failed(round, name, Failure::Refused { lasting: true }, &reason, Instant::now());
            return Ok(());
        }
        self.at_hand = Some(name.clone());
        let sent = self.send(association, name);
        self.at_hand = None;
        let (failure, reason, goes_on) = match sent {
            Ok(Some(Answer::Stored)) => {
                self.delivered(name, round);
                return Ok(());
            }
            // Somebody has removed it.
            Ok(None) => {
                self.tries.forget(name);
                return Ok(());
            }
            Ok(Some(Answer::Refused { reason, lasting })) => {
                round.refused_in_a_row += 1;
                let goes_on = round.refused_in_a_row < IN_A_ROW;
                (Failure::Refused { lasting }, self.of_pacs(&reason), goes_on)
            }
            Ok(Some(Answer::Busy(reason))) => (Failure::Broken, self.of_pacs(&reason), false),
            Err(StoreError::Lost(reason)) => (Failure::Broken, self.of_pacs(&reason), false),
            // In the middle of a message: the association cannot go on.
            Err(StoreError::Unread(error)) => {
                let reason = format!("a result cannot be read from the disk: {error}");
                (Failure::Refused { lasting: false }, reason, false)
            }
        };
        // One that was interrupted has not failed, and the configuration may be another by now.
        if self.is_stopped() {
            return Err(Ended::Stopped);
        }
        self.tries.failed(round, name, failure, &reason, Instant::now());
        if goes_on { Ok(()) } else { Err(Ended::Upset(Trouble(reason))) }
    }

    /// Sends one object; `None` where it is gone.
    fn send(&self, association: &mut Association, name: &Name) -> Result<Option<Answer>, StoreError> {
        let waiting = self.store.open_waiting(name).map_err(|error| StoreError::Unread(error.error))?;
        let Some(file) = waiting else { return Ok(None) };
        let (instance, mut data_set) = opened(file).map_err(StoreError::Unread)?;
        association.store(name.kind, &instance, &mut data_set).map(Some)
    }

    fn delivered(&mut self, name: &Name, round: &mut Round) {
        round.stored.insert(name.kind);
        round.refused_in_a_row = 0;
        self.tries.forget(name);
        let Name { sequence, kind, report_id } = name;
        log::info!(
            ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
            "the PACS has the {kind} of report {sequence}"
        );
        lock(&self.told).sent += 1;
        self.well();
        let removed = self.store.delivered(name);
        self.complain(removed.err());
    }

    /// Sets aside what a round has shown to be hopeless.
    fn weigh(&mut self, round: &Round) {
        let hopeless = self.tries.weigh(round, Instant::now());
        let mut set_aside = Vec::new();
        for (name, reason) in hopeless {
            match self.store.refuse(&name) {
                Ok(()) => {
                    self.tries.forget(&name);
                    set_aside.push((name, reason));
                }
                Err(error) => self.complain(Some(error)),
            }
        }
        let Some((_, reason)) = set_aside.last() else { return };
        if set_aside.len() > LINES {
            log::error!(
                "{} results are set aside in state_dir/results/refused: {reason}. They are offered again once a day, and \
                 after a restart or reload",
                set_aside.len()
            );
        } else {
            for (Name { sequence, kind, report_id }, reason) in &set_aside {
                log::error!(
                    ROENTGEN_REPORT_ID = report_id.as_str(), ROENTGEN_SEQUENCE = *sequence;
                    "the {kind} of report {sequence} is set aside in state_dir/results/refused: {reason}. It is offered \
                     again once a day, and after a restart or reload"
                );
            }
        }
        let mut told = lock(&self.told);
        told.refusal = Some(reason.clone());
        told.news += 1;
        drop(told);
        self.well();
    }

    fn of_pacs(&self, reason: &str) -> String {
        format!("{}: {reason}", self.config.address)
    }

    /// Says a trouble where it is one that was not said since all was well.
    fn say_once(&mut self, reason: &str) {
        if self.said.insert(reason.to_owned()) {
            log::warn!("results wait for the PACS: {reason}");
        }
        let mut told = lock(&self.told);
        let since = told.trouble.take().map_or_else(Instant::now, |(_, since)| since);
        told.trouble = Some((reason.to_owned(), since));
    }

    /// The PACS takes what it is offered; but for what it did not take, if there is any.
    fn well(&mut self) {
        if let Some(reason) = self.tries.reason().map(str::to_owned) {
            return self.say_once(&reason);
        }
        self.said.clear();
        if lock(&self.told).trouble.take().is_some() {
            log::info!("the PACS takes results again");
        }
    }

    /// Says a trouble of the disk once, whichever object it is about. The objects lie there all the same.
    fn complain(&mut self, error: Option<ResultsError>) {
        let known = error.as_ref().map(|error| format!("{}: {}", error.what, error.error));
        if let Some(error) = error.filter(|_| self.disk != known) {
            log::warn!("results for the PACS: {error}");
        }
        self.disk = known;
    }

    /// Looks at the folders now and then, and keeps them within their bounds.
    fn keep_house(&mut self) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let looked = self.store.look();
            self.complain(looked.err());
        }
        if self.recalled.is_none_or(|recalled| recalled.elapsed() >= RECALL) {
            self.recalled = Some(Instant::now());
            let (recalled, failed) = self.store.recall();
            if !recalled.is_empty() {
                log::info!("{} results that the PACS has not taken are offered to it again", recalled.len());
            }
            // Behind those that were never offered.
            recalled.iter().for_each(|name| self.tries.recalled(name, Instant::now()));
            self.complain(failed.err());
        }
        self.tidy();
        let store = &self.store;
        self.tries.retain(|name| store.waits(name));
    }

    fn tidy(&self) {
        let dropped = self.store.tidy();
        let (orphans, dropped): (Vec<_>, Vec<_>) =
            dropped.into_iter().partition(|(_, folder)| *folder == Folder::Staged);
        if !orphans.is_empty() {
            log::warn!("removed {} results that no report was queued for", orphans.len());
        }
        if dropped.is_empty() {
            return;
        }
        let pictures = dropped.iter().filter(|(name, _)| name.kind == Kind::SecondaryCapture).count();
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

    /// Waits until something comes, or is due again.
    fn idle(&self) -> Result<(), Stopped> {
        if self.fresh(None).is_some() {
            return Ok(());
        }
        let due = self.tries.soonest(Instant::now()).map_or(LOOK, |due| due.clamp(FIRST_PAUSE, LOOK));
        match self.news.recv_timeout(due) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// Waits out a pause; one for news is cut short where the PACS is there.
    fn rest(&mut self, pause: Duration, for_news: bool) -> Result<(), Stopped> {
        let started = Instant::now();
        loop {
            let most = if for_news && self.heard { pause.min(FIRST_PAUSE) } else { pause };
            match self.news.recv_timeout(most.saturating_sub(started.elapsed())) {
                Ok(()) => self.heard = true,
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
            }
        }
    }

    fn is_stopped(&mut self) -> bool {
        loop {
            match self.news.try_recv() {
                Ok(()) => self.heard = true,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests;
