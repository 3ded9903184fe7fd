//! The first layer in NEON: eight weights of a tap at a time, multiplied by one lane of grey levels.
//!
//! A row is done half a block (16 channels) at a time: nine taps of 16 weights fill 18 registers as i16, three hold eight
//! columns of the window's rows, four the sums. So a pixel costs its 36 multiplications and its requantization, no load.
#![allow(unsafe_code)] // Loads and instructions.

use super::{First, FirstRow, PACKED_BYTES};
use crate::kernels::BLOCK;
use crate::kernels::neon::{Requantizer, store_u8x16};
use core::arch::aarch64::*;
use core::arch::asm;

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
    // Eight columns of each row of the window are loaded for four pixels; the last ones reach into the slack.
    let reach = columns.next_multiple_of(4) + 4;
    let rows: [&[u8]; 3] = std::array::from_fn(|ky| &image[(row + ky) * stride..][..reach]);
    for half in 0..2 {
        let taps = load_taps(weights, half);
        let requantizer = Requantizer::<4>::new(epilogue, half * HALF);
        for (index, pixels) in output.chunks_mut(4 * BLOCK).enumerate() {
            let x = rows.map(|row| {
                // SAFETY: eight bytes from the group's first column, of which the last is that of the last group.
                vreinterpretq_s16_u16(vmovl_u8(unsafe { vld1_u8(row.as_ptr().add(4 * index)) }))
            });
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

/// Adds the products of one tap's weights with the grey level in lane `LANE`: instructions and not intrinsics, since the
/// compiler would widen the weights before the loop, to twice the registers, and spill them.
#[target_feature(enable = "neon")]
#[inline]
fn tap<const LANE: i32>(mut sums: [int32x4_t; 4], taps: [int16x8_t; 2], x: int16x8_t) -> [int32x4_t; 4] {
    for (sums, taps) in sums.chunks_exact_mut(2).zip(taps) {
        let (mut low, mut high) = (sums[0], sums[1]);
        // SAFETY: it computes with registers only.
        unsafe {
            asm!(
                "smlal {low:v}.4s, {taps:v}.4h, {x:v}.h[{lane}]",
                "smlal2 {high:v}.4s, {taps:v}.8h, {x:v}.h[{lane}]",
                low = inout(vreg) low, high = inout(vreg) high, taps = in(vreg) taps, x = in(vreg_low16) x,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        (sums[0], sums[1]) = (low, high);
    }
    sums
}

#[target_feature(enable = "neon")]
fn load_taps(weights: &[i8], half: usize) -> Taps {
    let weights = &weights[..PACKED_BYTES];
    // Three columns of a kernel row and a zero, of eight channels.
    let row = |ky: usize, eight: usize| {
        let at = (ky * BLOCK + half * HALF + eight * 8) * 4;
        let weights = &weights[at..at + 32];
        // SAFETY: the slice has 32 bytes.
        let columns = unsafe { vld4_s8(weights.as_ptr()) };
        [columns.0, columns.1, columns.2]
    };
    std::array::from_fn(|tap| std::array::from_fn(|eight| vmovl_s8(row(tap / 3, eight)[tap % 3])))
}
