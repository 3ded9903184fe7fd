//! Reading and writing the quantized network as ONNX in standard quantized operators.
