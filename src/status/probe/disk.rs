//! Room on a disk.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file system that something lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What this program may still write, in bytes.
    pub free_bytes: u64,
    /// Its size in bytes.
    pub total_bytes: u64,
}

impl Disk {
    /// That of a file or folder; `None` where it is not there.
    pub fn read(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }
}
