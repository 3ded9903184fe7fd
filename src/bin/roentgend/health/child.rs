//! The process that installs a bundle, or goes back to the one before: `roentgend bundle …` of this same program. A process
//! of its own so that memory is given back, a crash hits nothing else, and radiographs come first.

use roentgen::config::Config;
use roentgen::network::plan::Memory;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// This program, even where a newer one has taken its place on disk meanwhile.
const PROGRAM: &str = "/proc/self/exe";

/// How long it may take: a large model from a slow card, tested on a slow board.
const PATIENCE: Duration = Duration::from_secs(1800);

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
    /// It could not be done now. `died`: the process ended by a signal.
    Failed { reason: String, died: bool },
}

/// The process. Dropping it kills it: an installation that is cut off leaves the old bundle, whole.
pub(super) struct Child {
    process: process::Child,
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
        arguments.push(path.as_os_str());
        Self::start(config, state_dir, &arguments)
    }

    /// Goes back to the good bundle before: one that this box has run, by its own rules.
    pub(super) fn rollback(config: &Config, state_dir: &Path) -> io::Result<Self> {
        Self::start(config.clone(), state_dir, &[OsStr::new("rollback"), OsStr::new("--steps")])
    }

    fn start(mut config: Config, state_dir: &Path, arguments: &[&OsStr]) -> io::Result<Self> {
        // The integers are the same in every plan, and the daemon tests the bundle in its own before it takes it.
        config.engine.memory = Memory::Small;
        config.engine.threads = 1;
        let text = toml::to_string(&config).map_err(io::Error::other)?;
        let mut file = tempfile::Builder::new().prefix(BEGINS).suffix(ENDS).tempfile_in(state_dir)?;
        file.write_all(text.as_bytes())?;
        let process = Command::new(PROGRAM)
            .arg("bundle")
            .args(arguments)
            .arg("--config")
            .arg(file.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (say, said) = channel();
        // From here on whatever fails ends the process.
        let mut child = Self { process, said, last: None, started: Instant::now(), _config: file };
        if let Some(output) = child.process.stdout.take() {
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
        let status = match self.process.wait() {
            Ok(status) => status,
            Err(error) => return failed(format!("cannot see how it ended: {error}"), false),
        };
        let last = self.last.take().unwrap_or_default();
        let text = |key: &str| last[key].as_str().map(str::to_owned);
        match (status.success(), text("sha256"), text("failed")) {
            (true, Some(sha256), _) => {
                let title = format!("{} {}", text("name").unwrap_or_default(), text("version").unwrap_or_default());
                Event::Done { sha256, title }
            }
            (false, _, Some(reason)) if last["lasting"] == true => Event::Refused(reason),
            (false, _, Some(reason)) => failed(reason, false),
            // Killed, by the kernel for want of memory above all, or it crashed.
            _ => failed(format!("the installation ended by itself ({status})"), true),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
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
