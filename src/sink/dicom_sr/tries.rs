//! What the PACS has not taken: how often each object was offered, when it is offered again, and when it is set aside. Sends
//! nothing and touches no disk.
//!
//! An object is set aside on evidence against it, not against the PACS: one that answers everything with an error, or
//! takes no associations, or is full, is in trouble itself, and what waits for it waits. Evidence is that another object of
//! the same kind got through in the same round; or, where there was none, that the PACS has refused this one for an hour. Of
//! one over which the PACS falls silent or hangs up even that is none, unless others got through meanwhile.

use super::config::Kind;
use super::shelf::Name;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The pause after a first failure, of an object as of the PACS; it doubles up to the configured one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How often an object is offered that the PACS says it will never take, and one that it does not take for another reason.
const TRIES_LASTING: u32 = 3;
const TRIES: u32 = 10;

/// For how long, where no other object of its kind got through.
const SPAN: Duration = Duration::from_secs(3600);

/// What became of an object that the PACS has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The PACS said no. `lasting`: by what it says it always will.
    Refused { lasting: bool },
    /// It said that it can take nothing now, or hung up, or fell silent.
    Broken,
}

struct Try {
    count: u32,
    /// Of these, how often another object of its kind got through in the same round.
    against: u32,
    first: Instant,
    last: Instant,
    /// When it is offered again.
    due: Instant,
    failure: Failure,
    reason: String,
    /// Whether any other object got through since the first failure.
    others: bool,
}

/// What happened in one round.
#[derive(Default)]
pub(super) struct Round {
    /// What got through.
    pub(super) stored: BTreeSet<Kind>,
    failed: Vec<Name>,
    /// How many refusals there were since the last object got through.
    pub(super) refused_in_a_row: u32,
}

/// All that were offered in vain and still wait.
pub(super) struct Tries {
    of: HashMap<Name, Try>,
    longest: Duration,
}

impl Tries {
    pub(super) fn new(longest: Duration) -> Self {
        Self { of: HashMap::new(), longest }
    }

    pub(super) fn failed(&mut self, round: &mut Round, name: &Name, failure: Failure, reason: &str, now: Instant) {
        let tried = self.of.entry(name.clone()).or_insert_with(|| Try::new(now));
        tried.count += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (tried.count - 1).min(20));
        (tried.last, tried.due, tried.failure) = (now, now + pause.min(self.longest), failure);
        reason.clone_into(&mut tried.reason);
        round.failed.push(name.clone());
    }

    /// It was set aside, and is offered again from now on, behind those that were never offered.
    pub(super) fn recalled(&mut self, name: &Name, now: Instant) {
        self.of.insert(name.clone(), Try::new(now));
    }

    /// It got through, or is gone.
    pub(super) fn forget(&mut self, name: &Name) {
        self.of.remove(name);
    }

    /// Only what still waits counts.
    pub(super) fn retain(&mut self, waits: impl Fn(&Name) -> bool) {
        self.of.retain(|name, _| waits(name));
    }

    /// Whether it was offered in vain.
    pub(super) fn know(&self, name: &Name) -> bool {
        self.of.contains_key(name)
    }

    /// What is to be offered again, least recently tried first.
    pub(super) fn due(&self, now: Instant) -> Vec<Name> {
        let mut due: Vec<_> = self.of.iter().filter(|(_, tried)| tried.due <= now).collect();
        due.sort_by_key(|(name, tried)| (tried.last, *name));
        due.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// How long it is until one is to be offered again.
    pub(super) fn soonest(&self, now: Instant) -> Option<Duration> {
        self.of.values().map(|tried| tried.due.saturating_duration_since(now)).min()
    }

    /// Why the last one was not taken.
    pub(super) fn reason(&self) -> Option<&str> {
        let failed = self.of.values().filter(|tried| tried.count > 0);
        failed.max_by_key(|tried| tried.last).map(|tried| tried.reason.as_str())
    }

    /// Weighs a round that is over: what is to be set aside, and why.
    pub(super) fn weigh(&mut self, round: &Round, now: Instant) -> Vec<(Name, String)> {
        for name in &round.failed {
            if let Some(tried) = self.of.get_mut(name)
                && round.stored.contains(&name.kind)
            {
                tried.against += 1;
            }
        }
        if !round.stored.is_empty() {
            self.of.values_mut().for_each(|tried| tried.others = true);
        }
        let hopeless = self.of.iter().filter(|(_, tried)| tried.is_hopeless(now));
        let mut hopeless: Vec<_> = hopeless.map(|(name, tried)| (name.clone(), tried.reason.clone())).collect();
        hopeless.sort();
        hopeless
    }
}

impl Try {
    fn new(now: Instant) -> Self {
        let (failure, reason) = (Failure::Broken, String::new());
        Self { count: 0, against: 0, first: now, last: now, due: now, failure, reason, others: false }
    }

    fn is_hopeless(&self, now: Instant) -> bool {
        let (tries, is_said) = match self.failure {
            Failure::Refused { lasting: true } => (TRIES_LASTING, true),
            Failure::Refused { lasting: false } => (TRIES, true),
            Failure::Broken => (TRIES, false),
        };
        let for_long = self.count >= tries && now.saturating_duration_since(self.first) >= SPAN;
        self.against >= tries || for_long && (is_said || self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sequence: u64, kind: Kind) -> Name {
        Name { sequence, kind, report_id: format!("{sequence:032x}") }
    }

    const LASTING: Failure = Failure::Refused { lasting: true };
    const PASSING: Failure = Failure::Refused { lasting: false };
    const MINUTE: Duration = Duration::from_secs(60);

    /// How many rounds, a minute apart, it takes to set an object aside that fails in each, if `stored` gets through as well.
    fn rounds(failure: Failure, stored: Option<Kind>) -> Option<u32> {
        let (mut tries, start, bad) = (Tries::new(MINUTE), Instant::now(), name(1, Kind::Sr));
        (1..=200).find(|number| {
            let now = start + *number * MINUTE;
            let mut round = Round::default();
            tries.failed(&mut round, &bad, failure, "why", now);
            round.stored.extend(stored);
            let hopeless = tries.weigh(&round, now);
            assert!(hopeless.iter().all(|(name, reason)| *name == bad && reason == "why"));
            !hopeless.is_empty()
        })
    }

    #[test]
    fn an_object_is_set_aside_on_evidence_against_it_and_not_for_trouble_of_the_pacs() {
        let (same, other) = (Some(Kind::Sr), Some(Kind::SecondaryCapture));
        // Others like it get through: soon.
        assert_eq!(
            [LASTING, PASSING, Failure::Broken].map(|failure| rounds(failure, same)),
            [Some(3), Some(10), Some(10)]
        );
        // Nothing, or nothing like it, gets through: not within an hour.
        assert_eq!([LASTING, PASSING].map(|failure| rounds(failure, None)), [Some(61), Some(61)]);
        assert_eq!([LASTING, PASSING].map(|failure| rounds(failure, other)), [Some(61), Some(61)]);
        assert_eq!(rounds(Failure::Broken, other), Some(61));
        // It hangs up over all there is: never.
        assert_eq!(rounds(Failure::Broken, None), None);
    }

    #[test]
    fn what_failed_is_offered_again_after_pauses_that_grow_and_the_least_recently_tried_first() {
        let (mut tries, start) = (Tries::new(MINUTE), Instant::now());
        let (first, second) = (name(1, Kind::Sr), name(2, Kind::Sr));
        let mut round = Round::default();
        let seconds = Duration::from_secs;
        tries.failed(&mut round, &second, PASSING, "a", start);
        tries.failed(&mut round, &first, PASSING, "b", start + seconds(1));
        assert_eq!((tries.due(start), tries.soonest(start)), (vec![], Some(seconds(1))));
        assert_eq!(tries.due(start + seconds(5)), [second.clone(), first.clone()]);
        tries.failed(&mut round, &second, PASSING, "c", start + seconds(5));
        assert_eq!(tries.due(start + seconds(6)), vec![first.clone()], "the second pause is longer");
        assert_eq!(tries.due(start + seconds(7)), [first.clone(), second.clone()]);
        assert_eq!(tries.reason(), Some("c"));
        for _ in 0..50 {
            tries.failed(&mut round, &second, PASSING, "d", start);
        }
        assert!(tries.due(start + MINUTE).contains(&second), "and not longer than the longest");
        tries.retain(|name| *name == first);
        assert!(tries.know(&first) && !tries.know(&second));
        tries.forget(&first);
        tries.recalled(&second, start);
        assert_eq!((tries.due(start), tries.reason()), (vec![second.clone()], None));
        tries.forget(&second);
        assert!(tries.soonest(start).is_none() && tries.reason().is_none());
    }
}
