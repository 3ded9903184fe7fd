//! Bias and requantization in AVX-512: 16 channels a register, two registers a block. Shared by the direct, first-layer and
//! Winograd kernels.
#![allow(unsafe_code)] // Loads of the epilogue's arrays and stores of pixels.

use super::Epilogue;
use crate::kernels::BLOCK;
use std::arch::x86_64::*;

/// The sums of one pixel's 32 channels.
pub(crate) type Sums = [__m512i; 2];

/// An [`Epilogue`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    bias: [__m512i; 2],
    multiplier: [__m512; 2],
    /// 255 − zero_point.
    high: __m512,
    zero_point: __m512i,
    /// Puts the doublewords of two packed pixels in order; see [`Lanes::pair`].
    order: __m512i,
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn new(epilogue: &Epilogue) -> Self {
        let bias = epilogue.bias.as_ptr();
        let multiplier = epilogue.multiplier.as_ptr();
        // SAFETY: both arrays hold 32 numbers of 32 bits; each load reads 16 of them, from the first or the seventeenth.
        let (bias, multiplier) = unsafe {
            (
                [_mm512_loadu_si512(bias.cast()), _mm512_loadu_si512(bias.add(16).cast())],
                [_mm512_loadu_ps(multiplier), _mm512_loadu_ps(multiplier.add(16))],
            )
        };
        let zero_point = i32::from(epilogue.zero_point);
        Self {
            bias,
            multiplier,
            high: _mm512_set1_ps((255 - zero_point) as f32),
            zero_point: _mm512_set1_epi32(zero_point),
            order: _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
        }
    }

    /// One pixel's bytes, still as i32 that the packing saturates.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn requantize(&self, sums: Sums) -> Sums {
        let mut steps = sums;
        for half in 0..2 {
            let acc = _mm512_cvtepi32_ps(_mm512_add_epi32(sums[half], self.bias[half]));
            // A float that no i32 holds converts to i32::MIN, which is right below and wrong above: so the upper bound is
            // applied before, and the lower one by the packing. Conversion rounds ties to even, as Rust leaves it set.
            let real = _mm512_min_ps(_mm512_mul_ps(acc, self.multiplier[half]), self.high);
            steps[half] = _mm512_add_epi32(_mm512_cvtps_epi32(real), self.zero_point);
        }
        steps
    }

    /// The bytes of two pixels, one after another.
    ///
    /// Packing works on the four quarters of a register: after it doubleword 4q + {0, 1, 2, 3} holds channels 4q.. and
    /// 16 + 4q.. of the first pixel and of the second. `order` collects them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn pair(&self, first: Sums, second: Sums) -> __m512i {
        let ([a, b], [c, d]) = (self.requantize(first), self.requantize(second));
        let bytes = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        _mm512_permutexvar_epi32(self.order, bytes)
    }

    /// Requantizes `N` pixels and stores their bytes at the front of `output`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn store<const N: usize>(&self, sums: &[Sums; N], output: &mut [u8]) {
        let output = &mut output[..N * BLOCK];
        for (sums, output) in sums.chunks(2).zip(output.chunks_mut(2 * BLOCK)) {
            let bytes = self.pair(sums[0], sums[sums.len() - 1]);
            // SAFETY: `output` has 32 bytes for each of `sums`, of which there are one or two.
            unsafe {
                if sums.len() == 2 {
                    _mm512_storeu_si512(output.as_mut_ptr().cast(), bytes);
                } else {
                    _mm256_storeu_si256(output.as_mut_ptr().cast(), _mm512_castsi512_si256(bytes));
                }
            }
        }
    }
}
