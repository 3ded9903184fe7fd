//! The first layer: a 3 × 3 convolution that reads one channel, the image's grey levels. It has so few products a pixel that
//! requantization is most of its work. One file per instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot;
pub mod portable;

use super::{BLOCK, Epilogue};

/// A kernel of the first layer, as a value.
#[derive(Debug, Clone, Copy)]
pub struct First {
    /// What it is.
    pub name: &'static str,
    /// Computes a row.
    pub row: fn(row: FirstRow<'_>),
}

/// Bytes after the bordered image that a kernel may read.
pub const SLACK: usize = 64;

/// Bytes of one block's packed weights.
pub const PACKED_BYTES: usize = 3 * BLOCK * 4;

/// One row of output pixels of one block of output channels.
#[derive(Debug)]
pub struct FirstRow<'a> {
    /// The image: (rows + 2) × (columns + 2) bytes with a border of the zero_point, and [`SLACK`] bytes.
    pub image: &'a [u8],
    /// Which row.
    pub row: usize,
    /// [`PACKED_BYTES`] bytes: kernel row, output channel (32), kernel column (3 and a zero), aligned to 64.
    pub weights: &'a [i8],
    /// Bias and requantization.
    pub epilogue: &'a Epilogue,
    /// The row's pixels, columns × 32 bytes: all are written.
    pub output: &'a mut [u8],
}

/// Packs the weights of up to 32 output channels, 9 of each.
pub fn pack(weights: &[i8], packed: &mut [i8]) {
    packed.fill(0);
    for (o, weights) in weights.chunks_exact(9).enumerate().take(BLOCK) {
        for (tap, &w) in weights.iter().enumerate() {
            packed[(tap / 3 * BLOCK + o) * 4 + tap % 3] = w;
        }
    }
}
