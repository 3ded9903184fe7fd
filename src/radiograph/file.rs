//! Reading a file that a stranger dropped: regular files only, and never more than the limit. Not its decoding.

use super::{Limits, Refusal, RefusalCode};
use crate::plain_file;
use std::io::{self, Read};
use std::path::Path;

/// The bytes of a regular file of at most `max_file_bytes`.
pub(super) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let (file, metadata) = plain_file::open(path).map_err(|error| unreadable(&error))?;
    if metadata.len() > limits.max_file_bytes {
        return Err(Refusal::limit("max_file_bytes", "bytes"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow while it is read: one byte beyond the limit is enough to know.
    file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(Refusal::limit("max_file_bytes", "bytes"));
    }
    Ok(bytes)
}

/// The refusal for a system error, with the system's own words; the path, which may be a patient's name, is left out:
/// whoever settles the file knows it.
fn unreadable(error: &io::Error) -> Refusal {
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
