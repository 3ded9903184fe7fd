//! Fuzz target: a bundle's folder, of which a stranger wrote manifest and signature. The input is both, with a zero byte in
//! between. Nothing but the real maker's signature may open it as a signed one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roentgen::bundle::{Bundle, Config, Trust};
use std::fs;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let (manifest, signature) = match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    };
    let Ok(root) = tempfile::tempdir() else { return };
    let dir = root.path();
    fs::write(dir.join("bundle.toml"), manifest).expect("a scratch folder");
    fs::write(dir.join("model.onnx"), b"none").expect("a scratch folder");
    if let Some(signature) = signature {
        fs::write(dir.join("bundle.sig"), signature).expect("a scratch folder");
    }
    let _ = Bundle::open(dir);
    let trust: Trust = Config::default().trust().expect("the built-in key");
    if let Ok(bundle) = Bundle::open_trusted(dir, &trust) {
        // The one manifest that Roentgen's key has signed.
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cxr-vgg16/bundle.toml");
        assert_eq!(bundle.signed_bytes(), fs::read(real).expect("the checkout"), "a forged bundle was trusted");
    }
});
