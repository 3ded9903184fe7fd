//! Inputs to the points of Winograd convolution, 16 channels at a time. All sums fit i16: see the bounds in
//! [`crate::kernels::winograd`].
#![allow(unsafe_code)] // Stores of points, whose bounds are checked once for all of a tile.

use crate::kernels::BLOCK;
use crate::kernels::avx2::widen_u8;
use crate::kernels::winograd::InputTiles;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn input4(tiles: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = tiles;
    let tile_columns = plane.columns.div_ceil(4);
    let stride = tile_rows.len() * tile_columns * BLOCK;
    for (index, tile_row) in tile_rows.enumerate() {
        let window = &input[plane.window(block, tile_row * 4, 3)..];
        let at = |x: usize, half: usize| Window { pixels: &window[x * BLOCK + half..], row_bytes: plane.row_bytes() };
        let mut low = [at(0, 0).column4(0), at(0, 0).column4(1)];
        let mut high = [at(0, 16).column4(0), at(0, 16).column4(1)];
        for tile_column in 0..tile_columns {
            let tile = (index * tile_columns + tile_column) * BLOCK;
            tile4(&at(4 * tile_column, 0), &mut low, Points::new(v, tile, stride));
            tile4(&at(4 * tile_column, 16), &mut high, Points::new(v, tile + 16, stride));
        }
    }
}

/// Bᵀ d, a column at a time, of which neighbouring tiles share two (`shared`: this tile's first two, then the next one's);
/// then (Bᵀ d) B.
#[target_feature(enable = "avx2")]
fn tile4(window: &Window<'_>, shared: &mut [[__m256i; 6]; 2], mut points: Points<'_, 6>) {
    let (c2, c3) = (window.column4(2), window.column4(3));
    let (c4, c5) = (window.column4(4), window.column4(5));
    let [c0, c1] = shared;
    for y in 0..6 {
        points.store(y, input_line4([c0[y], c1[y], c2[y], c3[y], c4[y], c5[y]]));
    }
    *shared = [c4, c5];
}

/// 16 channels of the pixels that a tile reads.
struct Window<'a> {
    pixels: &'a [u8],
    row_bytes: usize,
}

impl Window<'_> {
    /// Column `x`, transformed for m = 4.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn column4(&self, x: usize) -> [__m256i; 6] {
        let d = |y: usize| widen_u8(self.pixels, y * self.row_bytes + x * BLOCK);
        input_line4([d(0), d(1), d(2), d(3), d(4), d(5)])
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn input2(tiles: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = tiles;
    let tile_columns = plane.columns.div_ceil(2);
    let stride = tile_rows.len() * tile_columns * BLOCK;
    for (index, tile_row) in tile_rows.enumerate() {
        let window = &input[plane.window(block, tile_row * 2, 3)..];
        let column = |x: usize, half: usize| {
            let d = |y: usize| widen_u8(window, y * plane.row_bytes() + x * BLOCK + half);
            input_line2([d(0), d(1), d(2), d(3)])
        };
        // As for m = 4.
        let mut shared = [[column(0, 0), column(1, 0)], [column(0, 16), column(1, 16)]];
        for tile_column in 0..tile_columns {
            let x = 2 * tile_column;
            for (half, shared) in [0, 16].into_iter().zip(&mut shared) {
                let [c0, c1] = *shared;
                let (c2, c3) = (column(x + 2, half), column(x + 3, half));
                *shared = [c2, c3];
                let mut points = Points::<4>::new(v, (index * tile_columns + tile_column) * BLOCK + half, stride);
                for y in 0..4 {
                    points.store(y, input_line2([c0[y], c1[y], c2[y], c3[y]]));
                }
            }
        }
    }
}

/// The A × A points of a tile, 16 channels of them, to be written.
struct Points<'a, const A: usize> {
    first: &'a mut [i16],
    stride: usize,
}

impl<'a, const A: usize> Points<'a, A> {
    /// The first one is at `at`, the next `stride` further on, and so forth.
    #[inline]
    fn new(v: &'a mut [i16], at: usize, stride: usize) -> Self {
        let first = &mut v[at..];
        assert!(first.len() >= (A * A - 1) * stride + 16);
        Self { first, stride }
    }

    /// Stores a row of points.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(&mut self, y: usize, row: [__m256i; A]) {
        for (x, point) in row.into_iter().enumerate() {
            let at = (y.min(A - 1) * A + x) * self.stride;
            // SAFETY: `at` is at most (A² − 1) strides, after which `new` found room for the 16 numbers that are written.
            unsafe { _mm256_storeu_si256(self.first.as_mut_ptr().add(at).cast(), point) }
        }
    }
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
