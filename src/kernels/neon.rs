//! What the NEON kernels share: loads and stores, and requantization sixteen or eight channels at a time. Not a kernel. NEON
//! is part of every 64-bit ARM processor, so its intrinsics need no detection.
#![allow(unsafe_code)] // Loads and stores.

use super::plane::Plane;
use super::{BLOCK, Epilogue};
use core::arch::aarch64::*;
use core::arch::asm;
use std::ops::Range;

/// Four i32 at `at`.
#[target_feature(enable = "neon")]
pub(super) fn load_i32x4(from: &[i32], at: usize) -> int32x4_t {
    let from = &from[at..at + 4];
    // SAFETY: the slice has four.
    unsafe { vld1q_s32(from.as_ptr()) }
}

/// Four i32 at number `at` of bytes that hold i32 in this processor's order.
#[target_feature(enable = "neon")]
pub(super) fn load_i32x4_from_bytes(from: &[i8], at: usize) -> int32x4_t {
    let from = &from[at * size_of::<i32>()..(at + 4) * size_of::<i32>()];
    // SAFETY: the slice has 16 bytes; the instruction loads bytes, of any alignment, and any of them are an i32's.
    unsafe { vreinterpretq_s32_s8(vld1q_s8(from.as_ptr())) }
}

/// Stores 16 bytes at `at`.
#[target_feature(enable = "neon")]
pub(super) fn store_u8x16(to: &mut [u8], at: usize, bytes: uint8x16_t) {
    let to = &mut to[at..at + 16];
    // SAFETY: the slice has 16 bytes.
    unsafe { vst1q_u8(to.as_mut_ptr(), bytes) }
}

/// `value` in all lanes, of which the compiler knows nothing: where it does it makes shifts and additions of a multiply-add by
/// a power of two, two instructions for one.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn opaque_i16(value: i16) -> int16x8_t {
    let mut lanes = vdupq_n_s16(value);
    // SAFETY: it does nothing.
    unsafe { asm!("/* {0:v} */", inout(vreg) lanes, options(pure, nomem, nostack, preserves_flags)) };
    lanes
}

/// As [`opaque_i16`], four of 32 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn opaque_i32(value: i32) -> int32x4_t {
    let mut lanes = vdupq_n_s32(value);
    // SAFETY: it does nothing.
    unsafe { asm!("/* {0:v} */", inout(vreg) lanes, options(pure, nomem, nostack, preserves_flags)) };
    lanes
}

/// `0..count` in the fewest ranges no longer than `longest`, as even as can be: a narrow tile loads as many weights as a
/// wide one.
pub(super) fn even_ranges(count: usize, longest: usize) -> impl Iterator<Item = Range<usize>> {
    let ranges = count.div_ceil(longest);
    let mut done = 0;
    (1..=ranges).rev().map(move |left| {
        let begin = done;
        done += (count - done).div_ceil(left);
        begin..done
    })
}

/// Bias, multipliers and zero_point of 4·N channels of a block, in registers.
#[derive(Clone, Copy)]
pub(super) struct Requantizer<const N: usize> {
    /// What is added to the sums.
    pub(super) bias: [int32x4_t; N],
    /// What the biased sums are multiplied by.
    multiplier: [float32x4_t; N],
    zero_point: int16x8_t,
}

impl<const N: usize> Requantizer<N> {
    /// Of the channels from `channel`, a multiple of 4·N.
    #[target_feature(enable = "neon")]
    pub(super) fn new(epilogue: &Epilogue, channel: usize) -> Self {
        assert!(channel + 4 * N <= BLOCK, "channels of a block");
        let multiplier = |i: usize| {
            // SAFETY: four multipliers from `channel + 4 * i` on are within the block, by the assertion.
            unsafe { vld1q_f32(epilogue.multiplier.as_ptr().add(channel + 4 * i)) }
        };
        Self {
            bias: std::array::from_fn(|i| load_i32x4(&epilogue.bias, channel + 4 * i)),
            multiplier: std::array::from_fn(multiplier),
            zero_point: vdupq_n_s16(i16::from(epilogue.zero_point)),
        }
    }

    /// `round_half_even(biased as f32 × multiplier)`, saturated to i32, as the instruction itself does.
    #[target_feature(enable = "neon")]
    fn steps(&self, i: usize, biased: int32x4_t) -> int32x4_t {
        vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(biased), self.multiplier[i]))
    }

    /// The steps of eight channels with the zero_point: saturated to i16 before and after it is added, which changes no byte,
    /// since what saturates is far outside 0..=255 on the same side.
    #[target_feature(enable = "neon")]
    fn halves(&self, i: usize, biased: [int32x4_t; 2]) -> int16x8_t {
        let steps = vqmovn_high_s32(vqmovn_s32(self.steps(i, biased[0])), self.steps(i + 1, biased[1]));
        vqaddq_s16(steps, self.zero_point)
    }
}

impl Requantizer<2> {
    /// The bytes of eight channels whose sums, bias included, are `biased`: what [`Epilogue::apply`] says.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn bytes(&self, biased: [int32x4_t; 2]) -> uint8x8_t {
        vqmovun_s16(self.halves(0, biased))
    }
}

impl Requantizer<4> {
    /// The bytes of sixteen channels whose sums, bias included, are `biased`: what [`Epilogue::apply`] says.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn bytes(&self, biased: [int32x4_t; 4]) -> uint8x16_t {
        let [a, b, c, d] = biased;
        vqmovun_high_s16(vqmovun_s16(self.halves(0, [a, b])), self.halves(2, [c, d]))
    }
}

/// What all tiles of a row of a direct convolution have in common.
pub(crate) struct Window {
    /// Blocks of input channels.
    pub(crate) blocks: usize,
    /// Rows of the kernel.
    pub(crate) rows: usize,
    /// Bytes from a row to the next.
    pub(crate) row_bytes: usize,
    /// Bytes from below the last row of the window to the first one in the next block.
    pub(crate) to_next_block: usize,
}

impl Window {
    /// Of a kernel of so many rows on this plane.
    pub(crate) fn of(plane: Plane, kernel: usize) -> Self {
        let row_bytes = plane.row_bytes();
        let to_next_block = plane.block_bytes().wrapping_sub(kernel * row_bytes);
        Self { blocks: plane.blocks(), rows: kernel, row_bytes, to_next_block }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bytes of channels 16 to 31, and of 24 to 31 by the narrower way.
    #[target_feature(enable = "neon")]
    fn requantize(sums: &[i32; 16], epilogue: &Epilogue) -> ([u8; 16], [u8; 8]) {
        let requantizer = Requantizer::<4>::new(epilogue, 16);
        let biased = std::array::from_fn(|i| vaddq_s32(load_i32x4(sums, 4 * i), requantizer.bias[i]));
        let mut bytes = [0; 16];
        store_u8x16(&mut bytes, 0, requantizer.bytes(biased));
        let eight = Requantizer::<2>::new(epilogue, 24).bytes([biased[2], biased[3]]);
        (bytes, vget_lane_u64::<0>(vreinterpret_u64_u8(eight)).to_le_bytes())
    }

    #[test]
    fn even_ranges_cover_all_and_are_as_even_as_can_be() {
        for count in 0..40 {
            let ranges: Vec<_> = even_ranges(count, 6).collect();
            assert_eq!(ranges.len(), count.div_ceil(6));
            assert!(ranges.iter().cloned().flatten().eq(0..count), "{count}: {ranges:?}");
            let lengths = || ranges.iter().map(|range| range.len());
            assert!(lengths().max().unwrap_or(0) - lengths().min().unwrap_or(0) <= 1, "{count}: {ranges:?}");
        }
    }

    proptest! {
        #[test]
        fn requantizing_equals_the_epilogue(sums in prop::array::uniform16(any::<i32>()), small in any::<bool>(),
            bias in any::<i32>(), exponent in -40i32..100, zero_point in any::<u8>()) {
            let sums = sums.map(|sum| if small { sum >> 12 } else { sum });
            let multiplier = std::array::from_fn(|o| (exponent as f32).exp2() * (1.0 + o as f32 * 0.031));
            let epilogue = Epilogue { bias: [bias; BLOCK], multiplier, zero_point };
            let expected: [u8; 16] = std::array::from_fn(|o| epilogue.apply(16 + o, sums[o]));
            // SAFETY: every processor that these tests are built for has NEON.
            let (sixteen, eight) = unsafe { requantize(&sums, &epilogue) };
            prop_assert_eq!(sixteen, expected);
            prop_assert_eq!(&eight, &expected[8..]);
        }
    }
}
