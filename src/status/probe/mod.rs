//! What the system says about the box: heat, processors, memory, disks. Readers of small files below a root that tests
//! lay out. Not a judgement, and never an error: what a board does not tell is left out.

mod disk;
mod heat;
mod memory;
mod processors;

pub use disk::Disk;
pub use heat::{Cooling, Heat, Zone, firmware_words};
pub use memory::Memory;
pub use processors::Frequency;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No file that is read here is longer.
const MAX_BYTES: u64 = 64 << 10;

/// Where the system's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// How long the machine has been up: a clock that nobody sets.
pub fn uptime(roots: &Roots) -> Option<Duration> {
    let text = text(&roots.proc.join("uptime"))?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A small file's text without the white space around it.
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    crate::plain_file::open(path).ok()?.0.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// A small file's number.
fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The entries of a folder whose names begin so, in the order of the numbers that they end with.
fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(listed) = std::fs::read_dir(folder) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix(prefix)?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> =
        listed.flatten().filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Writes files below a folder: paths and their contents.
    fn lay_out(root: &Path, files: &[(&str, &str)]) {
        for (path, contents) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
    }

    fn roots(folder: &Path) -> Roots {
        Roots { proc: folder.join("proc"), sys: folder.join("sys") }
    }

    #[test]
    fn a_raspberry_pi_that_is_too_hot_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let thermal = "sys/class/thermal";
        lay_out(
            folder.path(),
            &[
                (&format!("{thermal}/thermal_zone0/type"), "cpu-thermal\n"),
                (&format!("{thermal}/thermal_zone0/temp"), "83412\n"),
                (&format!("{thermal}/thermal_zone10/type"), "gpu-thermal\n"),
                (&format!("{thermal}/thermal_zone10/temp"), "-500\n"),
                // A zone that is switched off gives an error, or nothing.
                (&format!("{thermal}/thermal_zone2/type"), "off\n"),
                (&format!("{thermal}/cooling_device0/type"), "thermal-cpufreq-0\n"),
                (&format!("{thermal}/cooling_device0/cur_state"), "2\n"),
                (&format!("{thermal}/cooling_device0/max_state"), "4\n"),
                (&format!("{thermal}/cooling_device1/type"), "pwm-fan\n"),
                (&format!("{thermal}/cooling_device1/cur_state"), "3\n"),
                (&format!("{thermal}/cooling_device1/max_state"), "4\n"),
                ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
            ],
        );
        let heat = Heat::read(&roots(folder.path()));
        let zones: Vec<_> = heat.zones.iter().map(|zone| (zone.name.as_str(), zone.celsius)).collect();
        assert_eq!(zones, [("cpu-thermal", 83.4), ("gpu-thermal", -0.5)]);
        assert_eq!(heat.cooling.len(), 2);
        assert_eq!((heat.cooling[0].state, heat.cooling[0].max_state), (2, 4));
        assert_eq!(heat.firmware, ["under_voltage", "throttled", "under_voltage_was", "throttled_was"]);
        assert_eq!(heat.throttled, Some(true));

        // Cool again: the fan alone is no throttling.
        lay_out(
            folder.path(),
            &[
                (&format!("{thermal}/cooling_device0/cur_state"), "0\n"),
                ("sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n"),
            ],
        );
        let heat = Heat::read(&roots(folder.path()));
        assert_eq!((heat.throttled, heat.firmware.len()), (Some(false), 2));
    }

    #[test]
    fn a_machine_that_tells_nothing_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let heat = Heat::read(&roots);
        assert_eq!((heat.zones.len(), heat.cooling.len(), heat.throttled), (0, 0, None));
        assert!(Frequency::read(&roots).is_empty());
        assert_eq!(Memory::read(&roots), Memory::default());
        assert_eq!(uptime(&roots), None);
        assert_eq!(Disk::read(&folder.path().join("none")), None);
    }

    #[test]
    fn frequencies_are_read_by_policy() {
        let folder = tempfile::tempdir().unwrap();
        let policy = "sys/devices/system/cpu/cpufreq/policy";
        lay_out(
            folder.path(),
            &[
                (&format!("{policy}0/scaling_cur_freq"), "600000\n"),
                (&format!("{policy}0/scaling_max_freq"), "1000000\n"),
                (&format!("{policy}0/cpuinfo_max_freq"), "1500000\n"),
                (&format!("{policy}4/scaling_cur_freq"), "2400000\n"),
                (&format!("{policy}4/scaling_max_freq"), "2400000\n"),
                (&format!("{policy}9/scaling_cur_freq"), "nonsense\n"),
            ],
        );
        let found: Vec<_> = Frequency::read(&roots(folder.path()))
            .into_iter()
            .map(|f| (f.policy, f.mhz, f.allowed_mhz, f.max_mhz))
            .collect();
        let expected = [("policy0", 600, Some(1000), Some(1500)), ("policy4", 2400, Some(2400), None)];
        assert_eq!(found, expected.map(|(name, now, allowed, max)| (name.to_owned(), now, allowed, max)));
    }

    #[test]
    fn memory_is_read_in_bytes_and_the_uptime_in_seconds() {
        let folder = tempfile::tempdir().unwrap();
        lay_out(
            folder.path(),
            &[
                ("proc/self/status", "Name:\troentgend\nVmHWM:\t  90000 kB\nVmRSS:\t   81234 kB\nThreads:\t5\n"),
                ("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 5 kB\nMemAvailable:    400 kB\n"),
                ("proc/uptime", "350735.47 234388.90\n"),
            ],
        );
        let roots = roots(folder.path());
        let memory = Memory::read(&roots);
        let expected = Memory {
            resident_bytes: Some(81_234 << 10),
            resident_peak_bytes: Some(90_000 << 10),
            available_bytes: Some(400 << 10),
            total_bytes: Some(1000 << 10),
        };
        assert_eq!(memory, expected);
        assert_eq!(uptime(&roots).map(|up| up.as_secs()), Some(350_735));
    }

    #[test]
    fn this_machine_tells_of_its_memory_and_disk() {
        let memory = Memory::read(&Roots::default());
        assert!(memory.resident_bytes > Some(1 << 16) && memory.resident_bytes <= memory.total_bytes, "{memory:?}");
        let disk = Disk::read(Path::new("/")).unwrap();
        assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes, "{disk:?}");
        assert!(uptime(&Roots::default()) > Some(Duration::ZERO));
    }
}
