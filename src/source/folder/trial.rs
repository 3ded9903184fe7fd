//! Trials: a suspect is judged by a process of its own, whose death is evidence where the daemon's own was none. One at a
//! time, after all other files. Moves no file.

use super::identity::Identity;
use crate::radiograph::{Refusal, RefusalCode};
use crate::report::Report;
use crate::source::process::{self, Program};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a trial may take beyond what decoding may: a process of its own loads the model first.
const PATIENCE: Duration = Duration::from_secs(180);

/// The pause after a trial that has shown nothing.
const PAUSE: Duration = Duration::from_secs(20);

/// Bytes that a trial may write: a report has a few thousand.
const MAX_ANSWER: u64 = 4 << 20;

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
    child: Child,
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

    fn spawn(&self, file: File) -> io::Result<(Child, File)> {
        let answer = File::from(memfd_create("roentgen", MemfdFlags::CLOEXEC)?);
        let mut command = self.program.command();
        command.stdin(Stdio::from(file)).stdout(Stdio::from(answer.try_clone()?));
        // Where systemd keeps the broker's password: the configuration may name it, though a trial needs none.
        command.envs(std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| ("CREDENTIALS_DIRECTORY", folder)));
        let mut child = command.spawn()?;
        if let Err(error) = process::limit(&child, libc::RLIM_INFINITY, MAX_ANSWER) {
            process::end(&mut child);
            return Err(error);
        }
        Ok((child, answer))
    }

    /// The trial that has come to an end, if one has. Never waits.
    pub(super) fn poll(&mut self) -> Option<(Suspect, Verdict)> {
        let mut running = self.running.take()?;
        if running.ended.is_none()
            && let Ok(Some(status)) = running.child.try_wait()
        {
            running.ended = Some((status, Instant::now()));
        }
        let overdue = running.since.elapsed() > self.patience;
        let verdict = match running.ended {
            None if overdue => {
                process::end(&mut running.child);
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

impl Drop for Trials {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            process::end(&mut running.child);
        }
    }
}

/// What the trial has printed.
fn read(answer: &mut File) -> Option<Answer> {
    let mut json = Vec::new();
    answer.rewind().ok()?;
    answer.take(MAX_ANSWER).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The refusal of a file that has killed as many trials as it takes.
pub(super) fn refusal() -> Refusal {
    Refusal::new(
        RefusalCode::CrashedTheProgram,
        "The program broke down whenever it judged this file. Nothing is known about the image: have it read by a \
         radiologist, and send the file to whoever maintains this box if that is allowed.",
    )
}
