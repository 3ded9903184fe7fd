//! Small file systems that a test fills, unplugs or makes read-only. Needs root; where mounting is not allowed, it says so.

use crate::support::wait_for;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mount that goes with its test.
pub(super) struct Mount(PathBuf);

impl Mount {
    /// A file system in memory of so many MiB; `None`, said plainly, where mounting is not allowed.
    pub(super) fn memory(folder: &Path, mebibytes: usize) -> Option<Self> {
        let options = format!("size={mebibytes}m,mode=0755");
        Self::make(&["-t", "tmpfs", "-o", &options, "tmpfs"], folder)
    }

    /// Another folder under this name.
    pub(super) fn of_folder(behind: &Path, folder: &Path) -> Option<Self> {
        Self::make(&["--bind", behind.to_str().expect("UTF-8")], folder)
    }

    fn make(arguments: &[&str], folder: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(arguments).arg(folder).output().expect("mount");
        if mounted.status.success() {
            return Some(Self(folder.to_owned()));
        }
        let said = String::from_utf8_lossy(&mounted.stderr);
        eprintln!("SKIPPED: this needs root and the right to mount: {}", said.trim());
        None
    }

    /// Makes this mount read-only, or writable again.
    pub(super) fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,bind,ro" } else { "remount,bind,rw" };
        // Refused while a file there is open for writing, which passes.
        wait_for(options, || {
            let done = Command::new("mount").args(["-o", options]).arg(&self.0).stderr(Stdio::null()).status();
            done.expect("mount").success()
        });
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whoever has a file open there keeps it, as with a pulled plug.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
