//! What the service manager is told: ready, reloading, stopping, and the watchdog's beat. Without systemd nobody listens.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// Seconds that a start may take for whatever it does: the unit's TimeoutStartSec.
const START: u64 = 120;

/// Bytes a second that the slowest of cards gives in small pieces.
const SLOWEST: u64 = 256 << 10;

/// Tells the service manager; an answer is not expected, and without one running there is nothing to tell.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("service manager: {error}");
    }
}

/// Start-up is through, or a reload.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] follows, whether it was taken or refused. `systemctl reload` waits for that.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // In one message: systemd tells by the time which reload this is.
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("service manager: {error}"),
    }
}

/// The line that `systemctl status` shows: what is wrong, or nothing.
pub(crate) fn status(text: &str) {
    // One line a field is the protocol's form.
    tell(&[NotifyState::Status(&text.replace('\n', " "))]);
}

/// Start-up takes longer than usual: it may take the unit's TimeoutStartSec once more, from now.
pub(crate) fn extend_start() {
    extend_start_to_read(0);
}

/// The same where so many bytes may have to be read meanwhile; up to an hour or so.
pub(crate) fn extend_start_to_read(bytes: u64) {
    tell(&[NotifyState::ExtendTimeoutUsec(microseconds_to_read(bytes))]);
}

fn microseconds_to_read(bytes: u64) -> u32 {
    let seconds = START + bytes / SLOWEST;
    u32::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(u32::MAX)
}

/// The process is going to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The watchdog, fed by the pipeline's own turns: a line that stands still is a line that gets restarted.
pub(crate) struct Watchdog {
    /// How often to feed it: a quarter of the unit's WatchdogSec. `None`: the unit has no watchdog.
    period: Option<Duration>,
    fed: Option<Instant>,
}

impl Watchdog {
    /// As the unit says.
    pub(crate) fn from_environment() -> Self {
        Self { period: sd_notify::watchdog_enabled().map(|limit| limit / 4), fed: None }
    }

    /// One turn of work is done.
    pub(crate) fn turn(&mut self) {
        let Some(period) = self.period else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= period) {
            tell(&[NotifyState::Watchdog]);
            self.fed = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_reads_more_may_take_longer() {
        assert_eq!(microseconds_to_read(0), 120_000_000);
        assert_eq!(microseconds_to_read(256 << 20), (120 + 1024) * 1_000_000);
        assert_eq!(microseconds_to_read(u64::MAX), u32::MAX);
    }
}
