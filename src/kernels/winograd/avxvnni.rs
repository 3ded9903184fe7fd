//! Winograd F(4 × 4, 3 × 3) with AVX-VNNI: the transforms are [AVX2's](super::avx2), in its orders of U and M; the
//! multiplication is `vpdpwssd`, which is AVX2's `vpmaddwd` and `vpaddd` in one.
#![allow(unsafe_code)] // The entry from the table, loads, stores, and the instruction by name.

use super::{Multiply, Winograd, avx2};
use crate::kernels::BLOCK;
use crate::kernels::avx2::prefetch;
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

/// 6 tiles × 16 channels.
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpdpwssd 6×16",
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    multiply: |task| unsafe { multiply(task) },
    ..avx2::F4
};

/// Points of a transformed tile.
const POINTS: usize = 36;

/// Output channels of a tile of sums.
const HALF: usize = BLOCK / 2;

/// Numbers of U of one input block, point and half of the output channels.
const U_BLOCK: usize = BLOCK * HALF;

/// Lines of the cache that those are.
const U_LINES: usize = U_BLOCK / BLOCK;

/// Numbers of U of a step: two input channels × 16 output channels.
const STEP: usize = 2 * HALF;

#[target_feature(enable = "avx2")]
fn multiply(mut task: Multiply<'_>) {
    let tiles = task.range.len();
    let count = tiles.div_ceil(6);
    for part in 0..2 * POINTS {
        for group in 0..count {
            let (from, to) = (tiles * group / count, tiles * (group + 1) / count);
            let lines = U_LINES * group / count..U_LINES * (group + 1) / count;
            match to - from {
                1 => multiply_tile::<1>(&mut task, part, from, lines),
                2 => multiply_tile::<2>(&mut task, part, from, lines),
                3 => multiply_tile::<3>(&mut task, part, from, lines),
                4 => multiply_tile::<4>(&mut task, part, from, lines),
                5 => multiply_tile::<5>(&mut task, part, from, lines),
                _ => multiply_tile::<6>(&mut task, part, from, lines),
            }
        }
    }
}

/// `N` tiles of the range, from `from` on; `part` counts points and halves of the output channels in one.
#[target_feature(enable = "avx2")]
fn multiply_tile<const N: usize>(task: &mut Multiply<'_>, part: usize, from: usize, lines: Range<usize>) {
    let mut sums = [[_mm256_setzero_si256(); 2]; N];
    let (point, half) = (part / 2, part % 2);
    let first = task.range.start + from;
    for (block, u) in task.u.chunks_exact(2 * POINTS * U_BLOCK).enumerate().take(task.blocks) {
        let u = &u[part * U_BLOCK..];
        let v = &task.v[((block * POINTS + point) * task.tiles + first) * BLOCK..];
        // What comes next lies where no processor expects it: the next part's U, a share of it with each group of tiles, and
        // V of the next group.
        for line in lines.clone() {
            prefetch(u, U_BLOCK + line * BLOCK);
        }
        for n in N..2 * N {
            prefetch(v, n * BLOCK);
        }
        let (u, v) = (&u[..U_BLOCK], &v[..N * BLOCK]);
        for (step, u) in u.chunks_exact(STEP).enumerate() {
            // SAFETY: a step's numbers are 64 bytes.
            let u = unsafe { [_mm256_loadu_si256(u.as_ptr().cast()), _mm256_loadu_si256(u.as_ptr().add(16).cast())] };
            for (n, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `v` holds 32 numbers for each n below N, and of the 16 steps of a block each reads two.
                let v = unsafe { v.as_ptr().add(n * BLOCK + 2 * step).cast::<i32>().read_unaligned() };
                let v = _mm256_set1_epi32(v);
                sums[0] = dpwssd(sums[0], v, u[0]);
                sums[1] = dpwssd(sums[1], v, u[1]);
            }
        }
    }
    let m = &mut task.m[(point * task.range.len() + from) * BLOCK..][..N * BLOCK];
    for (sums, m) in sums.iter().zip(m.chunks_exact_mut(BLOCK)) {
        let m = &mut m[half * HALF..][..HALF];
        // SAFETY: the slice holds 16 numbers of 32 bits.
        unsafe {
            _mm256_storeu_si256(m.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(m.as_mut_ptr().add(8).cast(), sums[1]);
        }
    }
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
