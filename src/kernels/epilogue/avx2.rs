//! Bias and requantization in AVX2: 8 channels a register. Shared by the direct, first-layer and Winograd kernels.
#![allow(unsafe_code)] // A load of multipliers.

use super::Epilogue;
use crate::kernels::avx2::load_i32;
use std::arch::x86_64::*;

/// The epilogue of 8 channels.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    bias: __m256i,
    multiplier: __m256,
    /// 255 less the zero_point: the greatest step that does not saturate.
    top: __m256,
}

impl Channels {
    /// Of the channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn load(epilogue: &Epilogue, first: usize) -> Self {
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
    pub(crate) fn steps(&self, sums: __m256i) -> __m256i {
        let sums = _mm256_cvtepi32_ps(_mm256_add_epi32(sums, self.bias));
        _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(sums, self.multiplier), self.top))
    }
}

/// The zero_point in 16 lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn zero_point(epilogue: &Epilogue) -> __m256i {
    _mm256_set1_epi16(i16::from(epilogue.zero_point))
}

/// Four times 8 steps as 32 bytes in order: each saturated at the lower end, with the zero_point added.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn pack(steps: [__m256i; 4], zero_point: __m256i) -> __m256i {
    let low = _mm256_adds_epi16(_mm256_packs_epi32(steps[0], steps[1]), zero_point);
    let high = _mm256_adds_epi16(_mm256_packs_epi32(steps[2], steps[3]), zero_point);
    // Both instructions pack within the halves of a register: fours of channels lie in the order 0 2 4 6, 1 3 5 7.
    _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::BLOCK;
    use crate::kernels::epilogue::extremes;
    use proptest::prelude::*;

    #[target_feature(enable = "avx2")]
    fn requantize(sums: &[i32; BLOCK], epilogue: &Epilogue) -> [u8; BLOCK] {
        let steps = |part: usize| Channels::load(epilogue, 8 * part).steps(load_i32(sums, 8 * part));
        let bytes = pack([steps(0), steps(1), steps(2), steps(3)], zero_point(epilogue));
        let mut output = [0; BLOCK];
        // SAFETY: the array holds the 32 bytes that are stored.
        unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), bytes) };
        output
    }

    proptest! {
        #[test]
        fn requantizing_equals_the_epilogue((sums, epilogue) in extremes()) {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: AVX2 was just detected.
                let found = unsafe { requantize(&sums, &epilogue) };
                prop_assert_eq!(found, std::array::from_fn(|o| epilogue.apply(o, sums[o])));
            }
        }
    }
}
