//! The network as data: VGG16's plan, the quantized network with its weights, its file format; and the engine that runs it:
//! [`plan`](mod@plan) says how, [`weights`] is what was packed for it, [`cache`] keeps that in a file, [`engine`] does it.

pub mod cache;
pub mod engine;
pub mod int8;
pub mod onnx;
pub mod outline;
pub mod plan;
pub mod vgg;
pub mod weights;
