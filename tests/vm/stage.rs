//! What the system test takes along into its guest: the tiny bundle and phantoms as PNG.
//! Usage: `cargo run --example vm-stage -- DIR COUNT`. Not a test: `tests/vm/run` is.

#[path = "../support/tiny.rs"]
mod tiny;

use std::path::PathBuf;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map(PathBuf::from).expect("usage: vm-stage DIR COUNT");
    let count: u64 = arguments.next().and_then(|count| count.parse().ok()).expect("usage: vm-stage DIR COUNT");
    tiny::tiny_bundle(&folder);
    let phantoms = folder.join("phantoms");
    std::fs::create_dir_all(&phantoms).expect("writable");
    for seed in 0..count {
        std::fs::write(phantoms.join(format!("phantom-{seed:04}.png")), tiny::png(seed)).expect("writable");
    }
}
