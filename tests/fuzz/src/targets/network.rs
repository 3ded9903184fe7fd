//! Fuzz target: `model.onnx` of a bundle. The hashes of a signed manifest stand before it on a box; unsigned bundles that
//! are tried out have nothing.

use roentgen::network::onnx;

/// Reads the network, writes it, and reads it again.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(network) = onnx::read(bytes) else { return };
    let again = onnx::read(&onnx::write(&network)).expect("what was read can be written");
    assert_eq!(again, network);
}
