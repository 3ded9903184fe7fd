//! The fault harness: a clinic that drops files, a box, a broker, the network between them, and a witness who sees from
//! outside whether anything was lost. Not the faults: each is a scenario in `tests/faults.rs`.

mod bed;
mod clinic;
mod images;
mod mount;
mod proxy;
mod verdict;
mod witness;

pub(crate) use bed::Bed;
pub(crate) use proxy::Line;

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a scenario does its worst: `short` times, or in the long form as often as `ROENTGEN_FAULTS` says (a number;
/// `long` is 100).
pub(crate) fn rounds(short: usize) -> usize {
    match env::var("ROENTGEN_FAULTS") {
        Err(_) => short,
        Ok(long) if long == "long" => 100,
        Ok(number) => number.parse().expect("ROENTGEN_FAULTS is `long` or a number of rounds"),
    }
}

/// The same for a scenario whose rounds take seconds each: a tenth of them in the long form.
pub(crate) fn slow_rounds(short: usize) -> usize {
    if env::var_os("ROENTGEN_FAULTS").is_none() { short } else { (rounds(short) / 10).max(short) }
}

/// The seed of a scenario: `ROENTGEN_FAULTS_SEED`, else another one each time.
fn seed() -> u64 {
    match env::var("ROENTGEN_FAULTS_SEED") {
        Ok(seed) => seed.parse().expect("ROENTGEN_FAULTS_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64,
    }
}

/// A seed of its own for each scenario, so that they do not all do the same.
fn mixed(seed: u64, scenario: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, scenario).hash(&mut hasher);
    hasher.finish()
}
