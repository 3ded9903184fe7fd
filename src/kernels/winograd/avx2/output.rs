//! From the sums of products back to outputs, 8 channels at a time in i32, wrapping: y = Aᵀ M A, the division by f², the
//! epilogue, and the 2 × 2 max pooling, which is done on the sums: their order is the outputs', since no multiplier is
//! negative.

use crate::kernels::avx2::{load_i32, store_8_bytes};
use crate::kernels::epilogue::avx2::{Channels, pack, zero_point};
use crate::kernels::winograd::{F2, F4, OutputTiles};
use crate::kernels::{BLOCK, Epilogue};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn output4(tiles: OutputTiles<'_>) {
    output::<4, 6>(tiles, |points, pool, pixels, first| {
        let [r0, r1, r2, r3, r4, r5] =
            [row4(points, 0), row4(points, 1), row4(points, 2), row4(points, 3), row4(points, 4), row4(points, 5)];
        let column = |x: usize| {
            let [a, b, c, d] = line4([r0[x], r1[x], r2[x], r3[x], r4[x], r5[x]]);
            [divide4(a), divide4(b), divide4(c), divide4(d)]
        };
        let [a, b, c, d] = [column(0), column(1), column(2), column(3)];
        if pool {
            let greatest = |y: usize, a: &[__m256i; 4], b: &[__m256i; 4]| max4(a[y], b[y], a[y + 1], b[y + 1]);
            let cells = [greatest(0, &a, &b), greatest(0, &c, &d), greatest(2, &a, &b), greatest(2, &c, &d)];
            pixels.store(first, [(0, 0), (0, 1), (1, 0), (1, 1)], cells);
        } else {
            pixels.store(first, [(0, 0), (0, 1), (0, 2), (0, 3)], [a[0], b[0], c[0], d[0]]);
            pixels.store(first, [(1, 0), (1, 1), (1, 2), (1, 3)], [a[1], b[1], c[1], d[1]]);
            pixels.store(first, [(2, 0), (2, 1), (2, 2), (2, 3)], [a[2], b[2], c[2], d[2]]);
            pixels.store(first, [(3, 0), (3, 1), (3, 2), (3, 3)], [a[3], b[3], c[3], d[3]]);
        }
    });
}

#[target_feature(enable = "avx2")]
pub(super) fn output2(tiles: OutputTiles<'_>) {
    output::<2, 4>(tiles, |points, pool, pixels, first| {
        let [r0, r1, r2, r3] = [row2(points, 0), row2(points, 1), row2(points, 2), row2(points, 3)];
        let column = |x: usize| {
            let [a, b] = line2([r0[x], r1[x], r2[x], r3[x]]);
            [divide2(a), divide2(b)]
        };
        let ([a, c], [b, d]) = (column(0), column(1));
        if pool {
            let greatest = max4(a, b, c, d);
            // Once is enough: the others are pushed outside.
            let outside = usize::MAX / 2;
            pixels.store(first, [(0, 0), (outside, 0), (outside, 0), (outside, 0)], [greatest; 4]);
        } else {
            pixels.store(first, [(0, 0), (0, 1), (1, 0), (1, 1)], [a, b, c, d]);
        }
    });
}

/// All tiles: `tile` makes 8 channels of one tile's pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn output<const M: usize, const A: usize>(
    tiles: OutputTiles<'_>,
    tile: impl Fn(&Points<'_, A>, bool, &mut Pixels<'_>, usize),
) {
    let OutputTiles { m, rows, columns, epilogue, pool, output, row_bytes } = tiles;
    let (tile_rows, tile_columns) = (rows.div_ceil(M), columns.div_ceil(M));
    let count = tile_rows * tile_columns;
    // In pixels as they are stored; an odd last row or column is dropped in pooling.
    let step = if pool { 2 } else { 1 };
    let mut pixels = Pixels {
        output,
        row_bytes,
        rows: rows / step,
        columns: columns / step,
        row: 0,
        column: 0,
        zero_point: zero_point(epilogue),
        epilogue,
    };
    for index in 0..count {
        (pixels.row, pixels.column) = (index / tile_columns * (M / step), index % tile_columns * (M / step));
        for first in (0..BLOCK).step_by(8) {
            tile(&Points::new(m, index, first), pool, &mut pixels, first);
        }
    }
}

/// The A × A points of a tile, 8 channels of them: from the first to the last.
struct Points<'a, const A: usize>(&'a [i32]);

impl<'a, const A: usize> Points<'a, A> {
    /// Those of the tile `index`, of the channels from `first` on.
    #[inline]
    fn new(m: &'a [i32], index: usize, first: usize) -> Self {
        Self(&m[index * A * A * BLOCK + first..][..(A * A - 1) * BLOCK + 8])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(&self, y: usize, x: usize) -> __m256i {
        // Of this length, so that the compiler needs no check for each.
        load_i32(&self.0[..(A * A - 1) * BLOCK + 8], (y * A + x) * BLOCK)
    }
}

/// Where a tile's pixels go.
struct Pixels<'a> {
    output: &'a mut [u8],
    row_bytes: usize,
    /// All rows and columns: what lies beyond is not stored.
    rows: usize,
    columns: usize,
    /// The tile's first row and column.
    row: usize,
    column: usize,
    zero_point: __m256i,
    epilogue: &'a Epilogue,
}

impl Pixels<'_> {
    /// Requantizes the sums of 8 channels from `first` on, and stores them at four pixels (row and column) of the tile.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(&mut self, first: usize, at: [(usize, usize); 4], sums: [__m256i; 4]) {
        let channels = Channels::load(self.epilogue, first);
        let [a, b, c, d] = sums;
        let steps = [channels.steps(a), channels.steps(b), channels.steps(c), channels.steps(d)];
        let bytes = pack(steps, self.zero_point);
        let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
        self.store_one(first, at[0], low);
        self.store_one(first, at[1], _mm_unpackhi_epi64(low, low));
        self.store_one(first, at[2], high);
        self.store_one(first, at[3], _mm_unpackhi_epi64(high, high));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_one(&mut self, first: usize, (y, x): (usize, usize), bytes: __m128i) {
        let (y, x) = (self.row + y, self.column + x);
        if y < self.rows && x < self.columns {
            store_8_bytes(self.output, y * self.row_bytes + x * BLOCK + first, bytes);
        }
    }
}

/// M A of a row of points, for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn row4(points: &Points<'_, 6>, y: usize) -> [__m256i; 4] {
    line4([
        points.load(y, 0),
        points.load(y, 1),
        points.load(y, 2),
        points.load(y, 3),
        points.load(y, 4),
        points.load(y, 5),
    ])
}

/// M A of a row of points, for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn row2(points: &Points<'_, 4>, y: usize) -> [__m256i; 2] {
    line2([points.load(y, 0), points.load(y, 1), points.load(y, 2), points.load(y, 3)])
}

/// The sum that is left of f² times it, for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn divide4(scaled: __m256i) -> __m256i {
    _mm256_srai_epi32::<{ F4.shift as i32 }>(_mm256_mullo_epi32(scaled, _mm256_set1_epi32(F4.inverse)))
}

/// The sum that is left of f² times it, for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn divide2(scaled: __m256i) -> __m256i {
    _mm256_srai_epi32::<{ F2.shift as i32 }>(scaled)
}

#[inline]
#[target_feature(enable = "avx2")]
fn max4(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_max_epi32(_mm256_max_epi32(a, b), _mm256_max_epi32(c, d))
}

/// Aᵀ M for m = 4.
#[inline]
#[target_feature(enable = "avx2")]
fn line4(m: [__m256i; 6]) -> [__m256i; 4] {
    let (sum, difference) = (_mm256_add_epi32(m[1], m[2]), _mm256_sub_epi32(m[1], m[2]));
    let (sum_2, difference_2) = (_mm256_add_epi32(m[3], m[4]), _mm256_sub_epi32(m[3], m[4]));
    // 8·difference_2 + 24·m5 = 8·(difference_2 + 3·m5)
    let last = _mm256_add_epi32(difference_2, _mm256_add_epi32(m[5], _mm256_add_epi32(m[5], m[5])));
    [
        _mm256_add_epi32(m[0], _mm256_add_epi32(sum, sum_2)),
        _mm256_add_epi32(difference, _mm256_add_epi32(difference_2, difference_2)),
        _mm256_add_epi32(sum, _mm256_slli_epi32::<2>(sum_2)),
        _mm256_add_epi32(difference, _mm256_slli_epi32::<3>(last)),
    ]
}

/// Aᵀ M for m = 2.
#[inline]
#[target_feature(enable = "avx2")]
fn line2(m: [__m256i; 4]) -> [__m256i; 2] {
    let twice = |m: __m256i| _mm256_add_epi32(m, m);
    [
        _mm256_add_epi32(_mm256_add_epi32(twice(m[0]), m[1]), m[2]),
        _mm256_sub_epi32(_mm256_sub_epi32(m[1], m[2]), twice(m[3])),
    ]
}
