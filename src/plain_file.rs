//! Opening a file that a stranger named: plain files only, and without ever waiting. Not its reading.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The error inside an [`io::Error`] of [`open`] for what is there and no plain file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an ordinary file (a folder, a pipe or a device)")]
pub struct NotPlain;

/// Opens a plain file for reading; its metadata, length included, is that of the open file.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Without O_NONBLOCK opening a FIFO waits for its writer, for ever. The kind is asked of the open file, not of the
    // name, which may point elsewhere a moment later.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, NotPlain)) }
}

/// Whether an error of [`open`] says that this is no plain file.
pub fn is_not_plain(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotPlain>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_or_folder_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(is_not_plain(&open(path).unwrap_err()), "{}", path.display());
        }
        assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(folder.path().join("plain"), "abc").unwrap();
        assert_eq!(open(&folder.path().join("plain")).unwrap().1.len(), 3);
    }
}
