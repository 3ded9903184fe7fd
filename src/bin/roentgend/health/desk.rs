//! The answers that wait for the broker, and the rate at which commands are taken. Not what commands do.

use chrono::{SecondsFormat, Utc};
use roentgen::sink::mqtt::command::{Answer, RESULT_SCHEMA, Stage};
use roentgen::sink::mqtt::{Sent, Side};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most answers that wait; the oldest make room.
const MOST: usize = 64;

/// Commands that may come at once, and in a minute.
const BURST: f64 = 10.0;
const A_MINUTE: f64 = 10.0;

/// The shortest time between two answers that too many commands came.
const REBUKE: Duration = Duration::from_secs(60);

/// What an answer is about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    /// The sender's identifier.
    pub(super) id: &'a str,
    /// The command.
    pub(super) command: &'a str,
    /// The bundle.
    pub(super) file: Option<&'a str>,
}

/// The answers on their way, and what was asked.
pub(super) struct Desk {
    answers: VecDeque<String>,
    sent: Option<Sent>,
    /// How many commands may come now, and when that was reckoned.
    allowance: f64,
    reckoned: Option<Instant>,
    rebuked: Option<Instant>,
    /// Telemetry was asked for.
    asked: bool,
}

impl Default for Desk {
    fn default() -> Self {
        let answers = VecDeque::new();
        Self { answers, sent: None, allowance: BURST, reckoned: None, rebuked: None, asked: false }
    }
}

impl Desk {
    /// Puts an answer on its way.
    pub(super) fn answer(&mut self, device: &str, about: About<'_>, stage: Stage, message: &str) {
        let About { id, command, file } = about;
        let answer = Answer {
            schema: RESULT_SCHEMA.into(),
            device: device.into(),
            id: id.into(),
            command: command.into(),
            file: file.map(str::to_owned),
            stage,
            message: message.into(),
            at: now(),
        };
        // A plain struct of text, which is always JSON.
        let Ok(json) = serde_json::to_string(&answer) else { return };
        if self.answers.len() >= MOST {
            self.answers.pop_front();
            self.sent = None;
        }
        self.answers.push_back(json);
    }

    /// Delivers answers in order, as far as the broker takes them.
    pub(super) fn deliver(&mut self, side: &Side) {
        while let Some(json) = self.answers.front() {
            if !side.answer(json, &mut self.sent) {
                return;
            }
            self.answers.pop_front();
        }
    }

    /// Whether one more command may come now. It counts.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let since = self.reckoned.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.reckoned = Some(now);
        self.allowance = (self.allowance + since.as_secs_f64() / 60.0 * A_MINUTE).min(BURST);
        let admits = self.allowance >= 1.0;
        if admits {
            self.allowance -= 1.0;
        }
        admits
    }

    /// Whether it is time to say that too many come.
    pub(super) fn may_rebuke(&mut self, now: Instant) -> bool {
        let due = self.rebuked.is_none_or(|at| now.saturating_duration_since(at) >= REBUKE);
        if due {
            self.rebuked = Some(now);
        }
        due
    }

    /// Asks for telemetry at the next opportunity.
    pub(super) fn ask_again(&mut self) {
        self.asked = true;
    }

    /// Whether it was asked for, which is answered by this.
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }
}

/// The time, RFC 3339, UTC.
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_commands_may_come_at_once_and_then_one_every_six_seconds() {
        let mut desk = Desk::default();
        let start = Instant::now();
        let admitted = (0..100).filter(|_| desk.admits(start)).count();
        assert_eq!(admitted, 10);
        assert!(!desk.admits(start + Duration::from_secs(5)));
        assert!(desk.admits(start + Duration::from_secs(7)));
        assert!(!desk.admits(start + Duration::from_secs(7)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| desk.admits(later)).count(), 10);
    }

    #[test]
    fn answers_are_bounded_and_the_newest_stay() {
        let mut desk = Desk::default();
        for id in 0..1000 {
            let about = About { id: &id.to_string(), command: "telemetry", file: None };
            desk.answer("box", about, Stage::Done, "");
        }
        assert_eq!(desk.answers.len(), MOST);
        assert!(desk.answers.back().is_some_and(|answer| answer.contains("\"999\"")));
    }
}
