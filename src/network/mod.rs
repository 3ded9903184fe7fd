//! The network as data: VGG16's plan, the quantized network with its weights, and its file format.

pub mod int8;
pub mod onnx;
pub mod vgg;
