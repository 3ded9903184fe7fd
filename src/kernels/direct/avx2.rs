//! Direct convolution with AVX2 without VNNI. `vpmaddubsw` multiplies bytes, but saturates their sum at 16 bits; so bytes are
//! widened to i16, and `vpmaddwd` multiplies pairs of channels exactly.
//!
//! ```text
//! tile: 6 pixels × 16 output channels        packed weights (i16): half of the output channels (2), block of
//!       12 registers of sums, 2 of weights,  input channels, tap, pair of input channels (16), output channel
//!       1 broadcast pair, 1 of products      of the half (16), channel of the pair (2)
//! ```
//!
//! The pixels under a row of the kernel are widened once for all of the row's taps, into memory that never leaves the
//! nearest cache, since a pair is broadcast from memory at no cost but a load.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, PIXELS, WEIGHTS, add_products, as_i16, dot, store_16_bytes, store_i16, widen_u8};
use crate::kernels::epilogue::avx2::{Channels, pack, zero_point};
use std::arch::x86_64::*;

/// 6 pixels × 16 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "vpmaddwd 6×16",
    packed_bytes: |blocks, taps| 2 * blocks * BLOCK * taps * BLOCK,
    pack: pack_weights,
    row: entry,
};

fn pack_weights(filters: &[i8], taps: usize, packed: &mut [i8]) {
    let blocks = filters.len() / (BLOCK * taps * BLOCK);
    for (c, filters) in filters.chunks_exact(taps * BLOCK).enumerate() {
        for (tap, weights) in filters.chunks_exact(BLOCK).enumerate() {
            for (o, &w) in weights.iter().enumerate() {
                let (half, block) = (o / CHANNELS, c / BLOCK);
                let at = ((half * blocks + block) * taps + tap) * WEIGHTS
                    + c % BLOCK / 2 * 2 * CHANNELS
                    + o % CHANNELS * 2
                    + c % 2;
                let [low, high] = i16::from(w).to_ne_bytes();
                packed[2 * at] = low as i8;
                packed[2 * at + 1] = high as i8;
            }
        }
    }
}

#[allow(unsafe_code)] // The entry: a function that only a processor with AVX2 may run.
fn entry(task: Row<'_>) {
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    unsafe { row(task) }
}

#[target_feature(enable = "avx2")]
fn row(mut task: Row<'_>) {
    let columns = task.output.len() / BLOCK;
    // Tiles of much the same width, since a narrow one costs nearly as much as a wide one.
    let tiles = columns.div_ceil(PIXELS);
    let mut column = 0;
    for tile in 0..tiles {
        let width = (columns - column).div_ceil(tiles - tile);
        for half in [0, CHANNELS] {
            match width {
                1 => pixels::<1>(&mut task, column, half),
                2 => pixels::<2>(&mut task, column, half),
                3 => pixels::<3>(&mut task, column, half),
                4 => pixels::<4>(&mut task, column, half),
                5 => pixels::<5>(&mut task, column, half),
                _ => pixels::<PIXELS>(&mut task, column, half),
            }
        }
        column += width;
    }
}

/// `T` pixels of 16 channels, from `column` and the channel `first` on.
#[target_feature(enable = "avx2")]
fn pixels<const T: usize>(task: &mut Row<'_>, column: usize, first: usize) {
    let Row { plane, kernel, .. } = *task;
    let (blocks, taps) = (plane.blocks(), kernel * kernel);
    let half = blocks * taps * WEIGHTS;
    let weights = &as_i16(task.weights)[first / CHANNELS * half..][..half];
    let mut wide = [0i16; (PIXELS + 2) * BLOCK];
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (block, weights) in weights.chunks_exact(taps * WEIGHTS).enumerate() {
        for (ky, weights) in weights.chunks_exact(kernel * WEIGHTS).enumerate() {
            let window = plane.window(block, task.row + ky, kernel) + column * BLOCK;
            let window = &task.input[window..][..(T + kernel - 1) * BLOCK];
            for at in (0..window.len()).step_by(16) {
                store_i16(&mut wide, at, widen_u8(window, at));
            }
            for (kx, weights) in weights.chunks_exact(WEIGHTS).enumerate() {
                add_products(&mut sums, &wide[kx * BLOCK..], weights, |sums, x, w| dot(sums, x, w));
            }
        }
    }
    let channels = [Channels::load(task.epilogue, first), Channels::load(task.epilogue, first + 8)];
    let zero_point = zero_point(task.epilogue);
    let output = &mut task.output[column * BLOCK..][..T * BLOCK];
    for (sums, output) in sums.chunks(2).zip(output.chunks_mut(2 * BLOCK)) {
        let mut steps = [_mm256_setzero_si256(); 4];
        for (steps, sums) in steps.chunks_exact_mut(2).zip(sums) {
            steps.copy_from_slice(&[channels[0].steps(sums[0]), channels[1].steps(sums[1])]);
        }
        let bytes = pack(steps, zero_point);
        store_16_bytes(output, first, _mm256_castsi256_si128(bytes));
        if output.len() > BLOCK {
            store_16_bytes(output, BLOCK + first, _mm256_extracti128_si256::<1>(bytes));
        }
    }
}
