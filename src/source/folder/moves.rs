//! Moving a settled file out of `incoming/`: never over another one, durable on return. Decides nothing about the image.

use super::failed;
use crate::radiograph::{Refusal, RefusalCode};
use crate::source::SourceError;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is appended to a rejected file's name for its reason.
const REASON_SUFFIX: &str = ".reason.json";

/// Bytes that a file name may have on Linux.
const MAX_NAME: usize = 255;

/// What stands in `NAME.reason.json`.
#[derive(Debug, Serialize)]
pub(super) struct Reason {
    /// For machines.
    code: RefusalCode,
    /// For people.
    message: String,
    /// The name under which it was dropped.
    file: String,
    /// When it reached the box, RFC 3339, UTC.
    received_at: String,
}

impl Reason {
    pub(super) fn new(path: &Path, refusal: &Refusal, received_at: SystemTime) -> Self {
        Self {
            code: refusal.code,
            message: refusal.message.clone(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            received_at: DateTime::<Utc>::from(received_at).to_rfc3339_opts(SecondsFormat::Millis, true),
        }
    }
}

/// Moves `path` from `from` into `to` under a free name, the reason beside it where there is one. The reason is written
/// first: a crash in between leaves the file in `incoming/`, to be judged again, and no refused file without its reason.
pub(super) fn settle(path: &Path, from: &Path, to: &Path, reason: Option<&Reason>) -> Result<(), SourceError> {
    let name = path.file_name().unwrap_or_default();
    let target = free_name(to, name, reason.is_some());
    if let Some(reason) = reason {
        let reason_path = with_suffix(&target, REASON_SUFFIX);
        write_reason(&reason_path, reason).map_err(failed("cannot write the reason", &reason_path))?;
    }
    if let Err(error) = fs::rename(path, &target) {
        if reason.is_some() {
            // Best effort: a reason without its file misleads nobody for long.
            let _ = fs::remove_file(with_suffix(&target, REASON_SUFFIX));
        }
        return Err(failed("cannot move it out of the drop folder", path)(error));
    }
    // The new name first: after a power cut the file may be found in both folders, never in none.
    for folder in [to, from] {
        sync_folder(folder).map_err(failed("cannot make the move durable in", folder))?;
    }
    Ok(())
}

/// Checks that files can be made in a folder.
pub(super) fn check_writable(folder: &Path) -> Result<(), SourceError> {
    tempfile::Builder::new()
        .prefix(".roentgen-")
        .tempfile_in(folder)
        .map(drop)
        .map_err(failed("cannot write into the folder", folder))
}

fn write_reason(path: &Path, reason: &Reason) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(serde_json::to_string_pretty(reason)?.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder; they are as durable as they are.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// `name` in `folder`, or `stem.1.ext`, `stem.2.ext`, … where that is taken; short enough for every suffix.
fn free_name(folder: &Path, name: &OsStr, with_reason: bool) -> PathBuf {
    let taken = |path: &Path| {
        path.symlink_metadata().is_ok() || with_reason && with_suffix(path, REASON_SUFFIX).symlink_metadata().is_ok()
    };
    let mut number = 0u64;
    loop {
        let candidate = folder.join(numbered(name, number));
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// `stem.NUMBER.ext` (the name itself for 0), the stem cut so that number and reason suffix fit into a file name.
fn numbered(name: &OsStr, number: u64) -> OsString {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0 && bytes.len() - at <= 16);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let middle = if number == 0 { String::new() } else { format!(".{number}") };
    let room = MAX_NAME - REASON_SUFFIX.len() - extension.len() - middle.len();
    let mut cut = stem.len().min(room);
    // Not inside a character of UTF-8.
    while cut < stem.len() && cut > 0 && stem[cut] & 0xC0 == 0x80 {
        cut -= 1;
    }
    let mut whole = stem[..cut].to_vec();
    whole.extend_from_slice(middle.as_bytes());
    whole.extend_from_slice(extension);
    OsString::from_vec(whole)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_taken_name_is_numbered_before_its_extension() {
        assert_eq!(numbered(OsStr::new("thorax.png"), 0), "thorax.png");
        assert_eq!(numbered(OsStr::new("thorax.png"), 2), "thorax.2.png");
        assert_eq!(numbered(OsStr::new("IM0001"), 1), "IM0001.1");
    }

    #[test]
    fn nothing_is_overwritten_and_every_refused_file_has_its_own_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("incoming"), folder.path().join("rejected"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        let refusal = Refusal { code: RefusalCode::Damaged, message: "It ends too early.".into() };
        // The second one has the very name of the first one's reason.
        for (name, content) in [("a.png", "1"), ("a.png.reason.json", "2"), ("a.png", "3")] {
            let path = from.join(name);
            fs::write(&path, content).unwrap();
            settle(&path, &from, &to, Some(&Reason::new(&path, &refusal, SystemTime::now()))).unwrap();
        }
        let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
        assert_eq!(read("a.png"), "1");
        assert_eq!(read("a.png.reason.1.json"), "2");
        assert_eq!(read("a.1.png"), "3");
        for reason in ["a.png.reason.json", "a.png.reason.1.json.reason.json", "a.1.png.reason.json"] {
            let json: serde_json::Value = serde_json::from_str(&read(reason)).unwrap();
            assert_eq!(json["code"], "damaged", "{reason}");
        }
        assert_eq!(fs::read_dir(&to).unwrap().count(), 6);
        assert_eq!(fs::read_dir(&from).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn a_numbered_name_always_leaves_room_for_its_reason(name in "[^/\\x00]{1,300}", number in 0u64..) {
            let name = numbered(OsStr::new(&name), number);
            prop_assert!(!name.is_empty() && name.len() + REASON_SUFFIX.len() <= MAX_NAME);
            prop_assert!(name.to_str().is_some());
        }
    }
}
