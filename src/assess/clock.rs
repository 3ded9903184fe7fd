//! Whether the box's clock can be trusted. Not setting it: that is the time service's work.
//!
//! systemd-timesyncd makes the file [`SYNCHRONIZED`] once it has set the clock from a server since boot, and
//! systemd-time-wait-sync waits for that same file. The kernel's own word (`adjtimex`) would hold for every time service
//! but has no safe interface in Rust; a box whose time service does not keep the file (chrony, unless its unit is told to
//! touch it) therefore counts as not synchronised: the cautious error.

use crate::report::Clock;
use std::path::Path;

/// There when the clock has been synchronised.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";

/// The clock's state now.
pub(super) fn state() -> Clock {
    state_of(Path::new(SYNCHRONIZED))
}

fn state_of(marker: &Path) -> Clock {
    if marker.exists() { Clock::Synchronised } else { Clock::Unsynchronised }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_trusted_once_the_time_service_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let marker = folder.path().join("synchronized");
        assert_eq!(state_of(&marker), Clock::Unsynchronised);
        std::fs::write(&marker, "").expect("writable");
        assert_eq!(state_of(&marker), Clock::Synchronised);
    }
}
