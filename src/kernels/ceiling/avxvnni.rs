//! The ceilings of AVX-VNNI: `vpdpbusd` and `vpdpwssd` on registers of 256 bits.
#![allow(unsafe_code)] // The entries from the table.

use super::Ceiling;
use crate::kernels::direct::avxvnni::dpbusd;
use crate::kernels::winograd::avxvnni::dpwssd;
use std::arch::x86_64::*;
use std::hint::black_box;

pub(crate) const CEILING: Ceiling = Ceiling {
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    direct: |iterations| unsafe { direct(iterations) },
    // SAFETY: as above.
    winograd: |iterations| unsafe { winograd(iterations) },
};

/// Sums in flight: more than latency × instructions a cycle, on every processor that has them.
const SUMS: usize = 12;

#[target_feature(enable = "avx2")]
fn direct(iterations: u64) -> u64 {
    let factor = _mm256_set1_epi32(black_box(3));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..iterations {
        for sum in &mut sums {
            *sum = dpbusd(*sum, factor, factor);
        }
    }
    black_box(sums);
    iterations * 32 * SUMS as u64
}

#[target_feature(enable = "avx2")]
fn winograd(iterations: u64) -> u64 {
    let factor = _mm256_set1_epi32(black_box(3));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..iterations {
        for sum in &mut sums {
            *sum = dpwssd(*sum, factor, factor);
        }
    }
    black_box(sums);
    iterations * 16 * SUMS as u64
}
