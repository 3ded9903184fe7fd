//! Reading a file that a stranger dropped: regular files only, and never more than the limit. Not its decoding.

use super::{Limits, Refusal, RefusalCode};
use crate::plain_file;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Why a file's bytes are not there: it is larger than the limit, or the system did not give them.
pub(crate) enum NotRead {
    /// Refused for its size.
    Refused(Refusal),
    /// What the system said; whether that is about the file or about the box, the caller knows.
    Failed(io::Error),
}

/// The bytes of a regular file of at most `max_file_bytes`.
pub(super) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let (file, _) = plain_file::open(path).map_err(|error| unreadable(&error))?;
    read_open(&file, limits).map_err(|error| match error {
        NotRead::Refused(refusal) => refusal,
        NotRead::Failed(error) => unreadable(&error),
    })
}

/// The same of an open file, from its beginning; the file's own position is neither used nor moved, so that another
/// process that shares it can read it again.
pub(crate) fn read_open(file: &File, limits: &Limits) -> Result<Vec<u8>, NotRead> {
    let too_large = || NotRead::Refused(Refusal::limit("max_file_bytes", "bytes"));
    let length = file.metadata().map_err(NotRead::Failed)?.len();
    if length > limits.max_file_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // It may grow while it is read: one byte beyond the limit is enough to know.
    let mut start = FromStart { file, at: 0 }.take(limits.max_file_bytes.saturating_add(1));
    start.read_to_end(&mut bytes).map_err(NotRead::Failed)?;
    if bytes.len() as u64 > limits.max_file_bytes { Err(too_large()) } else { Ok(bytes) }
}

/// Reads a file from its beginning without moving its position.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The refusal for a system error, with the system's own words; the path, which may be a patient's name, is left out:
/// whoever settles the file knows it.
pub(crate) fn unreadable(error: &io::Error) -> Refusal {
    if plain_file::is_not_plain(error) {
        return Refusal::new(
            RefusalCode::Unreadable,
            "This is not an ordinary file (a folder, a pipe or a device). Drop the radiograph's file itself.",
        );
    }
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "Send it again.",
        io::ErrorKind::PermissionDenied => "Let the service's user read it, then send it again.",
        _ => "Check the disk or the network folder, then send it again.",
    };
    Refusal::new(RefusalCode::Unreadable, format!("The file could not be read ({}). {advice}", error.kind()))
}
