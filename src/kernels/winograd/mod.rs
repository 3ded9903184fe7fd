//! Winograd convolution, exact to the last bit in integers that wrap around at 32 bits. The mathematics stands here, with
//! the shapes that the kernels share; one file per instruction set computes it. Not for 1 × 1 kernels.
//!
//! # The algorithm
//!
//! After Winograd, and Lavin & Gray 2015 (arXiv:1509.09308): m × m outputs `y` of a 3 × 3 convolution are computed from
//! their α × α inputs `d`, α = m + 2, with α² products instead of 9 m² (F(4 × 4, 3 × 3): 36 instead of 144):
//!
//! ```text
//! V = Bᵀ d B          a tile of inputs, transformed; a channel at a time
//! U = G g Gᵀ          a filter, transformed; once, at load
//! M = Σ U ⊙ V         over input channels: α² matrix products, tiles × channels × output channels
//! y = Aᵀ M A          back to outputs
//! ```
//!
//! # Why it can be exact
//!
//! `B` and `A` are integers, `G` has fractions (of 24 for m = 4, of 2 for m = 2). Multiply row i of `G` by the least
//! convenient integer that clears its fractions, and column i of `Aᵀ` by what is missing to one common factor f: then U, V
//! and M are integers, and `y` comes out multiplied by f², 576 = 9·2⁶ for m = 4 and 4 = 2² for m = 2. Everything is a sum
//! of products of integers, so it holds modulo 2³²: no matter how often M or y's sums wrapped around, what is in the
//! register is f² × the true sum modulo 2³². The odd factor 9 has an inverse modulo 2³², 954437177; multiplying by it
//! leaves 2⁶ × sum modulo 2³². If |sum| < 2²⁵ that product is the register's value as a signed number, and an arithmetic
//! shift by 6 gives the sum itself. (For m = 2: |sum| < 2²⁹ and a shift by 2.)
//!
//! The operands fit 16 bits: |V| ≤ 100·255 = 25500 for any bytes (the absolute sums of `Bᵀ`'s rows are 10 at most), and the
//! rows of `G` are chosen so that theirs are 12 at most: |U| ≤ 144·128 = 18432 for any weights, −128 included. Products of
//! two of them, added in pairs, fit 32 bits.
//!
//! The condition |sum| < 2²⁵ is about the raw sum Σ x·w with x in 0..=255, which lies between 255·Σw⁻ and 255·Σw⁺ for
//! every input: [`Winograd::is_exact_for`] proves it from the weights. A layer that fails uses another kernel.
//!
//! Since the identity holds whatever the inputs, a tile may reach beyond the image into any memory: only outputs beyond
//! the image depend on it, and they are not stored.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

use super::plane::Plane;
use super::{BLOCK, Epilogue};
use std::ops::Range;

/// A Winograd kernel, as a value.
#[derive(Debug, Clone, Copy)]
pub struct Winograd {
    /// What it is, e.g. `F(4×4,3×3) vpdpwssd`.
    pub name: &'static str,
    /// m: rows and columns of a tile of outputs.
    pub tile: usize,
    /// Transforms one block of output channels' [filters](super::direct::pack_filters) into U, in the order that `multiply`
    /// reads: [`Winograd::weight_count`] numbers.
    pub weights: fn(filters: &[i8], u: &mut [i16]),
    /// Transforms tiles of one block of input channels.
    pub input: fn(tiles: InputTiles<'_>),
    /// Sums U ⊙ V over all input channels.
    pub multiply: fn(multiply: Multiply<'_>),
    /// `weights` and `multiply` in one, where a kernel does that better: call [`Winograd::multiply_filters`].
    pub fly: Option<Fly>,
    /// Transforms back, requantizes, pools, stores.
    pub output: fn(tiles: OutputTiles<'_>),
}

/// Tiles of one block of input channels, to be transformed.
#[derive(Debug)]
pub struct InputTiles<'a> {
    /// The whole input plane with its slack.
    pub input: &'a [u8],
    /// Its shape.
    pub plane: Plane,
    /// Which block of input channels.
    pub block: usize,
    /// Which rows of tiles.
    pub tile_rows: Range<usize>,
    /// V of this block: point (α²), tile (row by row), channel (32); aligned to 64 bytes.
    pub v: &'a mut [i16],
}

/// Products of some tiles with one block of output channels.
#[derive(Debug)]
pub struct Multiply<'a> {
    /// V: block of input channels, point, tile, channel; aligned to 64 bytes.
    pub v: &'a [i16],
    /// Blocks of input channels.
    pub blocks: usize,
    /// Tiles that `v` holds.
    pub tiles: usize,
    /// Which of them.
    pub range: Range<usize>,
    /// U of the block of output channels; aligned to 64 bytes.
    pub u: &'a [i16],
    /// M, α² sums × 32 output channels for each tile of `range`, in the kernel's own order: all are written; aligned to 64
    /// bytes.
    pub m: &'a mut [i32],
}

/// Rows of tiles of one block of output channels, to be transformed back and stored.
#[derive(Debug)]
pub struct OutputTiles<'a> {
    /// M as [`Multiply`] wrote it: whole rows of tiles.
    pub m: &'a [i32],
    /// Rows of outputs before pooling: those of the last row of tiles may be fewer than m.
    pub rows: usize,
    /// Columns of outputs before pooling.
    pub columns: usize,
    /// Bias and requantization.
    pub epilogue: &'a Epilogue,
    /// Whether to store the maxima of 2 × 2 cells; an odd last row or column is dropped.
    pub pool: bool,
    /// From the first pixel of the first row (32 bytes a pixel).
    pub output: &'a mut [u8],
    /// Bytes from a row of the output to the next.
    pub row_bytes: usize,
}

/// The products of [`Multiply`], from filters.
#[derive(Debug)]
pub struct FlyMultiply<'a> {
    /// As in [`Multiply`].
    pub v: &'a [i16],
    /// Blocks of input channels.
    pub blocks: usize,
    /// Tiles that `v` holds.
    pub tiles: usize,
    /// Which of them.
    pub range: Range<usize>,
    /// The block's [filters](super::direct::pack_filters).
    pub filters: &'a [i8],
    /// At least [`Winograd::scratch_count`] numbers, of any value; aligned to 64 bytes.
    pub scratch: &'a mut [i16],
    /// As in [`Multiply`].
    pub m: &'a mut [i32],
}

/// Multiplication with U made on the fly, a part of the points at a time, so that U never leaves the cache.
#[derive(Debug, Clone, Copy)]
pub struct Fly {
    /// Numbers of scratch for so many blocks of input channels.
    pub scratch_count: fn(blocks: usize) -> usize,
    /// Makes U and sums U ⊙ V over all input channels.
    pub multiply: fn(fly: FlyMultiply<'_>),
}

impl Winograd {
    /// α²: the points of a transformed tile.
    pub fn points(&self) -> usize {
        (self.tile + 2) * (self.tile + 2)
    }

    /// Rows and columns of tiles that cover so many rows and columns of outputs.
    pub fn tiles(&self, rows: usize, columns: usize) -> (usize, usize) {
        (rows.div_ceil(self.tile), columns.div_ceil(self.tile))
    }

    /// Numbers in U of one block of output channels that reads so many blocks of input channels.
    pub fn weight_count(&self, blocks: usize) -> usize {
        self.points() * blocks * BLOCK * BLOCK
    }

    /// Numbers of scratch that [`Winograd::multiply_filters`] wants.
    pub fn scratch_count(&self, blocks: usize) -> usize {
        self.fly.map_or(self.weight_count(blocks), |fly| (fly.scratch_count)(blocks))
    }

    /// Sums U ⊙ V, with U made from the block's filters in scratch instead of read.
    pub fn multiply_filters(&self, fly: FlyMultiply<'_>) {
        if let Some(kernel) = self.fly {
            return (kernel.multiply)(fly);
        }
        let FlyMultiply { v, blocks, tiles, range, filters, scratch, m } = fly;
        let u = &mut scratch[..self.weight_count(blocks)];
        (self.weights)(filters, u);
        (self.multiply)(Multiply { v, blocks, tiles, range, u, m });
    }

    /// Whether the result is exact for one output channel with these weights, whatever the input: the derivation stands
    /// above.
    pub fn is_exact_for(&self, weights: &[i8]) -> bool {
        let sum = |sign: i64| weights.iter().map(|&w| (sign * i64::from(w)).max(0)).sum::<i64>();
        self.is_exact_up_to(sum(1).max(sum(-1)))
    }

    /// The same for all output channels of which neither the sum of the positive weights nor that of the negative ones
    /// without their sign is more than `greatest_sum`.
    pub fn is_exact_up_to(&self, greatest_sum: i64) -> bool {
        // 2²⁵ for m = 4, where 576 = 9·2⁶; 2²⁹ for m = 2, where the factor is 4.
        let limit = if self.tile == 4 { 1 << 25 } else { 1 << 29 };
        255 * greatest_sum < limit
    }
}

/// The matrices of one tile size, scaled to integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrices<const M: usize, const A: usize> {
    /// Bᵀ.
    pub(crate) input: [[i32; A]; A],
    /// G, its rows scaled.
    pub(crate) weights: [[i32; 3]; A],
    /// Aᵀ, its columns scaled.
    pub(crate) output: [[i32; A]; M],
    /// The inverse modulo 2³² of f²'s odd part.
    pub(crate) inverse: i32,
    /// f²'s power of two.
    pub(crate) shift: u32,
}

/// F(4 × 4, 3 × 3), interpolated at 0, ±1, ±2 and ∞. G's rows are scaled by 24 but for the last, so that only the last
/// column of Aᵀ carries a factor. 576 = 9 · 2⁶.
pub(crate) const F4: Matrices<4, 6> = Matrices {
    input: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    weights: [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 1]],
    output: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 24]],
    inverse: 954_437_177,
    shift: 6,
};

/// F(2 × 2, 3 × 3), interpolated at 0, ±1 and ∞. G's middle rows are scaled by 2, the outer columns of Aᵀ make up for it.
pub(crate) const F2: Matrices<2, 4> = Matrices {
    input: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    weights: [[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]],
    output: [[2, 1, 1, 0], [0, 1, -1, -2]],
    inverse: 1,
    shift: 2,
};
