//! Fuzz target: `model.onnx` of a bundle. The hashes of a signed manifest stand before it on a box; unsigned bundles that
//! are tried out have nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roentgen::network::onnx;

fuzz_target!(|bytes: &[u8]| {
    let _ = onnx::read(bytes);
});
