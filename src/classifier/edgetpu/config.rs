//! The `[accelerator]` section: which delegate, by which library, and how long it may take. In every build, so that one
//! configuration is good for all of them. Loads nothing.

use crate::bundle::{EDGETPU_FILE, TFLITE_FILE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Where a library is looked for whose name is not a path: this project's package, then Debian's. Never in the folder where
/// somebody stands, nor where a variable points to: whoever chooses the library decides what the box reports.
const FOLDERS: [&str; 4] = ["/usr/lib/roentgen", DEBIAN, "/usr/lib", "/usr/local/lib"];

/// Where Debian has the libraries of this processor.
const DEBIAN: &str =
    if cfg!(target_arch = "aarch64") { "/usr/lib/aarch64-linux-gnu" } else { "/usr/lib/x86_64-linux-gnu" };

/// What the names of Coral's own libraries begin with.
const CORAL: &str = "libedgetpu";

/// The `[accelerator]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The library that drives the accelerator: a TFLite external delegate.
    pub delegate: PathBuf,
    /// TFLite's C library, which loads the model and runs what the delegate leaves.
    pub library: PathBuf,
    /// How long one inference may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long its start may take, the golden vectors included, in seconds.
    pub start_seconds: u64,
    /// The pause after which it is tried again, in seconds; doubled each time, up to ten minutes.
    pub retry_seconds: u64,
    /// How many quantization steps its golden outputs may be off.
    pub tolerance: u8,
    /// What the delegate is told.
    pub options: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delegate: "libedgetpu.so.1".into(),
            library: "libtensorflowlite_c.so".into(),
            timeout_ms: 5000,
            start_seconds: 30,
            retry_seconds: 10,
            // TFLite's own kernels, which round in fixed point, are up to 4 off on the bundle that comes with Roentgen.
            tolerance: 6,
            options: BTreeMap::new(),
        }
    }
}

/// Both libraries, as they lie there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libraries {
    /// TFLite's.
    pub library: PathBuf,
    /// The delegate's.
    pub delegate: PathBuf,
}

impl Config {
    /// Checks what the types cannot; the message names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, path) in [("delegate", &self.delegate), ("library", &self.library)] {
            if !path.is_absolute() && plain_name(path).is_none() {
                return Err(format!(
                    "accelerator.{key} = {path:?}: write the name of a library, like \"libedgetpu.so.1\", or its whole path"
                ));
            }
        }
        let bounds = [
            ("timeout_ms", self.timeout_ms, 100, 60_000),
            ("start_seconds", self.start_seconds, 1, 60),
            ("retry_seconds", self.retry_seconds, 1, 600),
            ("tolerance", self.tolerance.into(), 0, 16),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(format!("accelerator.{key} = {value}: write a number from {least} to {most}"));
            }
        }
        let short = |text: &String| text.len() <= 256 && !text.contains('\0');
        if self.options.len() > 32 || !self.options.iter().all(|(key, value)| short(key) && short(value)) {
            return Err("accelerator.options: at most 32, each of at most 256 letters".into());
        }
        Ok(())
    }

    /// Where both libraries lie, or which one is missing.
    pub fn find(&self) -> Result<Libraries, String> {
        Ok(Libraries { library: find(&self.library)?, delegate: find(&self.delegate)? })
    }

    /// Whether the delegate is Coral's, which runs nothing but what its compiler made.
    pub fn is_coral(&self) -> bool {
        self.file_name().starts_with(CORAL)
    }

    /// What reports call it.
    pub fn name(&self) -> &'static str {
        if self.is_coral() { "edgetpu" } else { "delegate" }
    }

    /// The bundle's file that it runs.
    pub fn model(&self) -> &'static str {
        if self.is_coral() { EDGETPU_FILE } else { TFLITE_FILE }
    }

    /// The delegate's file name.
    pub fn file_name(&self) -> String {
        self.delegate.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// See [`Config::timeout_ms`].
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// See [`Config::start_seconds`].
    pub fn start(&self) -> Duration {
        Duration::from_secs(self.start_seconds)
    }

    /// See [`Config::retry_seconds`].
    pub fn retry(&self) -> Duration {
        Duration::from_secs(self.retry_seconds)
    }
}

/// The name, where it is one and no path.
fn plain_name(path: &Path) -> Option<&Path> {
    let mut parts = path.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)).then_some(path)
}

fn find(wanted: &Path) -> Result<PathBuf, String> {
    if wanted.is_absolute() {
        return if wanted.is_file() {
            Ok(wanted.to_owned())
        } else {
            Err(format!("{} is not there", wanted.display()))
        };
    }
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(wanted)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{} is not installed (looked in {})", wanted.display(), FOLDERS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_whole_paths_are_libraries_and_nothing_between() {
        let with = |delegate: &str| Config { delegate: delegate.into(), ..Config::default() };
        for good in ["libedgetpu.so.1", "/opt/vx/libvx_delegate.so"] {
            assert_eq!(with(good).validate(), Ok(()), "{good}");
        }
        for bad in ["", "../evil.so", "lib/evil.so", "./evil.so", ".."] {
            assert!(with(bad).validate().is_err_and(|error| error.contains("accelerator.delegate")), "{bad}");
        }
    }

    #[test]
    fn corals_delegate_runs_its_compilers_model_and_others_the_plain_one() {
        let with = |delegate: &str| Config { delegate: delegate.into(), ..Config::default() };
        assert_eq!((with("libedgetpu.so.1").name(), with("libedgetpu.so.1").model()), ("edgetpu", EDGETPU_FILE));
        assert_eq!((with("/opt/libvx.so").name(), with("/opt/libvx.so").model()), ("delegate", TFLITE_FILE));
    }

    #[test]
    fn a_missing_library_is_named() {
        let nowhere = Config { library: "libnowhere_at_all.so".into(), ..Config::default() };
        assert!(
            nowhere.find().is_err_and(|error| error.contains("libnowhere_at_all.so") && error.contains("/usr/lib"))
        );
        let nowhere = Config { library: "/nowhere/lib.so".into(), ..Config::default() };
        assert!(nowhere.find().is_err_and(|error| error.contains("/nowhere/lib.so is not there")));
    }
}
