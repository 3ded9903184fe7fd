//! The promise: the host tool's keys and signatures are minisign's, both ways; minisign itself is the outside witness.
#![cfg(feature = "host")]

mod support;

use roentgen::bundle::{Bundle, BundleError, Config, Signer, Trust};
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::tiny_bundle;

/// Runs `roentgen-host` with arguments; `{}` in them stands for `dir`.
fn host(dir: &Path, arguments: &str) -> Output {
    let arguments = arguments.split_whitespace().map(|word| word.replace("{}", &dir.display().to_string()));
    Command::new(env!("CARGO_BIN_EXE_roentgen-host")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn done(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(dir: &Path, arguments: &str) -> String {
    let output = host(dir, arguments);
    assert!(!output.status.success(), "{arguments} should fail");
    String::from_utf8(output.stderr).unwrap()
}

/// Runs minisign in `dir`; `None`, said plainly, where it is missing, which CI does not forgive.
fn minisign(dir: &Path, arguments: &[&str]) -> Option<Output> {
    let run = Command::new("minisign").args(arguments).current_dir(dir).stdin(Stdio::null()).output();
    if run.is_err() {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| env::var_os(name).is_some());
        assert!(!required, "minisign is missing: install the package minisign");
        eprintln!("SKIPPED: minisign is missing; install the package minisign to run this test");
    }
    run.ok()
}

fn trust(key: &str) -> Trust {
    Config { trusted_keys: vec![key.to_owned()], allow_unsigned: false }.trust().unwrap()
}

#[test]
fn a_signed_bundle_is_trusted_by_its_key_and_by_minisign() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let bundle = tiny_bundle(dir);
    let said = done(dir, "keygen --no-password --out {}/clinic.key");
    let public = fs::read_to_string(dir.join("clinic.key.pub")).unwrap();
    let key = public.lines().nth(1).unwrap();
    assert!(said.contains(key) && said.contains("trusted_keys"), "{said}");
    let mode = fs::metadata(dir.join("clinic.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let before = Bundle::open(&bundle).unwrap();
    done(dir, "pack --bundle {}/tiny --sign {}/clinic.key --out {}/signed");
    let signed = Bundle::open_trusted(&dir.join("signed"), &trust(key)).unwrap();
    assert_eq!(signed.sha256(), before.sha256(), "the contents stay");
    let comment = format!("tiny 0.0.1 {}", before.sha256());
    assert_eq!(*signed.signer(), Signer::Trusted { key: key.into(), comment });
    assert!(matches!(Bundle::open_trusted(&bundle, &trust(key)), Err(BundleError::Unsigned { .. })));
    done(dir, "pack --bundle {}/tiny --sign {}/clinic.key");
    assert!(Bundle::open_trusted(&bundle, &trust(key)).is_ok(), "in its place");

    let verify = ["-Vm", "signed/bundle.toml", "-x", "signed/bundle.sig", "-P", key];
    let Some(checked) = minisign(dir, &verify) else { return };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    fs::write(dir.join("signed/bundle.toml"), "another").unwrap();
    assert!(!minisign(dir, &verify).unwrap().status.success(), "the witness would notice");
}

#[test]
fn keys_and_signatures_of_minisign_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let bundle = tiny_bundle(dir);
    let Some(made) = minisign(dir, &["-G", "-W", "-p", "their.pub", "-s", "their.key"]) else { return };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let trust = trust(dir.join("their.pub").to_str().unwrap());
    let sign = ["-Sm", "tiny/bundle.toml", "-x", "tiny/bundle.sig", "-s", "their.key", "-t", "by hand"];
    assert!(minisign(dir, &sign).unwrap().status.success());
    let by_hand = Bundle::open_trusted(&bundle, &trust).unwrap();
    assert!(matches!(by_hand.signer(), Signer::Trusted { comment, .. } if comment == "by hand"));
    done(dir, "pack --bundle {}/tiny --sign {}/their.key --out {}/ours");
    assert!(Bundle::open_trusted(&dir.join("ours"), &trust).is_ok());
}

#[test]
fn keys_are_not_overwritten_and_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    tiny_bundle(dir);
    done(dir, "keygen --no-password --out {}/a.key");
    let secret = fs::read(dir.join("a.key")).unwrap();
    assert!(refused(dir, "keygen --no-password --out {}/a.key").contains("not replaced"));
    assert_eq!(fs::read(dir.join("a.key")).unwrap(), secret);
    fs::set_permissions(dir.join("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let pack = "pack --bundle {}/tiny --sign {}/a.key";
    assert!(refused(dir, pack).contains("chmod 600"));
    fs::set_permissions(dir.join("a.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("a.key"), "no key").unwrap();
    assert!(refused(dir, pack).contains("a.key"));
    assert!(!dir.join("tiny/bundle.sig").exists());
}
