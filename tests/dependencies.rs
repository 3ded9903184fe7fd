//! The promise: what runs on a box compiles no training crate, and the plain build needs no system library.
//! Asks `cargo tree`, which reads the lock file and compiles nothing.

use std::collections::BTreeSet;
use std::process::Command;

/// The names of all packages that a build of the daemon would compile, build scripts' own dependencies included.
fn packages(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}", "--edges", "normal,build"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn training(names: &BTreeSet<String>) -> Vec<&String> {
    let exact = ["indicatif", "candle-core", "tch", "tract-tflite"];
    names.iter().filter(|name| name.starts_with("burn") || exact.contains(&name.as_str())).collect()
}

#[test]
fn the_daemon_compiles_no_training_crate() {
    let plain = packages(&[]);
    assert!(plain.contains("tract-onnx") && plain.contains("rumqttd"), "the list looks wrong: {plain:?}");
    assert_eq!(training(&plain), Vec::<&String>::new());
}

#[test]
fn a_box_build_leaves_the_demo_broker_out() {
    let edge = packages(&["--no-default-features"]);
    assert!(edge.contains("tract-onnx") && edge.contains("rumqttc"), "the list looks wrong: {edge:?}");
    assert_eq!(training(&edge), Vec::<&String>::new());
    assert!(!edge.contains("rumqttd"), "the demo's broker is in the box build");
}

#[test]
fn the_host_tool_would_be_noticed() {
    assert!(!training(&packages(&["--features", "host"])).is_empty());
}

#[test]
fn the_plain_build_needs_no_system_package() {
    let plain = packages(&[]);
    for needy in ["bindgen", "clang-sys", "openssl-sys", "v4l2-sys-mit", "cmake", "libsystemd-sys", "torch-sys"] {
        assert!(!plain.contains(needy), "the plain build pulls {needy}");
    }
}
