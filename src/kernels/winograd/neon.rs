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
            let tap = |tap: usize| {
                // SAFETY: a chunk has nine taps of 32 weights, of which these are eight.
                vmovl_s8(unsafe { vld1_s8(filters.as_ptr().add(tap * BLOCK + o)) })
            };
            let half: [[int16x8_t; A]; 3] = std::array::from_fn(|x| filter([tap(x), tap(3 + x), tap(6 + x)]));
            for y in 0..A {
                let row = filter([half[0][y], half[1][y], half[2][y]]);
                for (x, row) in row.into_iter().enumerate() {
                    let at = (((y * A + x) * 2 + o / HALF) * channels + c) * HALF + o % HALF;
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
            for y in 0..A {
                let row = rows(half.map(|column| column[y]));
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
    for c in (0..BLOCK).step_by(8) {
        let requantizer = Requantizer::<2>::new(epilogue, c);
        for tile in 0..count {
            let (row, column) = (tile / tile_columns * M, tile % tile_columns * M);
            // Cells of this tile that lie wholly within the outputs.
            let (down, across) = ((rows - row).min(M) / STEP, (columns - column).min(M) / STEP);
            if down == 0 || across == 0 {
                continue;
            }
            let at = row / STEP * row_bytes + column / STEP * BLOCK;
            let output = &mut output[at..at + (down - 1) * row_bytes + across * BLOCK];
            let low = outputs(m, count, tile * BLOCK + c);
            let high = outputs(m, count, tile * BLOCK + c + 4);
            for y in 0..M / STEP {
                for x in 0..M / STEP {
                    if y < down && x < across {
                        let cell = |outputs: &[[int32x4_t; M]; M], bias| {
                            let mut sum = outputs[y * STEP][x * STEP];
                            if STEP == 2 {
                                // Requantization keeps the order, so the greatest byte is that of the greatest sum.
                                let (top, bottom) = (&outputs[2 * y], &outputs[2 * y + 1]);
                                sum = vmaxq_s32(sum, top[2 * x + 1]);
                                sum = vmaxq_s32(sum, vmaxq_s32(bottom[2 * x], bottom[2 * x + 1]));
                            }
                            vsraq_n_s32::<6>(bias, sum)
                        };
                        let [low_bias, high_bias] = requantizer.bias;
                        let bytes = requantizer.bytes([cell(&low, low_bias), cell(&high, high_bias)]);
                        // SAFETY: the last cell's eight channels end within `output`, sliced for so many cells.
                        unsafe { vst1_u8(output.as_mut_ptr().add(y * row_bytes + x * BLOCK + c), bytes) };
                    }
                }
            }
        }
    }
}

/// 64 times the sums of four channels of a tile: Aᵀ M A times the inverse of 9.
#[inline]
#[target_feature(enable = "neon")]
fn outputs(m: &[i32], count: usize, at: usize) -> [[int32x4_t; M]; M] {
    let inverse = vdupq_n_s32(super::F4.inverse);
    let point = |y: usize, x: usize| {
        // SAFETY: `output_tiles` has sliced all points of `count` tiles; `at` is four channels of one.
        unsafe { vld1q_s32(m.as_ptr().add((y * A + x) * count * BLOCK + at)) }
    };
    let half: [[int32x4_t; M]; A] = std::array::from_fn(|y| back(std::array::from_fn(|x| point(y, x))));
    let columns: [[int32x4_t; M]; M] = std::array::from_fn(|x| back(half.map(|row| row[x])));
    std::array::from_fn(|y| std::array::from_fn(|x| vmulq_s32(columns[x][y], inverse)))
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
