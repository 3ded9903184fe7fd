//! The first layer with AVX-512 VNNI: a kernel row is one doubleword of grey levels (the fourth meets a weight of zero), so a
//! pixel × 32 channels is six `vpdpbusd`, and requantization is most of the work.
#![allow(unsafe_code)] // The entry from the table, and loads.

use super::{First, FirstRow, PACKED_BYTES};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx512vnni::{Lanes, Sums};
use std::arch::x86_64::*;

/// Four pixels × 32 channels at a time: enough sums in flight to hide the latency of requantization.
pub(crate) const FIRST: First = First {
    name: "vpdpbusd 4×32",
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    row: |task| unsafe { row(task) },
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn row(task: FirstRow<'_>) {
    let FirstRow { image, row, weights, epilogue, output } = task;
    let stride = output.len() / BLOCK + 2;
    let weights = weights[..PACKED_BYTES].as_ptr();
    // SAFETY: the six registers are the `PACKED_BYTES` bytes.
    let weights: [Sums; 3] =
        std::array::from_fn(|ky| std::array::from_fn(|half| unsafe { load(weights.add(ky * 4 * BLOCK + half * 64)) }));
    let lanes = Lanes::new(epilogue);
    // The last pixel's doublewords end one byte into the slack.
    let image = &image[row * stride..][..3 * stride + 1];
    let mut column = 0;
    for output in output.chunks_mut(4 * BLOCK) {
        if output.len() == 4 * BLOCK {
            lanes.store(&pixels::<4>(image, stride, column, &weights), output);
            column += 4;
        } else {
            for output in output.chunks_mut(BLOCK) {
                lanes.store(&pixels::<1>(image, stride, column, &weights), output);
                column += 1;
            }
        }
    }
}

/// 64 bytes.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn load(from: *const i8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// The sums of `N` pixels from `column` on; `image` begins with the window's first row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn pixels<const N: usize>(image: &[u8], stride: usize, column: usize, weights: &[Sums; 3]) -> [Sums; N] {
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    for (ky, weights) in weights.iter().enumerate() {
        let window = &image[ky * stride + column..][..N + 3];
        for (n, sums) in sums.iter_mut().enumerate() {
            // SAFETY: four bytes from `n`, which is below N, of a slice of N + 3.
            let x = _mm512_set1_epi32(unsafe { window.as_ptr().add(n).cast::<i32>().read_unaligned() });
            for (sums, &weights) in sums.iter_mut().zip(weights) {
                *sums = _mm512_dpbusd_epi32(*sums, x, weights);
            }
        }
    }
    sums
}
