//! The promise: what runs on a box compiles no training crate, needs no system library, comes from crates.io alone, has
//! one crypto library for TLS, and only licences that tests/deny.toml allows. Asks `cargo tree`, which reads the lock file and compiles nothing.

use std::collections::BTreeSet;
use std::process::Command;

/// The names of all packages that a build of the daemon would compile, build scripts' own dependencies included.
fn packages(arguments: &[&str]) -> BTreeSet<String> {
    let lines = tree("{p}", arguments);
    lines.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// A line for each of them.
fn tree(format: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", format, "--edges", "normal,build"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it runs this test");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone. `AND` binds before `OR`, a slash is an old OR.
fn can_be_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    fn any(words: &mut &[String], allowed: &BTreeSet<String>) -> bool {
        let mut met = all(words, allowed);
        while words.first().is_some_and(|word| word == "OR") {
            *words = &words[1..];
            // Not `||`: the words must be consumed.
            met |= all(words, allowed);
        }
        met
    }
    fn all(words: &mut &[String], allowed: &BTreeSet<String>) -> bool {
        let mut met = one(words, allowed);
        while words.first().is_some_and(|word| word == "AND") {
            *words = &words[1..];
            met &= one(words, allowed);
        }
        met
    }
    fn one(words: &mut &[String], allowed: &BTreeSet<String>) -> bool {
        let Some((first, rest)) = words.split_first() else { return false };
        *words = rest;
        if first == "(" {
            let met = any(words, allowed);
            *words = words.strip_prefix(&[")".to_owned()]).expect("a closing bracket");
            return met;
        }
        match *words {
            [with, exception, rest @ ..] if with == "WITH" => {
                *words = rest;
                allowed.contains(&format!("{first} WITH {exception}"))
            }
            _ => allowed.contains(first),
        }
    }
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut rest = &words[..];
    let met = any(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression:?} is no SPDX expression");
    met
}

/// What tests/deny.toml allows.
fn allowed() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deny.toml");
    let rules: toml::Table = toml::from_str(&std::fs::read_to_string(path).expect("readable")).expect("TOML");
    let allow = rules["licenses"]["allow"].as_array().expect("a list");
    allow.iter().map(|licence| licence.as_str().expect("a text").to_owned()).collect()
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
    let edge = packages(&["--no-default-features", "--features", "box"]);
    assert!(edge.contains("tract-onnx") && edge.contains("rumqttc"), "the list looks wrong: {edge:?}");
    assert_eq!(training(&edge), Vec::<&String>::new());
    assert!(edge.contains("v4l"), "the box build has no camera: {edge:?}");
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

/// What the packages ship, on either processor.
const BOX: [[&str; 4]; 2] = [
    ["--no-default-features", "--features=box", "--target", "x86_64-unknown-linux-gnu"],
    ["--no-default-features", "--features=box", "--target", "aarch64-unknown-linux-gnu"],
];

#[test]
fn every_crate_of_the_box_has_a_licence_that_is_allowed() {
    let allowed = allowed();
    assert!(can_be_met("MIT/Apache-2.0", &allowed) && can_be_met("(MIT OR GPL-3.0-only) AND ISC", &allowed));
    assert!(!can_be_met("GPL-3.0-only", &allowed) && !can_be_met("MIT AND (GPL-3.0-only OR MPL-2.0)", &allowed));
    for target in BOX {
        let lines = tree("{l} | {p}", &target);
        assert!(lines.len() > 100, "{lines:?}");
        for line in lines {
            let (licence, package) = line.split_once(" | ").expect("both");
            assert!(
                can_be_met(licence, &allowed),
                "{package} is under {licence:?}, which tests/deny.toml does not allow"
            );
        }
    }
}

#[test]
fn the_box_has_one_crypto_library_for_tls_and_all_its_crates_are_of_crates_io() {
    for target in BOX {
        let names = packages(&target);
        for other in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls", "rustls-openssl", "boring-sys", "mbedtls"]
        {
            assert!(!names.contains(other), "the box's build has {other} beside ring");
        }
        let lines = tree("{p}", &target);
        assert_eq!(lines.iter().filter(|line| line.starts_with("ring v")).count(), 1);
        // cargo names the place of what is from elsewhere in brackets.
        let elsewhere =
            |line: &&String| line.contains('(') && !line.ends_with("(proc-macro)") && !line.starts_with("roentgen v");
        assert_eq!(lines.iter().filter(elsewhere).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
