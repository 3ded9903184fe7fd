//! The sections `[telemetry]` and `[updates]`: how the box says how it is, and takes new models. Not what they steer, which
//! stands on a higher floor.

use serde::{Deserialize, Serialize};

/// The `[telemetry]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Seconds between two messages about how the box is; 0: none over MQTT, else 5 to 86400.
    pub interval_s: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { interval_s: 60 }
    }
}

impl Telemetry {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        match self.interval_s {
            0 | 5..=86_400 => Ok(()),
            _ => Err("telemetry.interval_s: write a number of seconds from 5 to 86400, or 0 for no telemetry".into()),
        }
    }
}

/// The `[updates]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Updates {
    /// Whether a signed bundle that is put into `state_dir/bundles/incoming` is installed at once, or only when a command
    /// asks for it.
    pub automatic: bool,
}

impl Default for Updates {
    fn default() -> Self {
        Self { automatic: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_is_not_more_often_than_every_five_seconds() {
        for (interval_s, good) in [(0, true), (1, false), (4, false), (5, true), (86_400, true), (86_401, false)] {
            assert_eq!(Telemetry { interval_s }.validate().is_ok(), good, "{interval_s}");
        }
    }
}
