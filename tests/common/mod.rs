//! Helpers that several test files share. Not tests themselves.
#![allow(dead_code, unreachable_pub, missing_docs)] // every test file compiles its own copy and uses a part of it

use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, Pixels, Radiograph, Refusal};
use std::path::PathBuf;

/// The folder of real data that is not part of the repository, or `None`, said plainly, where it is absent.
pub fn shared(inside: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROENTGEN_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    let path = root.join(inside);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {} here; set ROENTGEN_SHARED to the folder of real data to test with it", path.display());
    None
}

/// The files of a folder of real data whose name ends so, sorted; none, said plainly, where it is absent.
pub fn shared_files(inside: &str, suffix: &str) -> Vec<PathBuf> {
    let Some(folder) = shared(inside) else { return Vec::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(suffix));
    files.sort();
    files
}

pub fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// Opens bytes with the default limits.
pub fn open(bytes: &[u8]) -> Result<Radiograph, Refusal> {
    roentgen::radiograph::open_bytes(bytes, &Limits::default(), &key())
}

/// Grey levels of either depth as 16-bit ones.
pub fn levels(radiograph: &Radiograph) -> Vec<u16> {
    match &radiograph.pixels {
        Pixels::Grey8(levels) => levels.iter().map(|&level| u16::from(level) * 257).collect(),
        Pixels::Grey16(levels) => levels.clone(),
    }
}

/// A small generator of pseudo-random numbers (xorshift64*), so that failures repeat.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2) + 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}
