//! Direct convolution: a row of output pixels × 32 output channels, summed straight from the window's bytes. One file per
//! instruction set. Not the first layer ([`super::first`]) and not Winograd ([`super::winograd`]).

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dot;
#[cfg(target_arch = "aarch64")]
pub mod neon_i8mm;
pub mod portable;

use super::Epilogue;
use super::plane::Plane;

/// A direct kernel, as a value.
#[derive(Debug, Clone, Copy)]
pub struct Direct {
    /// What it is and its register tile, e.g. `vpdpbusd 14×32`.
    pub name: &'static str,
    /// Bytes of packed weights for one block of output channels that reads so many blocks of input channels with so many
    /// taps (9 or 1).
    pub packed_bytes: fn(blocks: usize, taps: usize) -> usize,
    /// Packs one block's [filters](pack_filters) in the order the kernel reads them.
    pub pack: fn(filters: &[i8], taps: usize, packed: &mut [i8]),
    /// Computes a row.
    pub row: fn(row: Row<'_>),
}

/// One row of output pixels of one block of output channels.
#[derive(Debug)]
pub struct Row<'a> {
    /// The whole input plane with its slack.
    pub input: &'a [u8],
    /// Its shape.
    pub plane: Plane,
    /// Which row.
    pub row: usize,
    /// Rows and columns of the kernel: 3 or 1.
    pub kernel: usize,
    /// The block's weights as [`Direct::pack`] packed them, aligned to 64 bytes.
    pub weights: &'a [i8],
    /// Bias and requantization.
    pub epilogue: &'a Epilogue,
    /// The row's pixels, columns × 32 bytes: all are written.
    pub output: &'a mut [u8],
}

/// The filters of one block of output channels in the order that kernels are packed from: input channel (a multiple of 32,
/// zeros where the layer has fewer), tap, output channel (32, zeros likewise). `weights` are those of up to 32 output
/// channels, each taps × `in_channels`, the input channel fastest.
pub fn pack_filters(weights: &[i8], in_channels: usize, taps: usize) -> Vec<i8> {
    let blocks = in_channels.div_ceil(super::BLOCK);
    let mut filters = vec![0; blocks * super::BLOCK * taps * super::BLOCK];
    for (o, weights) in weights.chunks_exact((taps * in_channels).max(1)).enumerate().take(super::BLOCK) {
        for (tap, weights) in weights.chunks_exact(in_channels).enumerate() {
            for (c, &w) in weights.iter().enumerate() {
                filters[(c * taps + tap) * super::BLOCK + o] = w;
            }
        }
    }
    filters
}

/// The maxima of 2 × 2 cells of two rows of one block (32 bytes a pixel); an odd last column is dropped.
pub fn pool_rows(top: &[u8], bottom: &[u8], pooled: &mut [u8]) {
    use super::BLOCK;
    let cells = top.chunks_exact(2 * BLOCK).zip(bottom.chunks_exact(2 * BLOCK));
    for ((top, bottom), pooled) in cells.zip(pooled.chunks_exact_mut(BLOCK)) {
        for (c, pooled) in pooled.iter_mut().enumerate() {
            *pooled = top[c].max(top[c + BLOCK]).max(bottom[c].max(bottom[c + BLOCK]));
        }
    }
}
