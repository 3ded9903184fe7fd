//! Direct convolution with AVX-512 VNNI: `vpdpbusd` adds four products u8 × i8 to each of 16 sums.
//!
//! ```text
//!                         32 output channels: two registers of 16 sums
//!                        ┌────────────────┬────────────────┐
//!              4 bytes,  │ weights of 4 input channels × 16│ × 2: loaded once a step
//!              broadcast └────────────────┴────────────────┘
//!   14 pixels   ┌────┐   ┌────────────────┬────────────────┐
//!   of a row    │x x │ → │ sums           │ sums           │  28 registers of sums; of the other four two hold
//!               │x x │ → │                │                │  weights and two activations
//!               └────┘   └────────────────┴────────────────┘
//! ```
//!
//! 16 loads for 28 multiplications: both could be done in pairs, so loads stay in the multiplications' shadow. 14 divides
//! the width of every VGG16 layer; other widths are cut into tiles of almost the same size.
//!
//! The pixels of a kernel row lie one after another, so the window's row is one run of 3 × 32 bytes that begins 32 bytes
//! further for the next pixel. Packed weights: input block, kernel row, kernel column, group of four channels (8), output
//! channel (32), channel of the group: one stream, read from front to back by each tile.
#![allow(unsafe_code)] // The entry from the table, loads, and the instruction by name.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx512vnni::{Lanes, Sums};
use std::arch::asm;
use std::arch::x86_64::*;

/// 14 pixels × 32 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "vpdpbusd 14×32",
    packed_bytes: |blocks, taps| blocks * taps * BLOCK * BLOCK,
    pack,
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    row: |task| unsafe { row(task) },
};

/// Bytes of weights of a step: four input channels × 32 output channels.
const STEP: usize = 4 * BLOCK;

fn pack(filters: &[i8], taps: usize, packed: &mut [i8]) {
    for (index, packed) in packed.chunks_exact_mut(STEP).enumerate() {
        let (group, tap, block) = (index % 8, index / 8 % taps, index / (8 * taps));
        let channel = block * BLOCK + group * 4;
        for (o, packed) in packed.chunks_exact_mut(4).enumerate() {
            for (c, packed) in packed.iter_mut().enumerate() {
                *packed = filters[((channel + c) * taps + tap) * BLOCK + o];
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn row(mut task: Row<'_>) {
    let columns = task.output.len() / BLOCK;
    let count = columns.div_ceil(14);
    let lanes = Lanes::new(task.epilogue);
    for tile in 0..count {
        let (from, to) = (columns * tile / count, columns * (tile + 1) / count);
        match to - from {
            1 => row_tile::<1>(&mut task, &lanes, from),
            2 => row_tile::<2>(&mut task, &lanes, from),
            3 => row_tile::<3>(&mut task, &lanes, from),
            4 => row_tile::<4>(&mut task, &lanes, from),
            5 => row_tile::<5>(&mut task, &lanes, from),
            6 => row_tile::<6>(&mut task, &lanes, from),
            7 => row_tile::<7>(&mut task, &lanes, from),
            8 => row_tile::<8>(&mut task, &lanes, from),
            9 => row_tile::<9>(&mut task, &lanes, from),
            10 => row_tile::<10>(&mut task, &lanes, from),
            11 => row_tile::<11>(&mut task, &lanes, from),
            12 => row_tile::<12>(&mut task, &lanes, from),
            13 => row_tile::<13>(&mut task, &lanes, from),
            _ => row_tile::<14>(&mut task, &lanes, from),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn row_tile<const N: usize>(task: &mut Row<'_>, lanes: &Lanes, column: usize) {
    let Row { input, plane, row, kernel, weights, .. } = *task;
    let run = kernel * BLOCK;
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    let mut weights = weights.chunks_exact(run / 4 * STEP);
    for block in 0..plane.blocks() {
        let window = plane.window(block, row, kernel) + column * BLOCK;
        for (ky, weights) in weights.by_ref().take(kernel).enumerate() {
            let window = &input[window + ky * plane.row_bytes()..][..run + (N - 1) * BLOCK];
            add_run(&mut sums, window, weights);
        }
    }
    lanes.store(&sums, &mut task.output[column * BLOCK..]);
}

/// Adds the products of one kernel row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_run<const N: usize>(sums: &mut [Sums; N], window: &[u8], weights: &[i8]) {
    for (step, weights) in weights.chunks_exact(STEP).enumerate() {
        // SAFETY: a step's weights are 128 bytes.
        let weights = unsafe {
            [_mm512_loadu_si512(weights.as_ptr().cast()), _mm512_loadu_si512(weights.as_ptr().add(64).cast())]
        };
        for (n, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `window` has 32 bytes for each pixel after the first and as many bytes as `weights` had steps of 4.
            let x = unsafe { window.as_ptr().add(n * BLOCK + 4 * step).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            sums[0] = dpbusd(sums[0], x, weights[0]);
            sums[1] = dpbusd(sums[1], x, weights[1]);
        }
    }
}

/// The instruction by name, so that it stays one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dpbusd(mut sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("vpdpbusd {}, {}, {}", inout(zmm_reg) sums, in(zmm_reg) x, in(zmm_reg) weights,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
