//! How hot the board is, and whether it works slower for that.

use super::{Roots, entries, number, text};
use serde::{Deserialize, Serialize};

/// Most zones and cooling devices that are read.
const MOST: usize = 32;

/// Where a Raspberry Pi's firmware says what it holds back; readable without privileges.
const PI_FIRMWARE: &str = "devices/platform/soc/soc:firmware/get_throttled";

/// The bits of that word. Those of now come first; the others say that it was so since the start.
const PI_BITS: [(u32, &str); 8] = [
    (0, "under_voltage"),
    (1, "frequency_capped"),
    (2, "throttled"),
    (3, "soft_temperature_limit"),
    (16, "under_voltage_was"),
    (17, "frequency_capped_was"),
    (18, "throttled_was"),
    (19, "soft_temperature_limit_was"),
];

/// The bits that mean that the processor works slower now.
const PI_SLOWER: u32 = 0b1110;

/// What a Raspberry Pi's firmware may complain of, by the words of telemetry.
pub fn firmware_words() -> [&'static str; 8] {
    PI_BITS.map(|(_, word)| word)
}

/// A place whose temperature is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// As the board's makers call it.
    pub name: String,
    /// Degrees, to a tenth.
    pub celsius: f64,
}

/// Something that cools: a fan, or a processor that is slowed down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooling {
    /// What it is.
    pub name: String,
    /// How much it does; 0: nothing.
    pub state: u64,
    /// The most it can do.
    pub max_state: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    /// Temperatures.
    pub zones: Vec<Zone>,
    /// What cools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooling: Vec<Cooling>,
    /// What a Raspberry Pi's firmware complains of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firmware: Vec<String>,
    /// Whether the processor is slowed down; `None` where nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<bool>,
}

impl Heat {
    /// Reads what there is.
    pub fn read(roots: &Roots) -> Self {
        let thermal = roots.sys.join("class/thermal");
        let zones = entries(&thermal, "thermal_zone").into_iter().take(MOST).filter_map(|zone| {
            let millis: f64 = number(&zone.join("temp"))?;
            Some(Zone { name: text(&zone.join("type"))?, celsius: (millis / 100.0).round() / 10.0 })
        });
        let cooling = entries(&thermal, "cooling_device").into_iter().take(MOST).filter_map(|device| {
            Some(Cooling {
                name: text(&device.join("type"))?,
                state: number(&device.join("cur_state"))?,
                max_state: number(&device.join("max_state"))?,
            })
        });
        let (zones, cooling): (Vec<_>, Vec<Cooling>) = (zones.collect(), cooling.collect());
        let word = text(&roots.sys.join(PI_FIRMWARE))
            .and_then(|word| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let bits = PI_BITS.iter().filter(|(bit, _)| word.is_some_and(|word| word >> bit & 1 == 1));
        let firmware = bits.map(|(_, name)| (*name).to_owned()).collect();
        let slowed = cooling.iter().filter(|device| device.is_processor()).map(|device| device.state > 0);
        let throttled = slowed.chain(word.map(|word| word & PI_SLOWER != 0)).reduce(|one, other| one || other);
        Self { zones, cooling, firmware, throttled }
    }
}

impl Cooling {
    /// Whether it is a processor, which cools by working slower: `Processor` on a PC, `thermal-cpufreq-0` on a board.
    fn is_processor(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        name.contains("cpufreq") || name.contains("processor")
    }
}
