//! Winograd F(4 × 4, 3 × 3) with AVX-VNNI: the transforms are [AVX2's](super::avx2), in its orders of U and M; the
//! multiplication is `vpdpwssd`, which is AVX2's `vpmaddwd` and `vpaddd` in one.
#![allow(unsafe_code)] // The entry from the table, loads, stores, and the instruction by name.

use super::avx2::{self, multiply};
use super::{Fly, FlyMultiply, Multiply, Winograd};
use std::arch::asm;
use std::arch::x86_64::*;

/// 6 tiles × 16 channels.
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpdpwssd 6×16",
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    multiply: |task| unsafe { entry(task) },
    fly: Some(Fly {
        scratch_count: multiply::scratch4,
        // SAFETY: as for the multiplication.
        multiply: |task| unsafe { fly_entry(task) },
    }),
    ..avx2::F4
};

#[target_feature(enable = "avx2")]
fn entry(task: Multiply<'_>) {
    multiply::multiply(36, task, |sums, x, w| dpwssd(sums, x, w));
}

#[target_feature(enable = "avx2")]
fn fly_entry(task: FlyMultiply<'_>) {
    multiply::multiply_filters4(task, |sums, x, w| dpwssd(sums, x, w));
}

/// The instruction by name, in AVX-VNNI's encoding: the other one is AVX-512's.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn dpwssd(mut sums: __m256i, v: __m256i, u: __m256i) -> __m256i {
    // SAFETY: arithmetic on registers, by an instruction that the processor has, since the table hands these kernels out
    // only then.
    unsafe {
        asm!("{{vex}} vpdpwssd {}, {}, {}", inout(ymm_reg) sums, in(ymm_reg) v, in(ymm_reg) u,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
