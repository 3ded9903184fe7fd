//! Waiting at the start for a trouble of the box to pass: a disk that is full, may only be read, or fails. Not the waiting of
//! a daemon that works: each part of the line does that itself.

use crate::logging;
use crate::signals::Stop;
use crate::systemd;
use roentgen::outbox::OutboxError;
use roentgen::source::Intake;
use roentgen::status::Status;
use std::io;
use std::thread;
use std::time::Duration;

/// The pause between two attempts, and how often it is looked meanwhile whether to go on.
const PAUSE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// Tries again what fails for a reason that may pass.
pub(super) struct Patience<'a> {
    /// Ends the waiting.
    pub(super) stop: &'a Stop,
    /// Is told why no image is taken.
    pub(super) status: &'a Status,
}

impl Patience<'_> {
    /// Does something until it is done; `None`: asked to stop before. Whatever does not pass by itself is an error at once.
    /// Nothing may be left open by an attempt that failed: the disk may have to be taken away to be mended.
    pub(super) fn until<T>(&self, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        let mut said = None;
        loop {
            let error = match attempt() {
                Ok(done) => {
                    if said.is_some() {
                        log::info!("the start goes on");
                        systemd::status("");
                    }
                    return Ok(Some(done));
                }
                Err(error) if passes(&error) => logging::chain(&error),
                Err(error) => return Err(error),
            };
            if said.as_ref() != Some(&error) {
                log::warn!("the start waits until this is over, and goes on by itself then: {error}");
                systemd::status(&format!("Waiting until this is over: {error}"));
                self.status.intake(Intake::Closed { reason: error.clone() });
                said = Some(error);
            }
            systemd::extend_start();
            for _ in 0..PAUSE.as_millis() / LOOK.as_millis() {
                if self.stop.is_asked() {
                    return Ok(None);
                }
                thread::sleep(LOOK);
            }
        }
    }
}

/// Whether it may be over by itself, or as soon as somebody has looked after the disk.
fn passes(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(crate::is_passing)
            || cause.downcast_ref::<OutboxError>().is_some_and(OutboxError::is_passing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_read_only_is_waited_for_and_a_wrong_path_is_not() {
        let of = |code| passes(&anyhow::Error::from(io::Error::from_raw_os_error(code)).context("cannot open"));
        for code in [libc::EROFS, libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EMFILE, libc::ESTALE] {
            assert!(of(code), "{code}");
        }
        for code in [libc::EACCES, libc::ENOENT, libc::ENOTDIR] {
            assert!(!of(code), "{code}");
        }
        let unsound = OutboxError::Unsound { path: "outbox".into(), reason: "broken".into() };
        assert!(!passes(&unsound.into()) && !passes(&anyhow::anyhow!("another one runs")));
    }
}
