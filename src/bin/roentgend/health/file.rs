//! The file in which the daemon says how it is, for `roentgend status`: `status.json`, replaced whole. It lies in the
//! service's runtime directory, which is in memory, so that no card wears out; without one in `state_dir`, and then it is
//! written less often. `state_dir/status.json` leads to it in either case.

use roentgen::status::Telemetry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Its name in `state_dir`.
pub(crate) const FILE: &str = "status.json";

/// A file older than this is no word of a living daemon.
pub(crate) const STALE: Duration = Duration::from_secs(200);

/// How often it is written in memory, and on a disk.
const IN_MEMORY: Duration = Duration::from_secs(10);
const ON_DISK: Duration = Duration::from_secs(60);

/// The shortest time between two writings, however much happens.
const BREATH: Duration = Duration::from_secs(2);

/// The file.
pub(super) struct StatusFile {
    path: PathBuf,
    every: Duration,
    /// When it was last written, and what was urgent then.
    written: Option<(Instant, u64)>,
    /// That it cannot be written was said.
    complained: bool,
}

impl StatusFile {
    /// Where systemd has made a runtime directory for the service, there; else in `state_dir`.
    pub(super) fn new(state_dir: &Path) -> Self {
        let runtime = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
        // Of several the first.
        let runtime = std::env::split_paths(&runtime).next().filter(|path| path.is_absolute());
        let at = state_dir.join(FILE);
        let (path, every) = match runtime.map(|folder| folder.join(FILE)) {
            Some(path) if link(&at, &path).is_ok() => (path, IN_MEMORY),
            _ => (at, ON_DISK),
        };
        Self { path, every, written: None, complained: false }
    }

    /// Whether it is time to write it.
    pub(super) fn is_due(&self, urgent: u64, now: Instant) -> bool {
        let Some((at, then)) = self.written else { return true };
        let since = now.saturating_duration_since(at);
        since >= self.every || (urgent != then && since >= BREATH)
    }

    /// Writes it. What goes wrong is said once: there may be no room, and the box goes on.
    pub(super) fn write(&mut self, telemetry: &Telemetry, urgent: u64, now: Instant) {
        self.written = Some((now, urgent));
        let written =
            serde_json::to_vec(telemetry).map_err(io::Error::from).and_then(|json| replace(&self.path, &json));
        match written {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                log::warn!("{}: {error}; `roentgend status` cannot say how the box is", self.path.display());
            }
            Err(_) => {}
        }
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        // A daemon that has stopped says nothing about itself any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes `at` lead to `path`.
fn link(at: &Path, path: &Path) -> io::Result<()> {
    if fs::read_link(at).is_ok_and(|target| target == path) {
        return Ok(());
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(path, at),
    }
}

/// Replaces a file whole. Not synced: after a power cut it is of no use.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.tmp");
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
