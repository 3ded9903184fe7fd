//! What tells a file from another one of the same name, by its metadata. Reads no file.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// What makes a file the same file with the same content, as far as the file system tells without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Which disk or share it is on.
    pub(super) device: u64,
    inode: u64,
    size: u64,
    pub(super) modified: (i64, i64),
    /// Change time of the inode: renaming another file of the same size and age over this one shows here.
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When it reached the box: the inode's change time, which writing and renaming set and which cannot be set by hand.
    /// Never later than `now`: the clock of a file server may go ahead.
    pub(super) fn arrived(self, now: SystemTime) -> SystemTime {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or(0);
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).map_or(now, |time| time.min(now))
    }
}

/// When a file reached the box, by its metadata.
pub fn arrived(metadata: &Metadata) -> SystemTime {
    Identity::of(metadata).arrived(SystemTime::now())
}
