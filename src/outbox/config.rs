//! The `[outbox]` section: how much of the past a box keeps, and how much it keeps at most. Not the disk's reserve,
//! which closes the intake.

use serde::{Deserialize, Serialize};

/// The smallest bound on the outbox's bytes: a thousand reports fit.
const MIN_BYTES: u64 = 2 << 20;

/// The `[outbox]` section. Age costs only reports that the broker has; count and bytes hold in any case, and where
/// nothing that was sent is left to remove they cost the oldest unsent reports, which is logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Days that a report stays in the history after the broker acknowledged it; 1 to 36500.
    pub max_age_days: u32,
    /// Reports, sent and unsent, at most; 100 to 10000000.
    pub max_reports: u64,
    /// Bytes that reports and their index may take in the database file; at least 2097152.
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_age_days: 90, max_reports: 100_000, max_bytes: 256 << 20 }
    }
}

impl Config {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=36_500).contains(&self.max_age_days) {
            return Err("outbox.max_age_days: write a number of days from 1 to 36500".into());
        }
        if !(100..=10_000_000).contains(&self.max_reports) {
            return Err("outbox.max_reports: write a number of reports from 100 to 10000000".into());
        }
        if !(MIN_BYTES..=1 << 40).contains(&self.max_bytes) {
            return Err(format!("outbox.max_bytes: write a number of bytes from {MIN_BYTES} to {}", 1u64 << 40));
        }
        Ok(())
    }
}
