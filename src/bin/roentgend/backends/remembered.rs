//! What was measured of the backends, in `state_dir/backends.json`: for each bundle, program and machine what succeeded. It
//! saves time and decides nothing that golden vectors do not decide again: a broken file is measured anew.

use super::Measured;
use roentgen::bundle::{Bundle, sha256_hex};
use roentgen::config::{Backend, Config};
use roentgen::kernels;
use roentgen::plain_file;
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file in `state_dir`.
pub(crate) const FILE: &str = "backends.json";

const SCHEMA: &str = "roentgen.backends/1";

/// How many entries are kept: of the active bundle, the one before, and a few configurations.
const KEPT: usize = 8;

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What a measurement holds for: this bundle, this program, these processors, these libraries, these settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Key(String);

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    schema: String,
    /// Newest first.
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    /// For people.
    bundle: String,
    measured: Vec<Measured>,
}

impl Key {
    /// The key of a bundle under a configuration on this machine.
    pub(crate) fn of(bundle: &Bundle, config: &Config) -> Self {
        // A library that was replaced is another one.
        let stamp = |found: io::Result<Metadata>| {
            found.ok().map(|file| (file.len(), file.ino(), file.mtime(), file.mtime_nsec()))
        };
        let libraries = config.accelerator.find().ok();
        let libraries =
            libraries.map(|found| [stamp(fs::metadata(found.library)), stamp(fs::metadata(found.delegate))]);
        let names: Vec<&str> = kernels::available().map(|kernels| kernels.name).collect();
        let built = Backend::ALL.map(|backend| backend.is_built());
        let processors = std::thread::available_parallelism().map_or(0, |count| count.get());
        let parts = (
            (SCHEMA, env!("CARGO_PKG_VERSION"), stamp(fs::metadata("/proc/self/exe")), built, tflite()),
            (names, processors, model_name(), &config.engine, &config.accelerator, libraries),
        );
        Self(sha256_hex(format!("{} {parts:?}", bundle.sha256()).as_bytes()))
    }
}

/// The linked TFLite's version.
fn tflite() -> Option<String> {
    #[cfg(feature = "tflite")]
    return Some(roentgen::classifier::tflite::kernel());
    #[cfg(not(feature = "tflite"))]
    None
}

/// What the processor calls itself, where it does: a card may be moved from board to board.
fn model_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"))?;
    Some(line.to_owned())
}

impl Remembered {
    fn nothing() -> Self {
        Self { schema: SCHEMA.into(), entries: Vec::new() }
    }

    /// The file's content; nothing where there is none, or it cannot be understood.
    pub(super) fn read(path: &Path) -> Self {
        let read = || -> io::Result<Self> {
            let mut text = String::new();
            plain_file::open(path)?.0.take(MAX_BYTES).read_to_string(&mut text)?;
            Ok(serde_json::from_str(&text)?)
        };
        match read() {
            Ok(remembered) if remembered.schema == SCHEMA => remembered,
            Ok(_) => Self::nothing(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::nothing(),
            Err(error) => {
                log::warn!("{}: {error}; the backends are measured again", path.display());
                Self::nothing()
            }
        }
    }

    /// What was measured for this key.
    pub(super) fn of(self, key: &Key) -> Vec<Measured> {
        let found = self.entries.into_iter().find(|entry| entry.key == *key);
        found.map(|entry| entry.measured).unwrap_or_default()
    }
}

/// Keeps what was measured. Where that fails it is said, and the next start measures again.
pub(super) fn remember(path: &Path, key: &Key, bundle: &Bundle, measured: Vec<Measured>) {
    let manifest = bundle.manifest();
    let title = format!("{} {}", manifest.name, manifest.version);
    let mut all = Remembered::read(path);
    all.entries.retain(|entry| entry.key != *key);
    all.entries.insert(0, Entry { key: key.clone(), bundle: title, measured });
    all.entries.truncate(KEPT);
    if let Err(error) = write(path, &all) {
        log::warn!("{}: {error}; what was measured of the backends is not remembered", path.display());
    }
}

/// Replaces the file whole. Not synced: after a power cut it is measured again at worst.
fn write(path: &Path, remembered: &Remembered) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".backends-").tempfile_in(folder)?;
    file.write_all(&serde_json::to_vec_pretty(remembered)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert!(Remembered::read(&path).entries.is_empty());
        for text in ["", "{", "[]", "{\"schema\": \"other/1\", \"entries\": []}", "\u{0}\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(Remembered::read(&path).entries.is_empty(), "{text}");
        }
    }
}
