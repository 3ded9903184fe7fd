//! The process that installs a bundle, or goes back to the one before: `roentgend bundle …` of this same program. A process
//! of its own so that memory is given back, a crash hits nothing else, and radiographs come first.

use crate::run::in_force;
use roentgen::config::Config;
use roentgen::network::plan::Memory;
use roentgen::source::process::{self, Bounds, Program, Running};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, absolute};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// How long it may take: a large model from a slow card, tested on a slow board.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How long it may take to end once it has closed its output.
const ENDING: Duration = Duration::from_secs(10);

/// Most bytes that are read of what it says.
const MAX_SAID: u64 = 1 << 20;

/// How the file with its configuration is called in `state_dir`, around what makes it unique.
const BEGINS: &str = ".update-";
const ENDS: &str = ".toml";

/// Removes the configurations that a daemon left behind which was killed during an installation. To be called before any
/// begins.
pub(super) fn sweep(state_dir: &Path) {
    for entry in std::fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(BEGINS) && name.ends_with(ENDS));
        if is_ours && let Err(error) = std::fs::remove_file(entry.path()) {
            log::warn!("{}: a leftover cannot be removed: {error}", entry.path().display());
        }
    }
}

/// Something that it said, or that happened to it.
pub(super) enum Event {
    /// A step is through, in words.
    Step(String),
    /// It is done: which bundle is the active one now.
    Done { sha256: String, title: String },
    /// The bundle is no good, and would be none the next time.
    Refused(String),
    /// It could not be done now. `died`: the process ended of something that nobody else has done to it.
    Failed { reason: String, died: bool },
}

/// The process. Dropping it ends it: an installation that is cut off leaves the old bundle, whole.
pub(super) struct Child {
    process: Running,
    said: Receiver<Value>,
    /// What was its last word, if it was one.
    last: Option<Value>,
    started: Instant,
    /// The configuration in force, which need not be the one on disk.
    _config: NamedTempFile,
}

impl Child {
    /// Installs what lies in `path`, if a trusted key signed it.
    pub(super) fn install(config: &Config, state_dir: &Path, path: &Path, sha256: Option<&str>) -> io::Result<Self> {
        let mut config = config.clone();
        // What comes from outside needs a signature, whatever may be installed by hand.
        config.bundles.allow_unsigned = false;
        let mut arguments = vec![OsStr::new("install"), OsStr::new("--steps")];
        if let Some(sha256) = sha256 {
            arguments.extend([OsStr::new("--sha256"), OsStr::new(sha256)]);
        }
        // It runs in another folder.
        let path = absolute(path)?;
        arguments.push(path.as_os_str());
        Self::start(config, state_dir, &arguments)
    }

    /// Goes back to the good bundle before: one that this box has run, by its own rules.
    pub(super) fn rollback(config: &Config, state_dir: &Path) -> io::Result<Self> {
        Self::start(config.clone(), state_dir, &[OsStr::new("rollback"), OsStr::new("--steps")])
    }

    /// Makes the installed bundle of this version the active one, by its own rules.
    pub(super) fn activate(config: &Config, state_dir: &Path, version: &str) -> io::Result<Self> {
        Self::start(config.clone(), state_dir, &[OsStr::new("activate"), OsStr::new("--steps"), OsStr::new(version)])
    }

    fn start(mut config: Config, state_dir: &Path, arguments: &[&OsStr]) -> io::Result<Self> {
        // The integers are the same in every plan, and the daemon tests the bundle in its own before it takes it.
        config.engine.memory = Memory::Small;
        config.engine.threads = 1;
        let text = in_force(&config)?;
        let mut file = tempfile::Builder::new().prefix(BEGINS).suffix(ENDS).tempfile_in(absolute(state_dir)?)?;
        file.write_all(text.as_bytes())?;
        let arguments = [OsStr::new("bundle")].into_iter().chain(arguments.iter().copied());
        let program = Program::this(arguments.chain([OsStr::new("--config"), file.path().as_os_str()]));
        Self::of(&program, file)
    }

    /// Starts a program, which reads this configuration.
    fn of(program: &Program, config: NamedTempFile) -> io::Result<Self> {
        let process = program.start(Stdio::null(), Stdio::piped(), Bounds::NONE)?;
        let (say, said) = channel();
        // From here on whatever fails ends the process.
        let mut child = Self { process, said, last: None, started: Instant::now(), _config: config };
        if let Some(output) = child.process.output() {
            std::thread::Builder::new().name("update".into()).spawn(move || listen(output, &say))?;
        }
        Ok(child)
    }

    /// What has happened since it was last asked.
    pub(super) fn event(&mut self, now: Instant) -> Option<Event> {
        match self.said.try_recv() {
            Ok(said) => match said["step"].as_str() {
                Some(step) => return Some(Event::Step(step.to_owned())),
                None => self.last = Some(said),
            },
            Err(TryRecvError::Empty) => {
                if now.saturating_duration_since(self.started) > PATIENCE {
                    let reason = format!("it took longer than {} minutes", PATIENCE.as_secs() / 60);
                    return Some(Event::Failed { reason, died: true });
                }
            }
            // It has closed its output, and so ends or has ended.
            Err(TryRecvError::Disconnected) => return Some(self.ended()),
        }
        None
    }

    fn ended(&mut self) -> Event {
        let failed = |reason: String, died| Event::Failed { reason, died };
        // It has closed its output, and so ends at once, or never by itself.
        let status = self.process.wait(Instant::now() + ENDING);
        let last = self.last.take().unwrap_or_default();
        let text = |key: &str| last[key].as_str().map(str::to_owned);
        match (status.is_some_and(|status| status.success()), text("sha256"), text("failed")) {
            (true, Some(sha256), _) => {
                let title = format!("{} {}", text("name").unwrap_or_default(), text("version").unwrap_or_default());
                Event::Done { sha256, title }
            }
            (false, _, Some(reason)) if last["lasting"] == true => Event::Refused(reason),
            (false, _, Some(reason)) => failed(reason, false),
            // Killed, by the kernel for want of memory above all, which says nothing of the bundle; or it crashed.
            _ => {
                let reason = format!("the installation ended with {}", process::described(status));
                failed(reason, !process::is_by_another(status))
            }
        }
    }
}

/// Reads what it says, a line of JSON each, to the end.
fn listen(output: ChildStdout, say: &Sender<Value>) {
    for line in BufReader::new(output.take(MAX_SAID)).lines() {
        let Ok(line) = line else { return };
        // What is no JSON is not for us; hanging up is noticed at the next line.
        if let Ok(said) = serde_json::from_str(&line)
            && say.send(said).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_nobody_else_caused_is_held_against_the_bundle() {
        for (script, counts) in [("kill -KILL $$", false), ("kill -ABRT $$", true), ("exit 3", true)] {
            let program = Program::new(Path::new("/bin/sh"), ["-c", script]);
            let mut child = Child::of(&program, NamedTempFile::new().unwrap()).unwrap();
            let event = loop {
                if let Some(event) = child.event(Instant::now()) {
                    break event;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            let Event::Failed { reason, died } = event else { panic!("{script}: it has not failed") };
            assert_eq!(died, counts, "{script}: {reason}");
        }
    }

    #[test]
    fn what_a_killed_daemon_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let names = [".update-Ab3xYz.toml", ".update-note", "update-a.toml", "roentgend.toml"];
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        sweep(folder.path());
        assert_eq!(names.map(|name| folder.path().join(name).exists()), [false, true, true, true]);
        sweep(&folder.path().join("not there"));
    }
}
