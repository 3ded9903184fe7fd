//! Direct convolution in plain NEON (ARMv8.0), for the layers that Winograd's condition refuses and for 1 × 1 kernels: all
//! else is faster by [`winograd`](crate::kernels::winograd) on processors without dot products.
//!
//! ```text
//!            16 output channels                     weights, packed: half a block of output channels (16), block of
//!          ┌────┬────┬────┬────┐                    input channels, tap, input channel (32), output channel (16)
//! 4 pixels │ 4  │ 4  │ 4  │ 4  │ i32: 16 registers
//!          └────┴────┴────┴────┘                    a step: one input channel, as a lane of eight of a pixel's,
//!                                                   times 16 weights, widened to i16
//! ```
#![allow(unsafe_code)] // Loads.

use super::{Direct, Row};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, store_u8x16};
use core::arch::aarch64::*;

/// Four pixels × 16 channels, with SMLAL by lane.
pub(crate) const DIRECT: Direct = Direct {
    name: "smlal 4×16",
    packed_bytes: |blocks, taps| blocks * BLOCK * taps * BLOCK,
    pack,
    // SAFETY: `available` hands it out after the detection of NEON only.
    row: |task| unsafe { row(task) },
};

/// Output channels done at a time.
const HALF: usize = BLOCK / 2;
/// Pixels done at a time.
const PIXELS: usize = 4;
/// Bytes of packed weights of one tap and block of input channels, for half a block of output channels.
const TAP: usize = BLOCK * HALF;

type Sums = [[int32x4_t; 4]; PIXELS];

fn pack(filters: &[i8], taps: usize, packed: &mut [i8]) {
    let blocks = filters.len() / (BLOCK * taps * BLOCK).max(1);
    for (half, packed) in packed.chunks_exact_mut(blocks * taps * TAP).enumerate().take(2) {
        for (index, packed) in packed.chunks_exact_mut(TAP).enumerate() {
            let (block, tap) = (index / taps, index % taps);
            for (c, packed) in packed.chunks_exact_mut(HALF).enumerate() {
                let at = ((block * BLOCK + c) * taps + tap) * BLOCK + half * HALF;
                packed.copy_from_slice(&filters[at..at + HALF]);
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn row(task: Row<'_>) {
    let Row { input, plane, row, kernel, weights, epilogue, output } = task;
    let taps = kernel * kernel;
    for half in 0..2 {
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        for (index, pixels) in output.chunks_mut(PIXELS * BLOCK).enumerate() {
            let mut sums: Sums = [requantizer.bias; PIXELS];
            for block in 0..plane.blocks() {
                let window = plane.window(block, row, kernel) + index * PIXELS * BLOCK;
                for tap in 0..taps {
                    let x = &input[window + tap / kernel * plane.row_bytes() + tap % kernel * BLOCK..];
                    let weights = &weights[((half * plane.blocks() + block) * taps + tap) * TAP..];
                    sums = add_tap(sums, &x[..PIXELS * BLOCK], &weights[..TAP]);
                }
            }
            for (pixel, sums) in pixels.chunks_exact_mut(BLOCK).zip(sums) {
                store_u8x16(pixel, half * HALF, requantizer.bytes(sums));
            }
        }
    }
}

/// Adds the products of the channel in lane `$lane`.
macro_rules! channel {
    ($sums:ident, $x:ident, $weights:ident + $at:expr, $($lane:literal)*) => {$(
        // SAFETY: `add_tap` asserts that 32 × 16 weights are there, and takes 16 from each multiple of 16 below.
        let w = unsafe { vld1q_s8($weights.as_ptr().add(($at + $lane) * HALF)) };
        let (low, high) = (vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w));
        for (sums, x) in $sums.iter_mut().zip($x) {
            sums[0] = vmlal_laneq_s16::<$lane>(sums[0], vget_low_s16(low), x);
            sums[1] = vmlal_high_laneq_s16::<$lane>(sums[1], low, x);
            sums[2] = vmlal_laneq_s16::<$lane>(sums[2], vget_low_s16(high), x);
            sums[3] = vmlal_high_laneq_s16::<$lane>(sums[3], high, x);
        }
    )*};
}

/// Adds the products of one tap and one block of input channels.
#[inline]
#[target_feature(enable = "neon")]
fn add_tap(mut sums: Sums, x: &[u8], weights: &[i8]) -> Sums {
    assert!(x.len() == PIXELS * BLOCK && weights.len() == TAP, "a tap's operands");
    for c in (0..BLOCK).step_by(8) {
        let x: [int16x8_t; PIXELS] = std::array::from_fn(|pixel| {
            // SAFETY: eight bytes from channel `c` (at most 24) of a pixel below four are within the 128 asserted.
            vreinterpretq_s16_u16(vmovl_u8(unsafe { vld1_u8(x.as_ptr().add(pixel * BLOCK + c)) }))
        });
        channel!(sums, x, weights + c, 0 1 2 3 4 5 6 7);
    }
    sums
}
