//! Direct convolution with AVX-VNNI: `vpdpbusd` on registers of 256 bits, for the processors that have it without AVX-512.
//!
//! ```text
//! tile: 6 pixels × 16 output channels        packed weights: half of the output channels (2), block of input channels,
//!       12 registers of sums, 2 of weights,  tap, group of four input channels (8), output channel of the half (16),
//!       2 of activations                     channel of the group (4)
//! ```
//!
//! Otherwise as the [512-bit kernel](super::avx512vnni), at half its width and with half its registers.
#![allow(unsafe_code)] // The entry from the table, loads, and the instruction by name.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx2::{Channels, pack as pack_steps, zero_point};
use std::arch::asm;
use std::arch::x86_64::*;

/// 6 pixels × 16 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "vpdpbusd 6×16",
    packed_bytes: |blocks, taps| blocks * taps * BLOCK * BLOCK,
    pack,
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    row: |task| unsafe { row(task) },
};

/// Output channels of a tile.
const HALF: usize = BLOCK / 2;

/// Bytes of weights of a step: four input channels × 16 output channels.
const STEP: usize = 4 * HALF;

fn pack(filters: &[i8], taps: usize, packed: &mut [i8]) {
    let steps = packed.len() / (2 * STEP);
    for (index, packed) in packed.chunks_exact_mut(STEP).enumerate() {
        let (half, step) = (index / steps, index % steps);
        let (group, tap, block) = (step % 8, step / 8 % taps, step / (8 * taps));
        let channel = block * BLOCK + group * 4;
        for (o, packed) in packed.chunks_exact_mut(4).enumerate() {
            for (c, packed) in packed.iter_mut().enumerate() {
                *packed = filters[((channel + c) * taps + tap) * BLOCK + half * HALF + o];
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn row(mut task: Row<'_>) {
    let columns = task.output.len() / BLOCK;
    let count = columns.div_ceil(6);
    for tile in 0..count {
        let (from, to) = (columns * tile / count, columns * (tile + 1) / count);
        for half in 0..2 {
            match to - from {
                1 => row_tile::<1>(&mut task, from, half),
                2 => row_tile::<2>(&mut task, from, half),
                3 => row_tile::<3>(&mut task, from, half),
                4 => row_tile::<4>(&mut task, from, half),
                5 => row_tile::<5>(&mut task, from, half),
                _ => row_tile::<6>(&mut task, from, half),
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn row_tile<const N: usize>(task: &mut Row<'_>, column: usize, half: usize) {
    let Row { input, plane, row, kernel, weights, .. } = *task;
    let run = kernel * BLOCK;
    let mut sums = [[_mm256_setzero_si256(); 2]; N];
    let half_bytes = plane.blocks() * kernel * kernel * BLOCK * HALF;
    let mut weights = weights[half * half_bytes..][..half_bytes].chunks_exact(run / 4 * STEP);
    for block in 0..plane.blocks() {
        let window = plane.window(block, row, kernel) + column * BLOCK;
        for (ky, weights) in weights.by_ref().take(kernel).enumerate() {
            let window = &input[window + ky * plane.row_bytes()..][..run + (N - 1) * BLOCK];
            add_run(&mut sums, window, weights);
        }
    }
    let first = half * HALF;
    let channels = [Channels::load(task.epilogue, first), Channels::load(task.epilogue, first + 8)];
    let zero_point = zero_point(task.epilogue);
    let output = &mut task.output[column * BLOCK..][..N * BLOCK];
    for (sums, output) in sums.chunks(2).zip(output.chunks_mut(2 * BLOCK)) {
        let (one, two) = (sums[0], sums[sums.len() - 1]);
        let steps = [
            channels[0].steps(one[0]),
            channels[1].steps(one[1]),
            channels[0].steps(two[0]),
            channels[1].steps(two[1]),
        ];
        let bytes = pack_steps(steps, zero_point);
        store(&mut output[first..], _mm256_castsi256_si128(bytes));
        if sums.len() == 2 {
            store(&mut output[BLOCK + first..], _mm256_extracti128_si256::<1>(bytes));
        }
    }
}

/// Adds the products of one kernel row.
#[inline]
#[target_feature(enable = "avx2")]
fn add_run<const N: usize>(sums: &mut [[__m256i; 2]; N], window: &[u8], weights: &[i8]) {
    for (step, weights) in weights.chunks_exact(STEP).enumerate() {
        // SAFETY: a step's weights are 64 bytes.
        let weights = unsafe {
            [_mm256_loadu_si256(weights.as_ptr().cast()), _mm256_loadu_si256(weights.as_ptr().add(32).cast())]
        };
        for (n, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `window` has 32 bytes for each pixel after the first and as many bytes as `weights` had steps of 4.
            let x = unsafe { window.as_ptr().add(n * BLOCK + 4 * step).cast::<i32>().read_unaligned() };
            let x = _mm256_set1_epi32(x);
            sums[0] = dpbusd(sums[0], x, weights[0]);
            sums[1] = dpbusd(sums[1], x, weights[1]);
        }
    }
}

/// Stores 16 bytes at the front of a slice.
#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [u8], bytes: __m128i) {
    let to = &mut to[..16];
    // SAFETY: the slice holds 16 bytes.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
}

/// The instruction by name, in AVX-VNNI's encoding: the other one is AVX-512's.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn dpbusd(mut sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
    // SAFETY: arithmetic on registers, by an instruction that the processor has, since the table hands these kernels out
    // only then.
    unsafe {
        asm!("{{vex}} vpdpbusd {}, {}, {}", inout(ymm_reg) sums, in(ymm_reg) x, in(ymm_reg) weights,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
