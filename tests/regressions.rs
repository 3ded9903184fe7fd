//! What once broke a fuzz target, or stands for a kind of trouble that did, is tried with every `cargo test`:
//! `tests/fuzz/regressions/TARGET/…`, each input once. Inventing new ones is libFuzzer's work: `tests/fuzz/run`.

#[path = "fuzz/src/targets/archive.rs"]
mod archive;
#[path = "fuzz/src/targets/association.rs"]
mod association;
#[path = "fuzz/src/targets/bundle.rs"]
mod bundle;
#[path = "fuzz/src/targets/command.rs"]
mod command;
#[path = "fuzz/src/targets/config.rs"]
mod config;
#[path = "fuzz/src/targets/network.rs"]
mod network;
#[path = "fuzz/src/targets/radiograph.rs"]
mod radiograph;
#[path = "fuzz/src/targets/report.rs"]
mod report;
#[path = "fuzz/src/targets/wire.rs"]
mod wire;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// A target: takes one input, and panics where it finds something wrong.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 9] = [
    ("archive", archive::run),
    ("association", association::run),
    ("bundle", bundle::run),
    ("command", command::run),
    ("config", config::run),
    ("network", network::run),
    ("radiograph", radiograph::run),
    ("report", report::run),
    ("wire", wire::run),
];

fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn what_once_broke_a_target_breaks_none_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    let mut broken = Vec::new();
    for (name, run) in TARGETS {
        let inputs = listed(&folder.join(name));
        assert!(!inputs.is_empty(), "{name} has no input");
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            if catch_unwind(|| run(&bytes)).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
    let known: Vec<_> = TARGETS.map(|(name, _)| folder.join(name)).into();
    assert_eq!(listed(&folder), known, "a folder that nobody reads");
}
