//! What the AVX2 kernels of all families share: loads, stores and the sum of products. 16 registers of 256 bits: 16 of i16, 8 of i32.
//! Not a kernel.
#![allow(unsafe_code)] // Loads and stores of vectors, whose bounds are checked on the slices they are made from.

use super::BLOCK;
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

/// 8 weights, in the lower half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_8_weights(from: &[i8], at: usize) -> __m128i {
    let from = &from[at..at + 8];
    // SAFETY: the slice holds the 8 bytes that are read; no alignment is asked for.
    unsafe { _mm_loadl_epi64(from.as_ptr().cast()) }
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

/// Asks for the line of the cache at `at`, wherever that is: a hint, no access.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch<T>(from: &[T], at: usize) {
    _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(at).cast());
}

/// Output channels of a tile of sums.
pub(super) const CHANNELS: usize = 16;
/// Pixels of the widest tile: 12 registers of sums, 2 of weights, a broadcast pair and its products are all there are.
pub(super) const PIXELS: usize = 6;
/// Weights of a block of input channels × 16 output channels: pair of input channels, output channel, channel of the pair.
pub(super) const WEIGHTS: usize = BLOCK * CHANNELS;

/// Adds the products of a block's 32 channels: of `T` pixels (32 numbers each, one after another) with [`WEIGHTS`] weights.
/// `dot` adds the products of two pairs to a sum: [`dot`], or one instruction where there is one.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_products<const T: usize>(
    sums: &mut [[__m256i; 2]; T],
    x: &[i16],
    weights: &[i16],
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    let (x, weights) = (&x[..T * BLOCK], &weights[..WEIGHTS]);
    for pair in 0..BLOCK / 2 {
        let w = [load_i16(weights, pair * 2 * CHANNELS), load_i16(weights, pair * 2 * CHANNELS + CHANNELS)];
        for (t, sums) in sums.iter_mut().enumerate() {
            let x = broadcast_pair(x, t * BLOCK + 2 * pair);
            sums[0] = dot(sums[0], x, w[0]);
            sums[1] = dot(sums[1], x, w[1]);
        }
    }
}

/// The sums of the products of two pairs, added to `sums`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn dot(sums: __m256i, x: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(x, w))
}

/// Weights as the i16 that a kernel packed them as.
pub(super) fn as_i16(weights: &[i8]) -> &[i16] {
    // SAFETY: any two bytes are an i16.
    let (_, weights, _) = unsafe { weights.align_to() };
    weights
}
