//! Weights to the points of Winograd convolution: U, whole or a few points at a time. All sums fit i16: see the bounds in
//! [`crate::kernels::winograd`].
//!
//! U of some points lies as: block of input channels, point, half of the output channels (2), pair of input channels (16),
//! output channel of the half (16), channel of the pair (2). So the multiplication reads 1 KB runs in order, and the channels
//! of a pair, which lie side by side there, are put side by side before the transform, when they are bytes of 9 taps still.

use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, WEIGHTS, load_8_weights, store_i16};
use std::arch::x86_64::*;

/// Rows of points are made two at a time: those two that have most sums in common.
pub(super) const ROWS: usize = 2;

/// Which two rows of points are made in each of A / 2 steps.
pub(super) const fn rows<const A: usize>(step: usize) -> [usize; ROWS] {
    if step == 0 { [0, A - 1] } else { [2 * step - 1, 2 * step] }
}

/// All of U, for m = 4.
#[target_feature(enable = "avx2")]
pub(super) fn weights4(filters: &[i8], u: &mut [i16]) {
    for step in 0..3 {
        some4(filters, step, 36, rows::<6>(step).map(|row| row * 6), u);
    }
}

/// All of U, for m = 2.
#[target_feature(enable = "avx2")]
pub(super) fn weights2(filters: &[i8], u: &mut [i16]) {
    for step in 0..2 {
        some2(filters, step, 16, rows::<4>(step).map(|row| row * 4), u);
    }
}

/// The two rows of points of `step`, for m = 4. `u` has room for `points` a block; `first` says which two of them the rows
/// begin at.
#[target_feature(enable = "avx2")]
pub(super) fn some4(filters: &[i8], step: usize, points: usize, first: [usize; ROWS], u: &mut [i16]) {
    let row = |column| line4(column);
    match step {
        0 => some::<6>(filters, points, first, u, |g| outer4(g), row),
        1 => some::<6>(filters, points, first, u, |g| ones4(g), row),
        _ => some::<6>(filters, points, first, u, |g| twos4(g), row),
    }
}

/// The two rows of points of `step`, for m = 2, as in [`some4`].
#[target_feature(enable = "avx2")]
pub(super) fn some2(filters: &[i8], step: usize, points: usize, first: [usize; ROWS], u: &mut [i16]) {
    let row = |column: [__m256i; 3]| {
        let [g0, g1, g2] = column;
        let [sum, difference] = ones2([g0, g1, g2]);
        [g0, sum, difference, g2]
    };
    match step {
        0 => some::<4>(filters, points, first, u, |g| [g[0], g[2]], row),
        _ => some::<4>(filters, points, first, u, |g| ones2(g), row),
    }
}

/// Two rows of U = G g Gᵀ: of G g by `two`, a column of the filters at a time; then each by `row`.
#[inline]
#[target_feature(enable = "avx2")]
fn some<const A: usize>(
    filters: &[i8],
    points: usize,
    first: [usize; ROWS],
    u: &mut [i16],
    two: impl Fn([__m256i; 3]) -> [__m256i; ROWS],
    row: impl Fn([__m256i; 3]) -> [__m256i; A],
) {
    let blocks = filters.chunks_exact(9 * BLOCK * BLOCK).zip(u.chunks_exact_mut(2 * points * WEIGHTS));
    for (filters, u) in blocks {
        for (pair, filters) in filters.chunks_exact(2 * 9 * BLOCK).enumerate() {
            for o in (0..BLOCK).step_by(8) {
                // Slices of a length that the compiler knows need no more checks.
                let filters = &filters[o..][..17 * BLOCK + 8];
                let column = |kx: usize| {
                    let at = kx * BLOCK;
                    two([tap(filters, at), tap(filters, at + 3 * BLOCK), tap(filters, at + 6 * BLOCK)])
                };
                let (a, b, c) = (column(0), column(1), column(2));
                let at = o / CHANNELS * WEIGHTS + pair * 2 * CHANNELS + o % CHANNELS * 2;
                store_row(u, first[0], at, row([a[0], b[0], c[0]]));
                store_row(u, first[1], at, row([a[1], b[1], c[1]]));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_row<const A: usize>(u: &mut [i16], first: usize, at: usize, row: [__m256i; A]) {
    let u = &mut u[first * 2 * WEIGHTS + at..][..(A - 1) * 2 * WEIGHTS + 16];
    for (x, point) in row.into_iter().enumerate() {
        store_i16(u, x * 2 * WEIGHTS, point);
    }
}

/// The weights of two input channels × 8 output channels, the pair side by side.
#[inline]
#[target_feature(enable = "avx2")]
fn tap(filters: &[i8], at: usize) -> __m256i {
    let (even, odd) = (load_8_weights(filters, at), load_8_weights(filters, at + 9 * BLOCK));
    _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd))
}

/// G g for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn line4(g: [__m256i; 3]) -> [__m256i; 6] {
    let ([first, last], [a, b], [c, d]) = (outer4(g), ones4(g), twos4(g));
    [first, a, b, c, d, last]
}

/// Rows 0 and 5 of G g for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn outer4(g: [__m256i; 3]) -> [__m256i; ROWS] {
    [_mm256_mullo_epi16(g[0], _mm256_set1_epi16(6)), g[2]]
}

/// Rows 1 and 2 of G g for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn ones4(g: [__m256i; 3]) -> [__m256i; ROWS] {
    let outer = _mm256_slli_epi16::<2>(_mm256_add_epi16(g[0], g[2]));
    let middle = _mm256_slli_epi16::<2>(g[1]);
    let zero = _mm256_setzero_si256();
    [_mm256_sub_epi16(zero, _mm256_add_epi16(outer, middle)), _mm256_sub_epi16(middle, outer)]
}

/// Rows 3 and 4 of G g for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn twos4(g: [__m256i; 3]) -> [__m256i; ROWS] {
    let (low, high) = (_mm256_add_epi16(g[0], _mm256_slli_epi16::<2>(g[2])), _mm256_add_epi16(g[1], g[1]));
    [_mm256_add_epi16(low, high), _mm256_sub_epi16(low, high)]
}

/// Rows 1 and 2 of G g for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn ones2(g: [__m256i; 3]) -> [__m256i; ROWS] {
    let outer = _mm256_add_epi16(g[0], g[2]);
    [_mm256_add_epi16(outer, g[1]), _mm256_sub_epi16(outer, g[1])]
}
