//! The network as data: VGG16's plan, the quantized network with its weights, its file format, and the file of packed
//! weights.

pub mod cache;
pub mod int8;
pub mod onnx;
pub mod vgg;
