//! Moving a settled file out of `incoming/`, to another file system if need be: never over another one, durable on
//! return. Decides nothing about the image.

use super::failed;
use super::identity::Identity;
use crate::plain_file;
use crate::radiograph::{Refusal, RefusalCode};
use crate::source::SourceError;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::NamedTempFile;

/// What is appended to a rejected file's name for its reason.
pub(super) const REASON_SUFFIX: &str = ".reason.json";

/// Most bytes that a reason has: honest ones have a few hundred.
const MAX_REASON: u64 = 16 << 10;

/// How names of files begin that are not there for anybody yet.
const UNFINISHED_PREFIX: &str = ".roentgen-";

/// Bytes that a file name may have on Linux.
const MAX_NAME: usize = 255;

/// What stands in `NAME.reason.json`.
#[derive(Debug, Serialize)]
pub(super) struct Reason {
    /// For machines.
    code: RefusalCode,
    /// For people.
    message: String,
    /// What the log calls the file. Its name stands in the reason's own name and nowhere else.
    log_tag: String,
    /// When it reached the box, RFC 3339, UTC.
    received_at: String,
}

impl Reason {
    pub(super) fn new(tag: &str, refusal: &Refusal, received_at: SystemTime) -> Self {
        Self {
            code: refusal.code,
            message: refusal.message.clone(),
            log_tag: tag.to_owned(),
            received_at: DateTime::<Utc>::from(received_at).to_rfc3339_opts(SecondsFormat::Millis, true),
        }
    }
}

/// Moves `path` from `from` into `to` under a free name, the reason beside it where there is one. The reason is written
/// first: a crash in between leaves the file in `incoming/`, to be judged again, and no refused file without its reason.
/// Errors call the file by its `tag`.
pub(super) fn settle(
    path: &Path,
    tag: &str,
    from: &Path,
    to: &Path,
    reason: Option<&Reason>,
) -> Result<(), SourceError> {
    let name = path.file_name().unwrap_or_default();
    let target = free_name(to, name, reason.is_some());
    if let Some(reason) = reason {
        let reason_path = with_suffix(&target, REASON_SUFFIX);
        write_reason(&reason_path, reason).map_err(failed("cannot write the reason beside", tag))?;
    }
    let moved = match fs::rename(path, &target) {
        // `incoming/` is a mount of its own, or one of the others is: this cannot be renamed away.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_and_remove(path, &target, to),
        other => other,
    };
    if let Err(error) = moved {
        if reason.is_some() {
            // Best effort: a reason without its file misleads nobody for long.
            let _ = fs::remove_file(with_suffix(&target, REASON_SUFFIX));
        }
        return Err(failed("cannot move it out of incoming/", tag)(error));
    }
    // The new name first: after a power cut the file may be found in both folders, never in none.
    for folder in [to, from] {
        if let Err(error) = sync_folder(folder) {
            // It is moved. Should the power fail now, it is judged once more.
            log::warn!("{}: the move of {tag} may not outlive a power cut: {error}", folder.display());
        }
    }
    Ok(())
}

/// Removes from a folder what was left half-written in it.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let is_ours = entry.file_name().as_bytes().starts_with(UNFINISHED_PREFIX.as_bytes());
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            match fs::remove_file(entry.path()) {
                Ok(()) => log::info!("{}: removed a file that was left half-written there", folder.display()),
                Err(error) => log::warn!("{}: a half-written file cannot be removed: {error}", folder.display()),
            }
        }
    }
}

/// Removes the reasons in `rejected` of files that are still in `incoming`: the last run ended between the two steps of
/// [`settle`], and the file is judged again. `tag` says what a reason calls a file.
pub(super) fn sweep_reasons(rejected: &Path, incoming: &Path, tag: impl Fn(&Path) -> String) {
    let listed = |folder| fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect::<Vec<_>>());
    let (Ok(reasons), Ok(files)) = (listed(rejected), listed(incoming)) else { return };
    let there: HashSet<String> = files.iter().map(|entry| tag(&entry.path())).collect();
    for reason in reasons {
        let path = reason.path();
        let Some(file) = path.as_os_str().as_bytes().strip_suffix(REASON_SUFFIX.as_bytes()) else { continue };
        if Path::new(OsStr::from_bytes(file)).symlink_metadata().is_ok() {
            continue;
        }
        let is_orphan = tag_of_reason(&path).is_some_and(|tag| there.contains(&tag));
        if is_orphan && let Err(error) = fs::remove_file(&path) {
            log::warn!("{}: the reason of a file that is not there cannot be removed: {error}", rejected.display());
        }
    }
}

/// What a reason calls its file; `None` where this is no reason of ours. Whoever may write into `rejected/`, or drop a
/// file that is refused, chooses what lies there under such a name: nothing is waited for, and little is read.
fn tag_of_reason(path: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Tagged {
        log_tag: String,
    }
    // Asked of the name as well: a link is none of ours, wherever it leads.
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let (file, metadata) = plain_file::open(path).ok()?;
    if metadata.len() > MAX_REASON {
        return None;
    }
    let mut json = Vec::new();
    file.take(MAX_REASON).read_to_end(&mut json).ok()?;
    serde_json::from_slice::<Tagged>(&json).ok().map(|tagged| tagged.log_tag)
}

/// Checks that files can be made in a folder.
pub(super) fn check_writable(folder: &Path) -> Result<(), SourceError> {
    unfinished(folder, 0o600).map(drop).map_err(failed("cannot write into the folder", folder.display()))
}

/// Makes a file that is not there for anybody yet. An error is the system's own: in the library's words nobody could tell a
/// full disk from a bad file, and a path would stand in them.
fn unfinished(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut said = None;
    let make = |path: &Path| {
        let made = File::options().read(true).write(true).create_new(true).mode(mode).open(path);
        made.inspect_err(|error| said = error.raw_os_error())
    };
    let made = tempfile::Builder::new().prefix(UNFINISHED_PREFIX).make_in(folder, make);
    made.map_err(|error| said.map_or(error, io::Error::from_raw_os_error))
}

/// Writes the reason: whole or not at all, whatever happens meanwhile.
fn write_reason(path: &Path, reason: &Reason) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // As if it were made under its own name: whoever may read the folder's files may read it.
    let mut file = unfinished(folder, 0o666)?;
    // To the file itself, for the system's own error here too.
    file.as_file_mut().write_all(serde_json::to_string_pretty(reason)?.as_bytes())?;
    file.as_file_mut().write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// What a rename does, between two file systems: the copy gets its name when it is whole and on the disk, and only then
/// does the source go. `ResourceBusy` when the source became another file meanwhile; then nothing was moved.
fn copy_and_remove(path: &Path, target: &Path, folder: &Path) -> io::Result<()> {
    let (mut source, metadata) = plain_file::open(path)?;
    let mut copy = unfinished(folder, 0o600)?;
    io::copy(&mut source, copy.as_file_mut())?;
    // Best effort: some network file systems know neither. Without it only the daemon's user reads the copy.
    let _ = copy.as_file().set_permissions(metadata.permissions());
    let _ = metadata.modified().and_then(|modified| copy.as_file().set_modified(modified));
    copy.as_file().sync_all()?;
    copy.persist_noclobber(target)?;
    let removed = sync_folder(folder).and_then(|()| {
        if Identity::of(&fs::symlink_metadata(path)?) != Identity::of(&metadata) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changed while it was copied"));
        }
        fs::remove_file(path)
    });
    if removed.is_err() {
        // Best effort: the file stays in `incoming/`, and a second one here would look like another image.
        let _ = fs::remove_file(target);
    }
    removed
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

/// The path with something at the end of its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
            settle(&path, "file 1", &from, &to, Some(&Reason::new("file 1", &refusal, SystemTime::now()))).unwrap();
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

    #[test]
    fn a_file_goes_to_another_file_system_whole_and_over_no_other() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
            return eprintln!("SKIPPED: /dev/shm is not writable, so there is no second file system");
        };
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(folder.path()) == device(other.path()) {
            return eprintln!("SKIPPED: /dev/shm and the temporary folder are on one file system");
        }
        let (from, to) = (other.path(), folder.path());
        let refusal = Refusal { code: RefusalCode::Damaged, message: "It ends too early.".into() };
        for content in ["1", "2"] {
            let path = from.join("a.png");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            let reason = Reason::new("file 1", &refusal, SystemTime::now());
            settle(&path, "file 1", from, to, Some(&reason)).unwrap();
            assert!(!path.exists());
            let target = to.join(if content == "1" { "a.png" } else { "a.1.png" });
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
            let metadata = fs::metadata(&target).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
            assert_eq!(metadata.modified().unwrap(), modified);
        }
        assert_eq!(fs::read_dir(to).unwrap().count(), 4, "two files, two reasons, nothing unfinished");

        // A name that was taken after it was found free: both stay as they are.
        fs::write(from.join("b.png"), "new").unwrap();
        fs::write(to.join("b.png"), "old").unwrap();
        let error = copy_and_remove(&from.join("b.png"), &to.join("b.png"), to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(to.join("b.png")).unwrap(), "old");
        assert_eq!(fs::read_to_string(from.join("b.png")).unwrap(), "new");
        assert_eq!(fs::read_dir(to).unwrap().count(), 5);
    }

    #[test]
    fn a_reason_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = Refusal { code: RefusalCode::Damaged, message: "It ends too early.".into() };
        let path = folder.path().join("a.png.reason.json");
        fs::write(&path, "another one's").unwrap();
        write_reason(&path, &Reason::new("file 1", &refusal, SystemTime::now())).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another one's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_no_file_can_be_made_the_error_is_the_systems_own() {
        // Nobody makes files there, root included.
        let error = unfinished(Path::new("/proc/self"), 0o600).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error:?}");
        assert!(!error.to_string().contains(UNFINISHED_PREFIX), "{error}");
    }

    #[test]
    fn what_only_looks_like_a_reason_is_neither_waited_for_nor_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (incoming, rejected) = (folder.path().join("incoming"), folder.path().join("rejected"));
        fs::create_dir(&incoming).unwrap();
        fs::create_dir(&rejected).unwrap();
        fs::write(incoming.join("a.png"), "1").unwrap();
        let reason = r#"{"code": "damaged", "log_tag": "file 1"}"#;
        fs::write(rejected.join("ours.reason.json"), reason).unwrap();
        // 10 GB that take no room: reading them would end the test, not only fail it.
        File::create(rejected.join("large.reason.json")).unwrap().set_len(10 << 30).unwrap();
        // Larger than a reason, and one otherwise.
        let padded = reason.to_owned() + &" ".repeat(MAX_REASON as usize);
        fs::write(rejected.join("padded.reason.json"), padded).unwrap();
        let pipe = rejected.join("pipe.reason.json");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::write(folder.path().join("elsewhere"), reason).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), rejected.join("link.reason.json")).unwrap();
        sweep_reasons(&rejected, &incoming, |_| "file 1".to_owned());
        let mut left: Vec<_> = fs::read_dir(&rejected).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let names = ["large.reason.json", "link.reason.json", "padded.reason.json", "pipe.reason.json"];
        assert_eq!(left, names, "the one that is ours is gone");
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
