//! What the AVX2 kernels of all families share: loads, stores, and the epilogue. 16 registers of 256 bits: 16 of i16, 8 of i32.
//! Not a kernel.
#![allow(unsafe_code)] // Loads and stores of vectors, whose bounds are checked on the slices they are made from.

use super::{BLOCK, Epilogue};
use std::arch::x86_64::*;

/// 32 bytes of bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(from: &[i8], at: usize) -> __m256i {
    let from = &from[at..at + 32];
    // SAFETY: the slice holds the 32 bytes that are read; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// 16 numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i16(from: &[i16], at: usize) -> __m256i {
    let from = &from[at..at + 16];
    // SAFETY: the slice holds the 32 bytes that are read; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i32(from: &[i32], at: usize) -> __m256i {
    let from = &from[at..at + 8];
    // SAFETY: the slice holds the 32 bytes that are read; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

/// 16 activations, widened to i16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen_u8(from: &[u8], at: usize) -> __m256i {
    let from = &from[at..at + 16];
    // SAFETY: the slice holds the 16 bytes that are read; no alignment is asked for.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// 16 weights.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_weights(from: &[i8], at: usize) -> __m128i {
    let from = &from[at..at + 16];
    // SAFETY: the slice holds the 16 bytes that are read; no alignment is asked for.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// The pair of numbers at `at`, in each of the 8 lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn broadcast_pair(from: &[i16], at: usize) -> __m256i {
    let from = &from[at..at + 2];
    // SAFETY: the slice holds the 4 bytes that are read, unaligned.
    _mm256_set1_epi32(unsafe { from.as_ptr().cast::<i32>().read_unaligned() })
}

/// Stores 16 numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i16(to: &mut [i16], at: usize, numbers: __m256i) {
    let to = &mut to[at..at + 16];
    // SAFETY: the slice holds the 32 bytes that are written; no alignment is asked for.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), numbers) }
}

/// Stores 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_i32(to: &mut [i32], at: usize, numbers: __m256i) {
    let to = &mut to[at..at + 8];
    // SAFETY: the slice holds the 32 bytes that are written; no alignment is asked for.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), numbers) }
}

/// Stores 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_16_bytes(to: &mut [u8], at: usize, bytes: __m128i) {
    let to = &mut to[at..at + 16];
    // SAFETY: the slice holds the 16 bytes that are written; no alignment is asked for.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) }
}

/// Stores the lower 8 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_8_bytes(to: &mut [u8], at: usize, bytes: __m128i) {
    let to = &mut to[at..at + 8];
    // SAFETY: the slice holds the 8 bytes that are written; no alignment is asked for.
    unsafe { _mm_storel_epi64(to.as_mut_ptr().cast(), bytes) }
}

/// The epilogue of 8 channels.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    bias: __m256i,
    multiplier: __m256,
    /// 255 less the zero_point: the greatest step that does not saturate.
    top: __m256,
}

impl Channels {
    /// Of the channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load(epilogue: &Epilogue, first: usize) -> Self {
        let multiplier = &epilogue.multiplier[first..first + 8];
        Self {
            bias: load_i32(&epilogue.bias, first),
            // SAFETY: the slice holds the 32 bytes that are read; no alignment is asked for.
            multiplier: unsafe { _mm256_loadu_ps(multiplier.as_ptr()) },
            top: _mm256_set1_ps(255.0 - f32::from(epilogue.zero_point)),
        }
    }

    /// Steps from the zero_point for these sums. Saturated above only: the conversion makes i32::MIN of anything out of
    /// range, and what is far below is saturated by [`pack`].
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn steps(&self, sums: __m256i) -> __m256i {
        let sums = _mm256_cvtepi32_ps(_mm256_add_epi32(sums, self.bias));
        _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(sums, self.multiplier), self.top))
    }
}

/// The zero_point in 16 lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn zero_point(epilogue: &Epilogue) -> __m256i {
    _mm256_set1_epi16(i16::from(epilogue.zero_point))
}

/// Four times 8 steps as 32 bytes in order: each saturated at the lower end, with the zero_point added.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pack(steps: [__m256i; 4], zero_point: __m256i) -> __m256i {
    let low = _mm256_adds_epi16(_mm256_packs_epi32(steps[0], steps[1]), zero_point);
    let high = _mm256_adds_epi16(_mm256_packs_epi32(steps[2], steps[3]), zero_point);
    // Both instructions pack within the halves of a register: fours of channels lie in the order 0 2 4 6, 1 3 5 7.
    _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

/// Output channels of a tile of sums.
pub(super) const CHANNELS: usize = 16;
/// Pixels of the widest tile: 12 registers of sums, 2 of weights, a broadcast pair and its products are all there are.
pub(super) const PIXELS: usize = 6;
/// Weights of a block of input channels × 16 output channels: pair of input channels, output channel, channel of the pair.
pub(super) const WEIGHTS: usize = BLOCK * CHANNELS;

/// Adds the products of a block's 32 channels: of `T` pixels (32 numbers each, one after another) with [`WEIGHTS`] weights.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_products<const T: usize>(sums: &mut [[__m256i; 2]; T], x: &[i16], weights: &[i16]) {
    let (x, weights) = (&x[..T * BLOCK], &weights[..WEIGHTS]);
    for pair in 0..BLOCK / 2 {
        let w = [load_i16(weights, pair * 2 * CHANNELS), load_i16(weights, pair * 2 * CHANNELS + CHANNELS)];
        for (t, sums) in sums.iter_mut().enumerate() {
            let x = broadcast_pair(x, t * BLOCK + 2 * pair);
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(x, w[0]));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(x, w[1]));
        }
    }
}

/// Weights as the i16 that a kernel packed them as.
pub(super) fn as_i16(weights: &[i8]) -> &[i16] {
    // SAFETY: any two bytes are an i16.
    let (_, weights, _) = unsafe { weights.align_to() };
    weights
}
