//! The first layer with NEON's dot products (SDOT): a kernel row's three products, and a fourth of a zero, at a time.
//!
//! A row is done half a block (16 channels) at a time, whose weights fill twelve registers. Of each row of the window one
//! table look-up makes a register of four pixels' windows: their first bytes are neighbours. SDOT multiplies signed bytes,
//! so grey levels x are made x − 128 and `128·Σw` is added to the bias, as in [direct convolution](super::super::direct).
#![allow(unsafe_code)] // Loads and instructions that intrinsics do not have yet.

use super::{First, FirstRow, PACKED_BYTES};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, store_u8x16};
use core::arch::aarch64::*;
use core::arch::asm;

/// Four pixels × 16 channels.
pub(crate) const FIRST: First = First {
    name: "sdot 4×16",
    // SAFETY: `available` hands it out after the detection of NEON and its dot products only.
    row: |task| unsafe { row(task) },
};

/// Channels done at a time.
const HALF: usize = BLOCK / 2;

/// The windows of four neighbours, four bytes of each: which of a row's bytes.
const WINDOWS: [u8; 16] = [0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6];

#[target_feature(enable = "neon,dotprod")]
fn row(task: FirstRow<'_>) {
    let FirstRow { image, row, weights, epilogue, output } = task;
    let columns = output.len() / BLOCK;
    let stride = columns + 2;
    // Eight bytes of each row of the window are loaded for four pixels; the last ones reach into the slack.
    let reach = columns.next_multiple_of(4) + 4;
    let rows: [&[u8]; 3] = std::array::from_fn(|ky| &image[(row + ky) * stride..][..reach]);
    let weights = &weights[..PACKED_BYTES];
    // SAFETY: the array has 16 bytes.
    let windows = unsafe { vld1q_u8(WINDOWS.as_ptr()) };
    let flip = vdupq_n_u8(128);
    for half in 0..2 {
        let taps: [[int8x16_t; 4]; 3] = std::array::from_fn(|ky| {
            std::array::from_fn(|four| {
                let weights = &weights[(ky * BLOCK + half * HALF + four * 4) * 4..][..16];
                // SAFETY: the slice has 16 bytes.
                unsafe { vld1q_s8(weights.as_ptr()) }
            })
        });
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        // −128 · Σw, to be taken off.
        let least = vreinterpretq_s8_u8(flip);
        let correction = taps.iter().fold([vdupq_n_s32(0); 4], |sums, taps| dot::<0>(sums, *taps, least));
        let bias = std::array::from_fn(|four| vsubq_s32(requantizer.bias[four], correction[four]));
        for (index, pixels) in output.chunks_mut(4 * BLOCK).enumerate() {
            let x = rows.map(|row| {
                // SAFETY: eight bytes from the group's first column, of which the last is that of the last group.
                let bytes = veor_u8(unsafe { vld1_u8(row.as_ptr().add(4 * index)) }, vget_low_u8(flip));
                vreinterpretq_s8_u8(vqtbl1q_u8(vcombine_u8(bytes, bytes), windows))
            });
            let mut sums = [bias; 4];
            for (taps, x) in taps.into_iter().zip(x) {
                sums = [
                    dot::<0>(sums[0], taps, x),
                    dot::<1>(sums[1], taps, x),
                    dot::<2>(sums[2], taps, x),
                    dot::<3>(sums[3], taps, x),
                ];
            }
            for (pixel, sums) in pixels.chunks_exact_mut(BLOCK).zip(sums) {
                store_u8x16(pixel, half * HALF, requantizer.bytes(sums));
            }
        }
    }
}

/// Adds the products of a kernel row's weights with four bytes, lane `LANE` of `x`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot<const LANE: i32>(sums: [int32x4_t; 4], weights: [int8x16_t; 4], x: int8x16_t) -> [int32x4_t; 4] {
    std::array::from_fn(|four| {
        let mut sums = sums[four];
        // SAFETY: it computes with registers only.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.4b[{lane}]",
                sums = inout(vreg) sums, weights = in(vreg) weights[four], x = in(vreg) x, lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    })
}
