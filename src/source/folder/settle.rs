//! What becomes of a settled file: moved now, or as soon as the disk lets it, or left where it is. Not the moving itself.

use super::identity::Identity;
use super::{Blocked, Folder, moves};
use crate::radiograph::{Refusal, RefusalCode};
use crate::source::trouble::{Fate, fate};
use crate::source::{Item, Outcome, SourceError};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// For how long a file that cannot be copied out of the drop folder, the disk failing at it, is tried again.
const BAD_SPOT: Duration = Duration::from_secs(600);

/// A settled file that is to be moved.
pub(super) struct Settling {
    path: PathBuf,
    identity: Identity,
    received_at: SystemTime,
    /// Why it is refused; `None`: it is reported.
    refusal: Option<Refusal>,
    /// Since when the disk fails, and nothing else, where it is moved.
    failing_since: Option<Instant>,
}

impl Folder {
    /// Settles an item: moves its file, or sees to it later.
    pub(super) fn settled(&mut self, item: &Item, outcome: Outcome) {
        let path = item.handle.clone();
        // The program has survived it.
        self.lay_down();
        let Some(&identity) = self.taken.get(&path) else { return };
        let refusal = match outcome {
            Outcome::Reported => None,
            Outcome::Rejected(refusal) => {
                let (code, tag) = (refusal.code, self.tag(&path));
                log::warn!(ROENTGEN_REJECTED:% = code, ROENTGEN_FILE:% = tag; "{tag}: rejected: {refusal}");
                Some(refusal)
            }
            Outcome::Disbelieved => {
                if let Some((_, trials)) = &mut self.suspects {
                    trials.disbelieve();
                }
                return self.postpone(&path, identity);
            }
            Outcome::Later => return self.postpone(&path, identity),
        };
        self.unmoved.push(Settling { path, identity, received_at: item.received_at, refusal, failing_since: None });
        if let Err(blocked) = self.move_the_unmoved() {
            self.close_intake(blocked);
        }
    }

    /// Moves what is settled and was not moved yet.
    pub(super) fn move_the_unmoved(&mut self) -> Result<(), Blocked> {
        while let Some(mut settling) = self.unmoved.pop() {
            if let Err(error) = self.finish(&mut settling) {
                self.unmoved.push(settling);
                return Err(error.to_string().into());
            }
            self.taken.remove(&settling.path);
            if let Some((hand, _)) = &mut self.suspects {
                hand.acquit(&settling.identity);
            }
        }
        Ok(())
    }

    /// Moves one file, or finds that it need not or cannot be moved. An error passes: it is to be tried again.
    fn finish(&mut self, settling: &mut Settling) -> Result<(), SourceError> {
        let Settling { path, identity, .. } = &*settling;
        let tag = self.tag(path);
        match fs::symlink_metadata(path) {
            Ok(metadata) if Identity::of(&metadata) == *identity => {}
            Ok(_) => {
                // Moving it would put an image that nobody judged among the settled ones.
                log::warn!("{tag}: another file of this name came meanwhile; it is judged on its own");
                self.arrivals.again(path);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                log::warn!("{tag}: somebody removed it before it could be moved");
                return Ok(());
            }
            Err(error) => {
                settling.failing_since = None;
                return Err(super::failed("cannot look at", &tag)(error));
            }
        }
        let error = match self.move_one(settling, &tag) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let is_unreadable = settling.refusal.as_ref().is_some_and(|refusal| refusal.code == RefusalCode::Unreadable);
        let kind = error.error.kind();
        // Found out while it was copied to another file system, which takes its time.
        if kind == ErrorKind::ResourceBusy && error.error.raw_os_error().is_none() {
            log::warn!("{error}; it is judged again");
            self.arrivals.again(path);
            return Ok(());
        }
        let lasts = fails_for_long(&mut settling.failing_since, &error.error, Instant::now());
        if fate(&error.error) != Fate::Lasting && !is_unreadable && !lasts {
            return Err(error);
        }
        // Somebody removed `done/` or `rejected/`, or the drop folder's disk is gone.
        if kind == ErrorKind::NotFound {
            return Err(error);
        }
        // Whose fault it is shows where nothing of this file is in the way.
        for folder in [Some(&*self.incoming), self.goes_to(settling)].into_iter().flatten() {
            moves::check_writable(folder)?;
        }
        let Settling { path, identity, .. } = &*settling;
        // A sticky folder, an immutable file, a name that the other file system does not take, or one that cannot be read
        // (any more: a bad spot of the disk) and so not be copied there either.
        log::error!("{error}; it stays there and is not looked at again until it changes");
        self.arrivals.leave(path, *identity);
        Ok(())
    }

    /// Where a file goes; `None`: it is deleted.
    fn goes_to(&self, settling: &Settling) -> Option<&Path> {
        let (to, is_kept) = match settling.refusal {
            Some(_) => (&self.rejected, self.manner.keeps_rejected),
            None => (&self.done, self.manner.keeps_reported),
        };
        is_kept.then_some(to)
    }

    fn move_one(&self, settling: &Settling, tag: &str) -> Result<(), SourceError> {
        let Settling { path, received_at, refusal, .. } = settling;
        let Some(to) = self.goes_to(settling) else {
            // Not synced: a power cut brings it back, it is judged once more, and no second report comes of that.
            return fs::remove_file(path).map_err(super::failed("cannot delete", tag));
        };
        let reason = refusal.as_ref().map(|refusal| moves::Reason::new(tag, refusal, *received_at));
        let moved = moves::settle(path, tag, &self.incoming, to, reason.as_ref());
        match moved {
            Err(error) if error.error.kind() == ErrorKind::NotFound && !to.is_dir() && self.incoming.is_dir() => {
                fs::create_dir(to).map_err(super::failed("cannot make the folder again", to.display()))?;
                moves::settle(path, tag, &self.incoming, to, reason.as_ref())
            }
            moved => moved,
        }
    }
}

/// Whether the disk has failed at a file, and nothing else happened, for so long that it is a bad spot under this file.
/// `since` is kept by the caller.
fn fails_for_long(since: &mut Option<Instant>, error: &io::Error, now: Instant) -> bool {
    if error.raw_os_error() != Some(libc::EIO) {
        *since = None;
        return false;
    }
    now.saturating_duration_since(*since.get_or_insert(now)) >= BAD_SPOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_fails_at_one_file_for_long_has_a_bad_spot() {
        let (disk, share) = (libc::EIO, libc::ESTALE);
        let start = Instant::now();
        let mut since = None;
        let mut lasts = |code, after| {
            fails_for_long(&mut since, &io::Error::from_raw_os_error(code), start + Duration::from_secs(after))
        };
        assert!(!lasts(disk, 0) && !lasts(disk, 599) && lasts(disk, 600));
        assert!(!lasts(share, 601), "it is away");
        assert!(!lasts(disk, 602) && !lasts(disk, 1201) && lasts(disk, 1202));
    }
}
