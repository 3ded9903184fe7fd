//! What the service manager is told: ready, reloading, stopping, and the watchdog's beat. Without systemd nobody listens.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

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
    tell(&[NotifyState::ExtendTimeoutUsec(120_000_000)]);
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
