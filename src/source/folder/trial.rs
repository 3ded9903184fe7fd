//! Trials: a suspect is judged by a process of its own, whose death is evidence where the daemon's own was none. One at a
//! time, after all other files. Moves no file.

use super::identity::Identity;
use crate::radiograph::{Refusal, RefusalCode};
use crate::report::Report;
use crate::source::decoder::{is_sound, is_text};
use crate::source::process::{self, Bounds, Program};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The variable in which a trial finds the configuration that is in force, as TOML: the file on disk may be another.
pub const CONFIG: &str = "ROENTGEN_TRIAL_CONFIG";

/// Bytes that a text in a trial's answer may have: honest ones have a few hundred.
const MAX_TEXT: usize = 2000;

/// How long a trial may take beyond what decoding may: a process of its own loads the model first.
const PATIENCE: Duration = Duration::from_secs(180);

/// The pause after a trial that has shown nothing.
const PAUSE: Duration = Duration::from_secs(20);

/// Bytes of its answer that are read: a report has a few thousand.
const MAX_ANSWER: u64 = 4 << 20;

/// Bytes that one file may have which a trial writes: its answer, or a picture for the PACS, of about 4 MB.
const MAX_WRITTEN: u64 = 32 << 20;

/// How often a trial may be ended by a signal that others send before that is taken for the file's doing.
const MAX_KILLS: u32 = 5;

/// How long a trial's death must be outlived to count: what ends this process as well says nothing about a file.
const GRACE: Duration = Duration::from_secs(1);

/// What a trial prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The report, with no sequence yet.
    Report(Box<Report>),
    /// Why the file cannot be judged.
    Error {
        /// For machines.
        code: RefusalCode,
        /// For people.
        message: String,
    },
}

/// What a trial has shown.
pub(super) enum Verdict {
    /// The file's report.
    Judged(Box<Report>),
    /// The file cannot be judged.
    Refused(Refusal),
    /// It has killed its judge.
    Died,
    /// Nothing.
    Open,
}

/// A suspect file.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    /// How often its trial was ended by somebody else.
    pub(super) kills: u32,
}

/// The trials.
pub(super) struct Trials {
    program: Program,
    patience: Duration,
    waiting: VecDeque<Suspect>,
    running: Option<Running>,
    not_before: Option<Instant>,
    /// What went wrong last, so that it is said once.
    trouble: Option<String>,
}

struct Running {
    suspect: Suspect,
    /// Ends with this.
    child: process::Running,
    answer: File,
    since: Instant,
    /// How it ended, and when that was seen.
    ended: Option<(ExitStatus, Instant)>,
}

impl Trials {
    pub(super) fn new(program: Program, decode: Duration) -> Self {
        Self {
            program,
            patience: PATIENCE + decode,
            waiting: VecDeque::new(),
            running: None,
            not_before: None,
            trouble: None,
        }
    }

    /// The trials from now on are held by this program.
    pub(super) fn try_with(&mut self, program: Program) {
        self.program = program;
    }

    /// What the last trial reported is not what this box would say now.
    pub(super) fn disbelieve(&mut self) {
        self.pause("the trial of a suspect image reports by another model or configuration; it is held again");
    }

    /// A suspect waits for its trial from now on.
    pub(super) fn add(&mut self, suspect: Suspect) {
        self.waiting.push_back(suspect);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether a suspect waits that can be tried now.
    pub(super) fn is_wanted(&self) -> bool {
        let may_start = self.running.is_none() && self.not_before.is_none_or(|time| time <= Instant::now());
        may_start && !self.waiting.is_empty()
    }

    /// The next suspect, if one can be tried now.
    pub(super) fn next(&mut self) -> Option<Suspect> {
        if self.is_wanted() { self.waiting.pop_front() } else { None }
    }

    /// A suspect that cannot be read at present waits on.
    pub(super) fn put_off(&mut self, suspect: Suspect, error: &io::Error) {
        self.pause(&format!("the trial of a suspect image cannot be started now: {error}"));
        self.add(suspect);
    }

    /// Starts the trial of a file, which it reads from its standard input: a name among the arguments is for all to see.
    pub(super) fn start(&mut self, suspect: Suspect, file: File) {
        match self.spawn(file) {
            Ok((child, answer)) => {
                self.running = Some(Running { suspect, child, answer, since: Instant::now(), ended: None });
            }
            Err(error) => self.put_off(suspect, &error),
        }
    }

    fn spawn(&self, file: File) -> io::Result<(process::Running, File)> {
        let answer = File::from(memfd_create("roentgen", MemfdFlags::CLOEXEC)?);
        let output = Stdio::from(answer.try_clone()?);
        let bounds = Bounds { file: MAX_WRITTEN, ..Bounds::NONE };
        Ok((self.program.start(Stdio::from(file), output, bounds)?, answer))
    }

    /// The trial that has come to an end, if one has. Never waits.
    pub(super) fn poll(&mut self) -> Option<(Suspect, Verdict)> {
        let mut running = self.running.take()?;
        if running.ended.is_none()
            && let Ok(Some(status)) = running.child.ended()
        {
            running.ended = Some((status, Instant::now()));
        }
        let overdue = running.since.elapsed() > self.patience;
        let verdict = match running.ended {
            None if overdue => {
                log::warn!("the trial of a suspect image has not ended in {} s", self.patience.as_secs());
                Verdict::Died
            }
            None => {
                self.running = Some(running);
                return None;
            }
            Some((status, _)) if status.success() => match read(&mut running.answer) {
                Some(Answer::Report(report)) => Verdict::Judged(report),
                Some(Answer::Error { code, message }) => Verdict::Refused(Refusal::new(code, message)),
                None => self.nothing("the trial of a suspect image answers nonsense"),
            },
            Some((status, _)) if status.code().is_some() => self.nothing(&format!(
                "the trial of a suspect image could not be held ({}); `roentgend classify --config FILE` says why",
                process::described(Some(status))
            )),
            Some((_, seen)) if seen.elapsed() < GRACE => {
                self.running = Some(running);
                return None;
            }
            Some((status, _)) => {
                log::warn!("the trial of a suspect image ended with {}", process::described(Some(status)));
                if process::is_by_another(Some(status)) && running.suspect.kills < MAX_KILLS {
                    running.suspect.kills += 1;
                    self.nothing("it is held again")
                } else {
                    Verdict::Died
                }
            }
        };
        Some((running.suspect, verdict))
    }

    fn nothing(&mut self, trouble: &str) -> Verdict {
        self.pause(trouble);
        Verdict::Open
    }

    fn pause(&mut self, trouble: &str) {
        self.not_before = Some(Instant::now() + PAUSE);
        if self.trouble.as_deref() != Some(trouble) {
            log::warn!("{trouble}");
            self.trouble = Some(trouble.to_owned());
        }
    }
}

/// What the trial has printed; `None` where no honest one prints such a thing: it has read the most suspect file of all.
fn read(answer: &mut File) -> Option<Answer> {
    let mut json = Vec::new();
    answer.rewind().ok()?;
    answer.take(MAX_ANSWER).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok().filter(|answer| match answer {
        Answer::Report(report) => {
            is_sound(&report.origin) && serde_json::to_value(report).is_ok_and(|report| texts_are_sound(&report))
        }
        Answer::Error { message, .. } => is_text(message, MAX_TEXT),
    })
}

fn texts_are_sound(value: &Value) -> bool {
    match value {
        Value::String(text) => is_text(text, MAX_TEXT),
        Value::Array(values) => values.iter().all(texts_are_sound),
        Value::Object(fields) => fields.values().all(texts_are_sound),
        _ => true,
    }
}

/// The refusal of a file that has killed as many trials as it takes.
pub(super) fn refusal() -> Refusal {
    Refusal::new(
        RefusalCode::CrashedTheProgram,
        "The program broke down whenever it judged this file. Nothing is known about the image: have it read by a \
         radiologist, and send the file to whoever maintains this box if that is allowed.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Clock, Decision, Finding, Label, ModelIdentity, NOTICE, Reason, ReasonCode, SCHEMA, Timing};
    use std::io::Write;

    fn report() -> Report {
        let reason = Reason { code: ReasonCode::TooSmall, value: 1.0, limit: 2.0, message: "It is too small.".into() };
        Report {
            schema: SCHEMA.into(),
            report_id: "a".repeat(32),
            device: "box-1".into(),
            sequence: 0,
            received_at: "2026-01-01T00:00:00.000Z".into(),
            clock: Clock::Synchronised,
            origin: crate::radiograph::phantom::radiograph(1, 16).origin,
            model: ModelIdentity { name: "m".into(), version: "1.0.0".into(), sha256: "b".repeat(64) },
            backend: "native".into(),
            findings: Label::ALL.map(|label| Finding { label, probability: 0.25 }),
            decision: Decision::Abstained { reasons: vec![reason] },
            evidence_map: None,
            timing_ms: Timing::default(),
            notice: NOTICE.into(),
        }
    }

    fn is_believed(answer: &Answer) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&serde_json::to_vec(answer).unwrap()).unwrap();
        read(&mut file).is_some()
    }

    #[test]
    fn what_no_honest_trial_says_is_nothing() {
        let error = |message: &str| Answer::Error { code: RefusalCode::Damaged, message: message.into() };
        assert!(is_believed(&error("It ends too early.")));
        assert!(!is_believed(&error("\u{1b}[2J")));
        assert!(is_believed(&Answer::Report(Box::new(report()))));
        let spoiled: [fn(&mut Report); 4] = [
            |report| report.origin.content_sha256 = "Doe^Jane".into(),
            |report| report.origin.study = Some("1.2.3".into()),
            |report| report.backend = "\n".into(),
            |report| {
                let reason =
                    Reason { code: ReasonCode::TooSmall, value: 1.0, limit: 2.0, message: "a".repeat(MAX_TEXT + 1) };
                report.decision = Decision::Abstained { reasons: vec![reason] };
            },
        ];
        for (number, spoil) in spoiled.iter().enumerate() {
            let mut report = report();
            spoil(&mut report);
            assert!(!is_believed(&Answer::Report(Box::new(report))), "{number}");
        }
    }
}
