//! The disk's reserve: intake stops before a disk is full, and goes on when there is room again. Frees nothing.

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Inodes that must be free, where a file system counts them.
const MIN_INODES: u64 = 64;

/// The `[reserve]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes that stay free on the disks of `state_dir`, `done/` and `rejected/`: with less, no image is taken; 0: no reserve.
    pub min_free_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_free_bytes: 256 << 20 }
    }
}

/// Watches the free room below some folders.
#[derive(Debug)]
pub(super) struct Reserve {
    min_free_bytes: u64,
    folders: Vec<PathBuf>,
    /// Whether there was too little: then there must be a quarter more than the reserve before it counts as enough, so
    /// that it does not go back and forth with every image.
    is_short: bool,
}

impl Reserve {
    pub(super) fn new(config: &Config, folders: Vec<PathBuf>) -> Self {
        Self { min_free_bytes: config.min_free_bytes, folders, is_short: false }
    }

    /// Says where there is too little room, if there is. A folder that cannot be asked is not this one's business.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if self.min_free_bytes == 0 {
            return Ok(());
        }
        let margin = if self.is_short { self.min_free_bytes / 4 } else { 0 };
        let wanted = self.min_free_bytes.saturating_add(margin);
        let short = self.folders.iter().find_map(|folder| {
            let disk = statvfs(folder).ok()?;
            let shown = folder.display();
            if disk.f_bavail.saturating_mul(disk.f_frsize) < wanted {
                let reserve = self.min_free_bytes >> 20;
                return Some(format!(
                    "less than {reserve} MiB are free on the disk of {shown} (reserve.min_free_bytes): make room \
                     there; source.folder.keep_done_days and keep_done_bytes say how much of done/ stays"
                ));
            }
            // File systems without a number of inodes say 0 of 0.
            (disk.f_files > 0 && disk.f_favail < MIN_INODES)
                .then(|| format!("the disk of {shown} can hold hardly any more files: remove some there"))
        });
        self.is_short = short.is_some();
        short.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_closes_and_nothing_wanted_opens() {
        let folder = tempfile::tempdir().unwrap();
        let check = |min_free_bytes| Reserve::new(&Config { min_free_bytes }, vec![folder.path().into()]).check();
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(1), Ok(()));
        let reason = check(u64::MAX).unwrap_err();
        assert!(reason.contains(folder.path().to_str().unwrap()) && reason.contains("min_free_bytes"), "{reason}");
        let gone = Reserve::new(&Config { min_free_bytes: u64::MAX }, vec![folder.path().join("gone")]).check();
        assert_eq!(gone, Ok(()));
    }
}
