//! Reading and writing the quantized network as ONNX, in standard operators only: `QLinearConv` (u8 activations, i8
//! weights with a scale per output channel, i32 biases) and `MaxPool`. No private format: the file opens in Netron, and
//! ONNX Runtime and tract run it. Not a general ONNX reader: what is not such a network is refused, by the node's name.
//!
//! ```text
//! image u8 [1,1,s,s] ─▶ QLinearConv block1_conv1 ─▶ … ─▶ MaxPool pool5 ─▶ features u8 [1,512,s/32,s/32]
//!                                                              └─▶ QLinearConv head ─▶ evidence u8 [1,4,s/32,s/32]
//! ```
//!
//! QLinearConv rather than QuantizeLinear/DequantizeLinear pairs: it says in integers what is to be computed, and tract
//! 0.23 computes it right, which it does not for the pairs. Operator set 13, since `MaxPool` reads u8 from 12 on.

mod limits;
mod pieces;
pub mod proto;
mod read;
mod write;

pub use pieces::Pieces;
pub use read::{MAX_BYTES, Model, OnnxError, read};
pub use write::write;

/// The name of the graph's input: the image's bytes, u8, NCHW.
pub const INPUT: &str = "image";
/// The name of the output that is the evidence map, u8, NCHW.
pub const EVIDENCE: &str = "evidence";
/// The name of the output that is the last feature map, u8, NCHW.
pub const FEATURES: &str = "features";
/// The version of ONNX's default operator set that is written, and the least that is read is [`MIN_OPSET`].
pub const OPSET: i64 = 13;
/// The least version of the operator set that is read: the first whose `MaxPool` takes u8.
pub const MIN_OPSET: i64 = 12;

#[cfg(test)]
mod tests;
