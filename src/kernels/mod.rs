//! The integer operations of a quantized network: their definition ([`reference`](mod@reference)), and the kernels that
//! compute the same, bit for bit, as fast as a processor can. Not the order of layers, nor memory or threads: those are
//! [`crate::network`].
//!
//! # What a kernel sees
//!
//! Activations are bytes in a [`plane`]: blocks of 32 channels, each a small image of its own with a border of one pixel,
//! so that a 3 × 3 window never leaves the memory and no layer needs im2col or an indirection table.
//!
//! ```text
//!           columns + 2                    one pixel of a block: 32 bytes, one a channel
//!        ┌───────────────┐                 ┌──┬──┬──┬──┬ … ┬──┐
//!        │ z z z z z z z │ ┐               │c0│c1│c2│c3│   │31│
//!        │ z ■ ■ ■ ■ ■ z │ │               └──┴──┴──┴──┴ … ┴──┘
//!        │ z ■ ■ ■ ■ ■ z │ │ rows + 2      z: the border, filled with the plane's zero_point
//!        │ z ■ ■ ■ ■ ■ z │ │
//!        │ z z z z z z z │ ┘               then the next block, and after the last one some slack that
//!        └───────────────┘                 kernels may read, whatever it holds
//! ```
//!
//! A zero_point other than 0 costs a kernel nothing: `Σ (x − z)·w = Σ x·w − z·Σw`, so the second term goes into the bias
//! ([`Epilogue`]), and the border holds `z`. Sums wrap around at 32 bits, which leaves the final value right, since
//! [`crate::network::int8::Network::check`] proves that the true sum fits.
//!
//! # The families
//!
//! - [`direct`]: a row of output pixels × 32 output channels at a time, straight from the window's bytes.
//! - [`winograd`]: exact Winograd convolution in wrapping integers: a quarter of a direct convolution's multiplications, but
//!   of i16 instead of bytes.
//! - [`first`]: the first layer, which reads one channel.
//!
//! Each has one file (or folder) per instruction set, with the same names in each, and a portable one. [`Kernels`] holds
//! those of an instruction set as values, with the [`ceiling`] of its multiplications; [`available`] is the only way to
//! them, and hands out those only that this processor runs.
//!
//! # Where to begin
//!
//! With [`mod@reference`], which says what is computed, then `direct/avx512vnni.rs`, which has the picture of a register
//! tile and of packed weights that all others vary, then [`winograd`], whose page has the mathematics. Beside the families:
//!
//! - `table.rs`: the table of instruction sets, and their detection; nothing else asks what the processor is.
//! - [`plane`]: the layout above, as a type. [`aligned`]: memory for it and for weights.
//! - [`Epilogue`]: what follows every sum, bias and requantization; its vector forms are in `epilogue/`, NEON's in `neon.rs`.
//! - `avx2.rs`, `neon.rs`: loads, stores and sums that the families share on one instruction set; no kernels.
//! - `conformance.rs`: the tests that compare every kernel with the definition.

pub mod aligned;
#[cfg(target_arch = "x86_64")]
mod avx2;
pub mod ceiling;
#[cfg(test)]
mod conformance;
pub mod direct;
mod epilogue;
pub mod first;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod plane;
pub mod reference;
mod table;
pub mod winograd;

pub use aligned::Aligned;
pub use epilogue::Epilogue;
pub use table::{Kernels, available, named};

/// Channels of a block: what all planes are divided in, and what every kernel writes at a time. 32 bytes a pixel: half a
/// cache line, one AVX2 register, two NEON registers; as i16 or two of i32 it is what AVX-512 holds.
pub const BLOCK: usize = 32;
