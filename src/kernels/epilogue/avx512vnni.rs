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
    /// Puts the doublewords of two packed pixels in order; see [`Lanes::join`].
    order: __m512i,
}

impl Lanes {
    /// For sums of which the first half is channels 0 to 15.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn new(epilogue: &Epilogue) -> Self {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15);
        Self::of(epilogue, order, |values| values)
    }

    /// For sums of which the first half is the even groups of four channels, 0 to 3, 8 to 11 and so on: what unpacking leaves.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn new_unpacked(epilogue: &Epilogue) -> Self {
        let even = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(4));
        let order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        let gather =
            |[low, high]: Sums| [_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high)];
        Self::of(epilogue, order, gather)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn of(epilogue: &Epilogue, order: __m512i, halves: impl Fn(Sums) -> Sums) -> Self {
        let bias = epilogue.bias.as_ptr();
        let multiplier = epilogue.multiplier.as_ptr();
        // SAFETY: both arrays hold 32 numbers of 32 bits; each load reads 16 of them, from the first or the seventeenth.
        let (bias, multiplier) = unsafe {
            (
                [_mm512_loadu_si512(bias.cast()), _mm512_loadu_si512(bias.add(16).cast())],
                [_mm512_loadu_si512(multiplier.cast()), _mm512_loadu_si512(multiplier.add(16).cast())],
            )
        };
        let zero_point = i32::from(epilogue.zero_point);
        let [low, high] = halves(multiplier);
        Self {
            bias: halves(bias),
            multiplier: [_mm512_castsi512_ps(low), _mm512_castsi512_ps(high)],
            high: _mm512_set1_ps((255 - zero_point) as f32),
            zero_point: _mm512_set1_epi32(zero_point),
            order,
        }
    }

    /// Requantizes the same half (0 or 1) of two pixels, as i16 that [`Lanes::join`]
    /// saturates.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn requantize(&self, half: usize, first: __m512i, second: __m512i) -> __m512i {
        _mm512_packs_epi32(self.steps(half, first), self.steps(half, second))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn steps(&self, half: usize, sums: __m512i) -> __m512i {
        let acc = _mm512_cvtepi32_ps(_mm512_add_epi32(sums, self.bias[half]));
        // A float that no i32 holds converts to i32::MIN, which is right below and wrong above: so the upper bound is applied
        // before, and the lower one by the packing. Conversion rounds ties to even, as Rust leaves it set.
        let real = _mm512_min_ps(_mm512_mul_ps(acc, self.multiplier[half]), self.high);
        _mm512_add_epi32(_mm512_cvtps_epi32(real), self.zero_point)
    }

    /// The bytes of two pixels, one after another, from their requantized halves.
    ///
    /// Packing works on the four quarters of a register: after it doubleword 4q + {0, 1} holds the q-th four channels of the
    /// low half of the first and of the second pixel, 4q + {2, 3} those of their high halves. `order` collects them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn join(&self, low: __m512i, high: __m512i) -> __m512i {
        _mm512_permutexvar_epi32(self.order, _mm512_packus_epi16(low, high))
    }

    /// Requantizes `N` pixels and stores their bytes at the front of `output`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn store<const N: usize>(&self, sums: &[Sums; N], output: &mut [u8]) {
        let output = &mut output[..N * BLOCK];
        for (sums, output) in sums.chunks(2).zip(output.chunks_mut(2 * BLOCK)) {
            let (first, second) = (sums[0], sums[sums.len() - 1]);
            let low = self.requantize(0, first[0], second[0]);
            let bytes = self.join(low, self.requantize(1, first[1], second[1]));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::epilogue::extremes;
    use crate::kernels::named;
    use proptest::prelude::*;

    /// Three pixels, so that one is left without another: their channels in order, and again as unpacking orders them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn requantize(sums: &[i32; BLOCK], epilogue: &Epilogue) -> [[u8; 3 * BLOCK]; 2] {
        // SAFETY: the array holds 32 numbers; each load reads 16 of them, from the first or the seventeenth.
        let pixel =
            unsafe { [_mm512_loadu_si512(sums.as_ptr().cast()), _mm512_loadu_si512(sums.as_ptr().add(16).cast())] };
        let even = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(4));
        let unpacked =
            [_mm512_permutex2var_epi32(pixel[0], even, pixel[1]), _mm512_permutex2var_epi32(pixel[0], odd, pixel[1])];
        let mut output = [[0; 3 * BLOCK]; 2];
        Lanes::new(epilogue).store(&[pixel; 3], &mut output[0]);
        Lanes::new_unpacked(epilogue).store(&[unpacked; 3], &mut output[1]);
        output
    }

    proptest! {
        #[test]
        fn requantizing_equals_the_epilogue((sums, epilogue) in extremes()) {
            if named("avx512vnni").is_some() {
                let expected: [u8; 3 * BLOCK] = std::array::from_fn(|at| epilogue.apply(at % BLOCK, sums[at % BLOCK]));
                // SAFETY: the table hands these kernels out, so that the processor has their instructions.
                let found = unsafe { requantize(&sums, &epilogue) };
                prop_assert_eq!(found, [expected; 2]);
            }
        }
    }
}
