//! Small file systems that a test fills, unplugs or makes read-only. Needs root; where mounting is not allowed, it says so.

use crate::support::wait_for;
use std::fs::{self, File};
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

    /// A disk of its own there, made in this file: one that fails becomes read-only and stays so until it is mounted anew.
    pub(super) fn disk(image: &Path, folder: &Path, mebibytes: u64) -> Option<Self> {
        File::create(image).and_then(|file| file.set_len(mebibytes << 20)).expect("writable");
        let made = Command::new("mkfs.ext4").arg("-q").arg(image).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: this needs mkfs.ext4 (package e2fsprogs)");
            return None;
        }
        Self::again(image, folder)
    }

    /// The same disk again, repaired, as soon as nobody has anything open on it any more: until then what the kernel still
    /// writes for the old mount would land in the new one.
    pub(super) fn again(image: &Path, folder: &Path) -> Option<Self> {
        wait_for("everybody to let go of the disk", || !is_attached(image));
        // 1: there was something to repair.
        let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(image).stdout(Stdio::null()).status();
        assert!(checked.is_ok_and(|status| status.code().is_some_and(|code| code < 2)), "e2fsck");
        Self::make(&["-o", "loop,errors=remount-ro", image.to_str().expect("UTF-8")], folder)
    }

    /// The disk fails under whoever writes to it: from now on it can only be read.
    pub(super) fn fail(&self) {
        let done = Command::new("mount").args(["-o", "remount,abort"]).arg(&self.0).status().expect("mount");
        assert!(done.success(), "remount,abort");
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

/// Whether a loop device is made of this file.
fn is_attached(image: &Path) -> bool {
    let Ok(devices) = fs::read_dir("/sys/block") else { return false };
    devices.flatten().any(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        file.trim_end().trim_end_matches(" (deleted)") == image.to_string_lossy()
    })
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whoever has a file open there keeps it, as with a pulled plug.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
