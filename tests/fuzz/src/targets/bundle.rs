//! Fuzz target: a bundle's folder, of which a stranger wrote manifest and signature. The input is both, with a zero byte in
//! between. Nothing but the real maker's signature may open it as a signed one.

use roentgen::bundle::{Bundle, Config, Trust};
use std::fs;

/// Opens the folder.
pub(crate) fn run(bytes: &[u8]) {
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
        let real = include_bytes!("../../../../models/cxr-vgg16/bundle.toml");
        assert_eq!(bundle.signed_bytes(), real, "a forged bundle was trusted");
    }
}
