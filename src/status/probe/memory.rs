//! How much memory this process takes and how much the machine has left.

use super::{Roots, text};
use serde::{Deserialize, Serialize};

/// In bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What this process has in memory now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// The most it ever had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_peak_bytes: Option<u64>,
    /// What the machine could still give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// What the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

impl Memory {
    /// Reads what there is.
    pub fn read(roots: &Roots) -> Self {
        let own = text(&roots.proc.join("self/status")).unwrap_or_default();
        let machine = text(&roots.proc.join("meminfo")).unwrap_or_default();
        Self {
            resident_bytes: bytes(&own, "VmRSS:"),
            resident_peak_bytes: bytes(&own, "VmHWM:"),
            available_bytes: bytes(&machine, "MemAvailable:"),
            total_bytes: bytes(&machine, "MemTotal:"),
        }
    }
}

/// The line of this name, which is in kB of 1024 bytes.
fn bytes(lines: &str, name: &str) -> Option<u64> {
    let value = lines.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
