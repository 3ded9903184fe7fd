//! The first layer in NEON: eight weights of a tap at a time, multiplied by one lane of grey levels.
//!
//! A row is done half a block (16 channels) at a time: nine taps of 16 weights fill 18 registers as i16, three hold eight
//! columns of the window's rows, four the sums. So a pixel costs its 36 multiplications and its requantization, no load.
#![allow(unsafe_code)] // Loads.

use super::{First, FirstRow, PACKED_BYTES};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, store_u8x16};
use core::arch::aarch64::*;

/// Four pixels × 16 channels, with SMLAL by lane.
pub(crate) const FIRST: First = First {
    name: "smlal 4×16",
    // SAFETY: `available` hands it out after the detection of NEON only.
    row: |task| unsafe { row(task) },
};

/// Channels done at a time.
const HALF: usize = BLOCK / 2;

/// Weights of the nine taps, 16 channels of each.
type Taps = [[int16x8_t; 2]; 9];

/// Sums of one pixel, whose window's columns are the lanes `$a`, `$b`, `$c` of the three rows `$x`.
macro_rules! pixel {
    ($sums:expr, $taps:expr, $x:expr, $a:literal $b:literal $c:literal) => {{
        let mut sums = $sums;
        for (ky, x) in $x.into_iter().enumerate() {
            sums = tap::<$a>(sums, $taps[3 * ky], x);
            sums = tap::<$b>(sums, $taps[3 * ky + 1], x);
            sums = tap::<$c>(sums, $taps[3 * ky + 2], x);
        }
        sums
    }};
}

#[target_feature(enable = "neon")]
fn row(task: FirstRow<'_>) {
    let FirstRow { image, row, weights, epilogue, output } = task;
    let columns = output.len() / BLOCK;
    let stride = columns + 2;
    for half in 0..2 {
        let taps = load_taps(weights, half);
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        for (index, pixels) in output.chunks_mut(4 * BLOCK).enumerate() {
            let x = std::array::from_fn(|ky| load_row(image, (row + ky) * stride + 4 * index));
            let x: [int16x8_t; 3] = x;
            let sums = [
                pixel!(requantizer.bias, taps, x, 0 1 2),
                pixel!(requantizer.bias, taps, x, 1 2 3),
                pixel!(requantizer.bias, taps, x, 2 3 4),
                pixel!(requantizer.bias, taps, x, 3 4 5),
            ];
            for (pixel, sums) in pixels.chunks_exact_mut(BLOCK).zip(sums) {
                store_u8x16(pixel, half * HALF, requantizer.bytes(sums));
            }
        }
    }
}

/// Adds the products of one tap's weights with the grey level in lane `LANE`.
#[inline]
#[target_feature(enable = "neon")]
fn tap<const LANE: i32>(sums: [int32x4_t; 4], taps: [int16x8_t; 2], x: int16x8_t) -> [int32x4_t; 4] {
    [
        vmlal_laneq_s16::<LANE>(sums[0], vget_low_s16(taps[0]), x),
        vmlal_high_laneq_s16::<LANE>(sums[1], taps[0], x),
        vmlal_laneq_s16::<LANE>(sums[2], vget_low_s16(taps[1]), x),
        vmlal_high_laneq_s16::<LANE>(sums[3], taps[1], x),
    ]
}

/// Eight columns of the image, from the byte `at`: after the last column they reach into the next row or the slack.
#[inline]
#[target_feature(enable = "neon")]
fn load_row(image: &[u8], at: usize) -> int16x8_t {
    let bytes = &image[at..at + 8];
    // SAFETY: the slice has eight bytes.
    vreinterpretq_s16_u16(vmovl_u8(unsafe { vld1_u8(bytes.as_ptr()) }))
}

#[target_feature(enable = "neon")]
fn load_taps(weights: &[i8], half: usize) -> Taps {
    let weights = &weights[..PACKED_BYTES];
    let mut taps = [[vdupq_n_s16(0); 2]; 9];
    for ky in 0..3 {
        for eight in 0..2 {
            let at = (ky * BLOCK + half * HALF + eight * 8) * 4;
            let weights = &weights[at..at + 32];
            // SAFETY: the slice has 32 bytes. They are four of each channel: three columns and a zero.
            let columns = unsafe { vld4_s8(weights.as_ptr()) };
            for (kx, column) in [columns.0, columns.1, columns.2].into_iter().enumerate() {
                taps[3 * ky + kx][eight] = vmovl_s8(column);
            }
        }
    }
    taps
}
