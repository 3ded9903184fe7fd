//! The integer operations of a quantized network.

pub mod reference;
