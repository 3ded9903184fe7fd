//! The `onnx` backend: runs the bundle's `model.onnx` on tract.
