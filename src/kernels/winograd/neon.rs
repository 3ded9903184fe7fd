//! F(4 × 4, 3 × 3) in plain NEON (ARMv8.0). SMLAL makes four products an instruction, each worth four of a direct
//! convolution: 16, as many as the dot products that these processors lack, and three times what they have. The mathematics
//! stands in [`super`]; the multiplication in [`multiply`].
//!
//! Eight channels are transformed at a time: one register of i16, two of i32. U lies in memory as
//! point, half a block of output channels, input channel, output channel (16), so that the multiplication reads it in order.
#![allow(unsafe_code)] // Loads and stores.

mod multiply;

use super::{InputTiles, OutputTiles, Winograd};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, opaque_i16, opaque_i32};
use core::arch::aarch64::*;

/// Six tiles × 16 channels.
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) smlal 6×16",
    tile: 4,
    // SAFETY: `available` hands it out after the detection of NEON only.
    weights: |filters, u| unsafe { weights(filters, u) },
    // SAFETY: `available` hands it out after the detection of NEON only.
    input: |tiles| unsafe { input(tiles) },
    multiply: multiply::multiply,
    fly: None,
    // SAFETY: `available` hands it out after the detection of NEON only.
    output: |tiles| unsafe { output(tiles) },
};

/// Rows and columns of a tile of inputs.
const A: usize = 6;
/// Rows and columns of a tile of outputs.
const M: usize = 4;
/// Points of a transformed tile.
const POINTS: usize = A * A;
/// Output channels that the multiplication does at a time.
const HALF: usize = BLOCK / 2;

#[target_feature(enable = "neon")]
fn weights(filters: &[i8], u: &mut [i16]) {
    let channels = filters.len() / (9 * BLOCK);
    let u = &mut u[..POINTS * channels * BLOCK];
    for (c, filters) in filters.chunks_exact(9 * BLOCK).enumerate() {
        for o in (0..BLOCK).step_by(8) {
            let first = (o / HALF * channels + c) * HALF + o % HALF;
            let tap = |tap: usize| {
                // SAFETY: a chunk has nine taps of 32 weights, of which these are eight.
                vmovl_s8(unsafe { vld1_s8(filters.as_ptr().add(tap * BLOCK + o)) })
            };
            let half: [[int16x8_t; A]; 3] = std::array::from_fn(|x| filter([tap(x), tap(3 + x), tap(6 + x)]));
            for y in 0..A {
                let row = filter(half.map(|column| column[y]));
                for (x, row) in row.into_iter().enumerate() {
                    let at = first + (y * A + x) * channels * BLOCK;
                    // SAFETY: the greatest `at` is that of the last point, half, channel and eight: `u.len() - 8`.
                    unsafe { vst1q_s16(u.as_mut_ptr().add(at), row) };
                }
            }
        }
    }
}

/// G times three numbers.
#[inline]
#[target_feature(enable = "neon")]
fn filter([g0, g1, g2]: [int16x8_t; 3]) -> [int16x8_t; A] {
    let minus_four = opaque_i16(-4);
    let outer = vaddq_s16(g0, g2);
    let far = vmlaq_s16(g0, g2, opaque_i16(4));
    let twice = vaddq_s16(g1, g1);
    [
        vmulq_n_s16(g0, 6),
        vmulq_s16(vaddq_s16(outer, g1), minus_four),
        vmulq_s16(vsubq_s16(outer, g1), minus_four),
        vaddq_s16(far, twice),
        vsubq_s16(far, twice),
        g2,
    ]
}

#[target_feature(enable = "neon")]
fn input(tiles: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = tiles;
    let tile_columns = plane.columns.div_ceil(M);
    let count = tile_rows.len() * tile_columns;
    let row_bytes = plane.row_bytes();
    let v = &mut v[..POINTS * count * BLOCK];
    for tile in 0..count {
        let (row, column) = ((tile_rows.start + tile / tile_columns) * M, tile % tile_columns * M);
        let at = plane.window(block, row, 3) + column * BLOCK;
        let window = &input[at..at + (A - 1) * row_bytes + A * BLOCK];
        for c in (0..BLOCK).step_by(8) {
            let pixel = |y: usize, x: usize| {
                // SAFETY: eight channels from `c` (at most 24) of a pixel of the window, which has been sliced.
                unsafe { vld1_u8(window.as_ptr().add(y * row_bytes + x * BLOCK + c)) }
            };
            let half: [[int16x8_t; A]; A] = std::array::from_fn(|x| columns(std::array::from_fn(|y| pixel(y, x))));
            let across = |y: usize| std::array::from_fn(|x| half[x][y]);
            for y in 0..A {
                let row = rows(across(y));
                for (x, row) in row.into_iter().enumerate() {
                    let at = ((y * A + x) * count + tile) * BLOCK + c;
                    // SAFETY: point, tile and channel are below those of `v`, which has been sliced.
                    unsafe { vst1q_s16(v.as_mut_ptr().add(at), row) };
                }
            }
        }
    }
}

/// Bᵀ times six bytes.
#[inline]
#[target_feature(enable = "neon")]
fn columns(d: [uint8x8_t; A]) -> [int16x8_t; A] {
    let four = vdup_n_u8(4);
    let signed = vreinterpretq_s16_u16;
    let less = |a: usize, b: usize| signed(vsubl_u8(d[a], d[b]));
    let even = signed(vmlsl_u8(vmovl_u8(d[4]), d[2], four));
    let odd = signed(vmlsl_u8(vmovl_u8(d[3]), d[1], four));
    combine(even, odd, less(4, 2), less(3, 1), less(0, 2), less(5, 3))
}

/// Bᵀ times six numbers.
#[inline]
#[target_feature(enable = "neon")]
fn rows(d: [int16x8_t; A]) -> [int16x8_t; A] {
    let four = opaque_i16(4);
    let less = |a: usize, b: usize| vsubq_s16(d[a], d[b]);
    let (even, odd) = (vmlsq_s16(d[4], d[2], four), vmlsq_s16(d[3], d[1], four));
    combine(even, odd, less(4, 2), less(3, 1), less(0, 2), less(5, 3))
}

/// Bᵀ d from `even` = d4 − 4 d2, `odd` = d3 − 4 d1 and the differences d4 − d2, d3 − d1, d0 − d2, d5 − d3.
#[inline]
#[target_feature(enable = "neon")]
fn combine(
    even: int16x8_t,
    odd: int16x8_t,
    d42: int16x8_t,
    d31: int16x8_t,
    d02: int16x8_t,
    d53: int16x8_t,
) -> [int16x8_t; A] {
    let four = opaque_i16(4);
    let twice = vaddq_s16(d31, d31);
    [
        vmlaq_s16(d42, d02, four),
        vaddq_s16(even, odd),
        vsubq_s16(even, odd),
        vaddq_s16(d42, twice),
        vsubq_s16(d42, twice),
        vmlsq_s16(d53, d31, four),
    ]
}

#[target_feature(enable = "neon")]
fn output(tiles: OutputTiles<'_>) {
    match tiles.pool {
        false => output_tiles::<1>(tiles),
        true => output_tiles::<2>(tiles),
    }
}

/// `STEP` is 2 where 2 × 2 cells are pooled, else 1.
#[target_feature(enable = "neon")]
fn output_tiles<const STEP: usize>(tiles: OutputTiles<'_>) {
    let OutputTiles { m, rows, columns, epilogue, pool: _, output, row_bytes } = tiles;
    let tile_columns = columns.div_ceil(M);
    let count = rows.div_ceil(M) * tile_columns;
    let m = &m[..POINTS * count * BLOCK];
    let requantizers: [_; BLOCK / 8] = std::array::from_fn(|eight| Requantizer::<2>::new(epilogue, 8 * eight));
    // M A of a tile by column and row, eight channels of each; in memory, since registers are too few.
    let mut half = [[[vdupq_n_s32(0); 2]; A]; M];
    for tile in 0..count {
        let (row, column) = (tile / tile_columns * M, tile % tile_columns * M);
        // Cells of this tile that lie wholly within the outputs.
        let (down, across) = ((rows - row).min(M) / STEP, (columns - column).min(M) / STEP);
        if down == 0 || across == 0 {
            continue;
        }
        let at = row / STEP * row_bytes + column / STEP * BLOCK;
        let output = &mut output[at..at + (down - 1) * row_bytes + across * BLOCK];
        for (eight, requantizer) in requantizers.iter().enumerate() {
            for y in 0..A {
                let points = |four: usize| {
                    std::array::from_fn(|x| {
                        let at = ((y * A + x) * count + tile) * BLOCK + 8 * eight + 4 * four;
                        // SAFETY: `m` has been sliced for all points of `count` tiles.
                        unsafe { vld1q_s32(m.as_ptr().add(at)) }
                    })
                };
                let (low, high) = (back(points(0)), back(points(1)));
                for (x, column) in half.iter_mut().enumerate() {
                    column[y] = [low[x], high[x]];
                }
            }
            for x in 0..across {
                let cells = Cells { output: &mut output[x * BLOCK + 8 * eight..], down, row_bytes };
                match STEP {
                    1 => cells.store(column_of_sums(&half[x]), requantizer),
                    _ => cells.store(pooled(&half[2 * x], &half[2 * x + 1]), requantizer),
                }
            }
        }
    }
}

/// Where eight channels of a column of outputs go.
struct Cells<'a> {
    /// From the first one's first channel.
    output: &'a mut [u8],
    /// How many are within the image.
    down: usize,
    row_bytes: usize,
}

impl Cells<'_> {
    /// Requantizes and stores; `sums` are 64 times the sums.
    #[target_feature(enable = "neon")]
    #[inline]
    fn store<const N: usize>(self, sums: [[int32x4_t; 2]; N], requantizer: &Requantizer<2>) {
        let output = &mut self.output[..(self.down - 1) * self.row_bytes + 8];
        for (y, sums) in sums.into_iter().enumerate() {
            if y < self.down {
                let [low, high] = requantizer.bias;
                let bytes = requantizer.bytes([vsraq_n_s32::<6>(low, sums[0]), vsraq_n_s32::<6>(high, sums[1])]);
                // SAFETY: the last of `down` cells' eight channels end where `output` does.
                unsafe { vst1_u8(output.as_mut_ptr().add(y * self.row_bytes), bytes) };
            }
        }
    }
}

/// The greatest sums of the 2 × 2 cells of two columns: requantization keeps the order, so their bytes are the greatest.
#[target_feature(enable = "neon")]
#[inline]
fn pooled(left: &[[int32x4_t; 2]; A], right: &[[int32x4_t; 2]; A]) -> [[int32x4_t; 2]; M / 2] {
    let (left, right) = (column_of_sums(left), column_of_sums(right));
    let across: [[int32x4_t; 2]; M] =
        std::array::from_fn(|y| std::array::from_fn(|i| vmaxq_s32(left[y][i], right[y][i])));
    std::array::from_fn(|y| std::array::from_fn(|i| vmaxq_s32(across[2 * y][i], across[2 * y + 1][i])))
}

/// 64 times the sums of eight channels of a column of outputs: Aᵀ times the column of M A, times the inverse of 9.
#[target_feature(enable = "neon")]
#[inline]
fn column_of_sums(half: &[[int32x4_t; 2]; A]) -> [[int32x4_t; 2]; M] {
    let inverse = vdupq_n_s32(super::F4.inverse);
    let (low, high) = (back(half.map(|half| half[0])), back(half.map(|half| half[1])));
    std::array::from_fn(|y| [vmulq_s32(low[y], inverse), vmulq_s32(high[y], inverse)])
}

/// Aᵀ times six numbers.
#[inline]
#[target_feature(enable = "neon")]
fn back(m: [int32x4_t; A]) -> [int32x4_t; M] {
    let four = opaque_i32(4);
    let (sum12, less12) = (vaddq_s32(m[1], m[2]), vsubq_s32(m[1], m[2]));
    let (sum34, less34) = (vaddq_s32(m[3], m[4]), vsubq_s32(m[3], m[4]));
    let twice = vaddq_s32(less34, less34);
    [
        vaddq_s32(vaddq_s32(m[0], sum12), sum34),
        vaddq_s32(less12, twice),
        vmlaq_s32(sum12, sum34, four),
        vmlaq_s32(vmlaq_s32(less12, twice, four), m[5], opaque_i32(24)),
    ]
}
