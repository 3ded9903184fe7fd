//! Inputs and weights to the points of Winograd convolution, 16 channels at a time. All sums fit i16: see the bounds in
//! [`crate::kernels::winograd`].

use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, WEIGHTS, load_weights, store_i16, widen_u8};
use crate::kernels::winograd::InputTiles;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn input4(tiles: InputTiles<'_>) {
    input::<4, 6>(tiles, |d| input_line4(d));
}

#[target_feature(enable = "avx2")]
pub(super) fn input2(tiles: InputTiles<'_>) {
    input::<2, 4>(tiles, |d| input_line2(d));
}

#[target_feature(enable = "avx2")]
pub(super) fn weights4(filters: &[i8], u: &mut [i16]) {
    weights::<6>(filters, u, |g| weight_line4(g));
}

#[target_feature(enable = "avx2")]
pub(super) fn weights2(filters: &[i8], u: &mut [i16]) {
    weights::<4>(filters, u, |g| weight_line2(g));
}

/// V = Bᵀ d B: first the columns of d, of which neighbouring tiles share two, then the rows.
#[inline]
#[target_feature(enable = "avx2")]
fn input<const M: usize, const A: usize>(tiles: InputTiles<'_>, line: impl Fn([__m256i; A]) -> [__m256i; A]) {
    let InputTiles { input, plane, block, tile_rows, v } = tiles;
    let tile_columns = plane.columns.div_ceil(M);
    let count = tile_rows.len() * tile_columns;
    for (index, tile_row) in tile_rows.enumerate() {
        let window = &input[plane.window(block, tile_row * M, 3)..];
        for half in [0, 16] {
            let column = |x: usize| {
                let mut d = [_mm256_setzero_si256(); A];
                for (y, d) in d.iter_mut().enumerate() {
                    *d = widen_u8(window, y * plane.row_bytes() + x * BLOCK + half);
                }
                line(d)
            };
            let mut columns = [[_mm256_setzero_si256(); A]; A];
            (columns[M], columns[M + 1]) = (column(0), column(1));
            for tile_column in 0..tile_columns {
                (columns[0], columns[1]) = (columns[M], columns[M + 1]);
                for (x, transformed) in columns.iter_mut().enumerate().skip(2) {
                    *transformed = column(tile_column * M + x);
                }
                let tile = index * tile_columns + tile_column;
                for y in 0..A {
                    let mut d = [_mm256_setzero_si256(); A];
                    for (d, column) in d.iter_mut().zip(&columns) {
                        *d = column[y];
                    }
                    for (x, point) in line(d).into_iter().enumerate() {
                        store_i16(v, ((y * A + x) * count + tile) * BLOCK + half, point);
                    }
                }
            }
        }
    }
}

/// U = G g Gᵀ of pairs of input channels.
#[inline]
#[target_feature(enable = "avx2")]
fn weights<const A: usize>(filters: &[i8], u: &mut [i16], line: impl Fn([__m256i; 3]) -> [__m256i; A]) {
    let blocks = filters.len() / (9 * BLOCK * BLOCK);
    for (pair, filters) in filters.chunks_exact(2 * 9 * BLOCK).enumerate() {
        let (even, odd) = filters.split_at(9 * BLOCK);
        for half in 0..2 {
            let first = half * CHANNELS;
            let (even, odd) = (points(even, first, &line), points(odd, first, &line));
            let at = half * blocks * WEIGHTS + pair * 2 * CHANNELS;
            for (row, (even, odd)) in even.iter().zip(&odd).enumerate() {
                for (column, (&even, &odd)) in even.iter().zip(odd).enumerate() {
                    let at = at + (row * A + column) * 2 * blocks * WEIGHTS;
                    store_i16(u, at, _mm256_unpacklo_epi16(even, odd));
                    store_i16(u, at + CHANNELS, _mm256_unpackhi_epi16(even, odd));
                }
            }
        }
    }
}

/// The points of one input channel and 16 output channels from `first` on. Of these the second and the third four are
/// exchanged, which is the order that `vpunpck` turns into the right one.
#[inline]
#[target_feature(enable = "avx2")]
fn points<const A: usize>(
    filters: &[i8],
    first: usize,
    line: &impl Fn([__m256i; 3]) -> [__m256i; A],
) -> [[__m256i; A]; A] {
    let tap = |ky: usize, kx: usize| {
        let weights = load_weights(filters, (3 * ky + kx) * BLOCK + first);
        _mm256_cvtepi8_epi16(_mm_shuffle_epi32::<0b11_01_10_00>(weights))
    };
    let columns = [
        line([tap(0, 0), tap(1, 0), tap(2, 0)]),
        line([tap(0, 1), tap(1, 1), tap(2, 1)]),
        line([tap(0, 2), tap(1, 2), tap(2, 2)]),
    ];
    let mut points = [[_mm256_setzero_si256(); A]; A];
    for (y, points) in points.iter_mut().enumerate() {
        *points = line([columns[0][y], columns[1][y], columns[2][y]]);
    }
    points
}

/// Bᵀ d for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn input_line4(d: [__m256i; 6]) -> [__m256i; 6] {
    let a = _mm256_sub_epi16(d[4], _mm256_slli_epi16::<2>(d[2]));
    let b = _mm256_sub_epi16(d[3], _mm256_slli_epi16::<2>(d[1]));
    let c = _mm256_sub_epi16(d[4], d[2]);
    let e = _mm256_slli_epi16::<1>(_mm256_sub_epi16(d[3], d[1]));
    [
        _mm256_add_epi16(_mm256_slli_epi16::<2>(_mm256_sub_epi16(d[0], d[2])), c),
        _mm256_add_epi16(a, b),
        _mm256_sub_epi16(a, b),
        _mm256_add_epi16(c, e),
        _mm256_sub_epi16(c, e),
        _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(e, e)),
    ]
}

/// Bᵀ d for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn input_line2(d: [__m256i; 4]) -> [__m256i; 4] {
    [
        _mm256_sub_epi16(d[0], d[2]),
        _mm256_add_epi16(d[1], d[2]),
        _mm256_sub_epi16(d[2], d[1]),
        _mm256_sub_epi16(d[1], d[3]),
    ]
}

/// G g for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn weight_line4(g: [__m256i; 3]) -> [__m256i; 6] {
    let twice = |w: __m256i| _mm256_add_epi16(w, w);
    let (outer, middle) = (_mm256_slli_epi16::<2>(_mm256_add_epi16(g[0], g[2])), _mm256_slli_epi16::<2>(g[1]));
    let (low, high) = (_mm256_add_epi16(g[0], _mm256_slli_epi16::<2>(g[2])), twice(g[1]));
    let zero = _mm256_setzero_si256();
    [
        twice(_mm256_add_epi16(twice(g[0]), g[0])),
        _mm256_sub_epi16(zero, _mm256_add_epi16(outer, middle)),
        _mm256_sub_epi16(middle, outer),
        _mm256_add_epi16(low, high),
        _mm256_sub_epi16(low, high),
        g[2],
    ]
}

/// G g for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn weight_line2(g: [__m256i; 3]) -> [__m256i; 4] {
    let outer = _mm256_add_epi16(g[0], g[2]);
    [g[0], _mm256_add_epi16(outer, g[1]), _mm256_sub_epi16(outer, g[1]), g[2]]
}
