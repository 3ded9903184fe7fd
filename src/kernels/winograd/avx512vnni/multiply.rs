//! The sums of products U ⊙ V: for every point a product of matrices.
#![allow(unsafe_code)] // Loads that the inner loop cannot check, prefetches, and the instruction by name.

use super::weights::weights_row;
use super::{POINTS, STEP, U_BLOCK, U_LINES, load, store};
use crate::kernels::BLOCK;
use crate::kernels::winograd::{FlyMultiply, Multiply};
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn multiply(task: Multiply<'_>) {
    let Multiply { v, blocks, tiles, range, u, m } = task;
    let mut product = Product { v, tiles, range, m };
    for (point, u) in u.chunks_exact(blocks * U_BLOCK).enumerate().take(POINTS) {
        multiply_point(&mut product, point, u, true);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn multiply_filters(task: FlyMultiply<'_>) {
    let FlyMultiply { v, blocks, tiles, range, filters, scratch, m } = task;
    let mut product = Product { v, tiles, range, m };
    for row in 0..6 {
        let u = &mut scratch[..6 * blocks * U_BLOCK];
        weights_row(filters, row, u);
        for (point, u) in u.chunks_exact(blocks * U_BLOCK).enumerate() {
            multiply_point(&mut product, row * 6 + point, u, false);
        }
    }
}

/// A [`Multiply`] but for U.
struct Product<'a> {
    v: &'a [i16],
    tiles: usize,
    range: Range<usize>,
    m: &'a mut [i32],
}

/// One point of all tiles of the range; `u` is U's of this point. With `fetch`, U of the next point, which lies behind it, is
/// brought near meanwhile, a share of it by each group of tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_point(task: &mut Product<'_>, point: usize, u: &[i16], fetch: bool) {
    let tiles = task.range.len();
    let count = tiles.div_ceil(14);
    for group in 0..count {
        let (from, to) = (tiles * group / count, tiles * (group + 1) / count);
        let lines = if fetch { U_LINES * group / count..U_LINES * (group + 1) / count } else { 0..0 };
        match to - from {
            1 => multiply_tile::<1>(task, point, u, from, lines),
            2 => multiply_tile::<2>(task, point, u, from, lines),
            3 => multiply_tile::<3>(task, point, u, from, lines),
            4 => multiply_tile::<4>(task, point, u, from, lines),
            5 => multiply_tile::<5>(task, point, u, from, lines),
            6 => multiply_tile::<6>(task, point, u, from, lines),
            7 => multiply_tile::<7>(task, point, u, from, lines),
            8 => multiply_tile::<8>(task, point, u, from, lines),
            9 => multiply_tile::<9>(task, point, u, from, lines),
            10 => multiply_tile::<10>(task, point, u, from, lines),
            11 => multiply_tile::<11>(task, point, u, from, lines),
            12 => multiply_tile::<12>(task, point, u, from, lines),
            13 => multiply_tile::<13>(task, point, u, from, lines),
            _ => multiply_tile::<14>(task, point, u, from, lines),
        }
    }
}

/// `N` tiles of the range, from `from` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_tile<const N: usize>(task: &mut Product<'_>, point: usize, u: &[i16], from: usize, lines: Range<usize>) {
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    let first = task.range.start + from;
    let all = u;
    for (block, u) in u.chunks_exact(U_BLOCK).enumerate() {
        let at = |point: usize| ((block * POINTS + point) * task.tiles + first) * BLOCK;
        let v = &task.v[at(point)..][..N * BLOCK];
        let next = at(if point + 1 < POINTS { point + 1 } else { 0 });
        for n in 0..N {
            fetch(task.v, next + n * BLOCK);
        }
        for line in lines.clone() {
            fetch(all, all.len() + block * U_BLOCK + line * BLOCK);
        }
        for (step, u) in u.chunks_exact(STEP).enumerate() {
            let u = [load(u), load(&u[BLOCK..])];
            for (n, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `v` holds 32 numbers for each n below N, and of the 16 steps of a block each reads two.
                let v = unsafe { v.as_ptr().add(n * BLOCK + 2 * step).cast::<i32>().read_unaligned() };
                let v = _mm512_set1_epi32(v);
                sums[0] = dpwssd(sums[0], v, u[0]);
                sums[1] = dpwssd(sums[1], v, u[1]);
            }
        }
    }
    let m = &mut task.m[from * POINTS * BLOCK..][..N * POINTS * BLOCK];
    for (sums, m) in sums.iter().zip(m.chunks_exact_mut(POINTS * BLOCK)) {
        let m = &mut m[point * BLOCK..];
        store(m, sums[0]);
        store(&mut m[16..], sums[1]);
    }
}

/// Brings a line of the cache near: what the next point reads lies where no processor expects it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn fetch(numbers: &[i16], at: usize) {
    let line = numbers.as_ptr().wrapping_add(at);
    // SAFETY: a prefetch changes nothing and reads nothing that the program sees, at whatever address.
    unsafe { asm!("prefetcht0 byte ptr [{}]", in(reg) line, options(readonly, nostack, preserves_flags)) }
}

/// The instruction by name: the compiler splits its intrinsic into a multiplication and an addition where it sees fit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dpwssd(mut sums: __m512i, v: __m512i, u: __m512i) -> __m512i {
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("vpdpwssd {}, {}, {}", inout(zmm_reg) sums, in(zmm_reg) v, in(zmm_reg) u,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
