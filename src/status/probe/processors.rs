//! How fast the processors run. Idle ones run slowly, so that only what they are allowed says that they are held back.

use super::{Roots, entries, number};
use serde::{Deserialize, Serialize};

/// Most policies that are read.
const MOST: usize = 32;

/// The frequency of processors that share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frequency {
    /// As the kernel numbers them: `policy` and the first of the processors.
    pub policy: String,
    /// Now.
    pub mhz: u64,
    /// The most that they are allowed at the moment: less than `max_mhz` where heat or a setting holds them back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_mhz: Option<u64>,
    /// The most that they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_mhz: Option<u64>,
}

impl Frequency {
    /// Reads what there is.
    pub fn read(roots: &Roots) -> Vec<Self> {
        let policies = entries(&roots.sys.join("devices/system/cpu/cpufreq"), "policy");
        let read = |policy: std::path::PathBuf| {
            let mhz = |name| number::<u64>(&policy.join(name)).map(|khz| khz / 1000);
            Some(Self {
                policy: policy.file_name()?.to_string_lossy().into_owned(),
                mhz: mhz("scaling_cur_freq")?,
                allowed_mhz: mhz("scaling_max_freq"),
                max_mhz: mhz("cpuinfo_max_freq"),
            })
        };
        policies.into_iter().take(MOST).filter_map(read).collect()
    }
}
