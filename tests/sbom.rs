//! The promise: the software bill of materials that the packages carry lists what the box's program is made of, all of it and
//! nothing else, in the form that CycloneDX 1.5 prescribes. CycloneDX's own schema is the witness (PyPI, in Python).

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn bill(out: &Path, arguments: &[&str]) -> Value {
    let mut program = Command::new(Path::new(ROOT).join("cross/sbom"));
    let said = program.arg(out).args(arguments).env("CARGO", env!("CARGO")).env_remove("SOURCE_DATE_EPOCH").output();
    let said = said.expect("python3");
    assert!(said.status.success(), "cross/sbom: {}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap()
}

/// Names and versions as `cargo tree` tells them.
fn crates(target: &str) -> BTreeSet<(String, String)> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--locked",
        "--no-default-features",
        "--features=box",
        "--prefix",
        "none",
        "--edges",
        "normal,build",
        "--target",
    ]);
    let said = cargo.arg(target).current_dir(ROOT).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).unwrap();
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    };
    text.lines().filter_map(pair).filter(|(name, _)| name != "roentgen").collect()
}

#[test]
fn the_bill_lists_what_the_box_is_made_of() {
    let folder = tempfile::tempdir().unwrap();
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        let bill = bill(&folder.path().join("bill.json"), &["--target", target]);
        assert_eq!(bill["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
        let components = bill["components"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (ours, others): (Vec<_>, Vec<_>) =
            components.iter().partition(|one| text(&one["purl"]).starts_with("pkg:cargo/"));
        let listed: BTreeSet<_> = ours.iter().map(|one| (text(&one["name"]), text(&one["version"]))).collect();
        assert_eq!(listed, crates(target), "{target}");
        for one in &ours {
            assert_eq!(text(&one["hashes"][0]["content"]).len(), 64, "{one}");
            assert!(one["licenses"][0]["expression"].is_string(), "{one}");
        }
        // Linked into the program, or only of help in making it.
        let scope = |name: &str| text(&ours.iter().find(|one| one["name"] == name).expect(name)["scope"]);
        assert_eq!((scope("rustls").as_str(), scope("cc").as_str()), ("required", "excluded"));
        assert_eq!((scope("serde").as_str(), scope("serde_derive").as_str()), ("required", "excluded"));
        let others: BTreeSet<_> = others.iter().map(|one| text(&one["name"])).collect();
        assert_eq!(others, BTreeSet::from(["cxr-vgg16", "rust-std", "sqlite"].map(str::to_owned)));
        // Every dependency is one of the components.
        let known: BTreeSet<_> = components.iter().map(|one| text(&one["bom-ref"])).collect();
        for dependency in bill["dependencies"].as_array().unwrap() {
            for reference in dependency["dependsOn"].as_array().unwrap() {
                assert!(known.contains(reference.as_str().unwrap()), "{reference}");
            }
        }
    }
}

#[test]
fn the_same_checkout_gives_the_same_bill() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["a", "b"].map(|name| bill(&folder.path().join(name), &[]));
    assert_eq!(made[0], made[1]);
    assert!(made[0]["serialNumber"].as_str().unwrap().starts_with("urn:uuid:"));
}

#[test]
fn the_bill_fits_the_schema_of_cyclonedx() {
    let in_tree = Path::new(ROOT).join(".cache/venv/bin/python");
    let python = std::env::var_os("ROENTGEN_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| if in_tree.exists() { in_tree } else { "python3".into() });
    let script = Path::new(ROOT).join("tests/witness/sbom.py");
    if !Command::new(&python).arg(&script).output().is_ok_and(|said| said.status.success()) {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "{} cannot import cyclonedx-python-lib's validator", python.display());
        return eprintln!("SKIPPED: {} cannot import cyclonedx-python-lib's validator", python.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bill.json");
    let mut bill = bill(&path, &[]);
    let fits = || Command::new(&python).arg(&script).arg(&path).output().unwrap();
    let said = fits();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    // The witness would say so.
    bill["components"][0]["surplus"] = "1".into();
    std::fs::write(&path, bill.to_string()).unwrap();
    assert!(!fits().status.success());
}
