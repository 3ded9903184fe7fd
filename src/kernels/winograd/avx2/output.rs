//! From the sums of products back to outputs, 8 channels at a time in i32, wrapping: y = Aᵀ M A, the division by f², the
//! epilogue, and the 2 × 2 max pooling, which is done on the sums: their order is the outputs', since no multiplier is
//! negative.

use crate::kernels::BLOCK;
use crate::kernels::avx2::{Channels, load_i32, pack, store_8_bytes, zero_point};
use crate::kernels::winograd::{F2, F4, OutputTiles};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn output4(tiles: OutputTiles<'_>) {
    let inverse = _mm256_set1_epi32(F4.inverse);
    let divide = |sum: __m256i| _mm256_srai_epi32::<{ F4.shift as i32 }>(_mm256_mullo_epi32(sum, inverse));
    match tiles.pool {
        true => output::<4, 6, 2>(tiles, |m| line4(m), divide),
        false => output::<4, 6, 4>(tiles, |m| line4(m), divide),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn output2(tiles: OutputTiles<'_>) {
    let divide = |sum: __m256i| _mm256_srai_epi32::<{ F2.shift as i32 }>(sum);
    match tiles.pool {
        true => output::<2, 4, 1>(tiles, |m| line2(m), divide),
        false => output::<2, 4, 2>(tiles, |m| line2(m), divide),
    }
}

/// All tiles, by lines of Aᵀ and by the division; each makes N × N pixels, with pooling fewer than M × M.
#[inline]
#[target_feature(enable = "avx2")]
fn output<const M: usize, const A: usize, const N: usize>(
    tiles: OutputTiles<'_>,
    line: impl Fn([__m256i; A]) -> [__m256i; M],
    divide: impl Fn(__m256i) -> __m256i,
) {
    let OutputTiles { m, rows, columns, epilogue, pool: _, output, row_bytes } = tiles;
    let zero_point = zero_point(epilogue);
    let channels = [0, 8, 16, 24].map(|first| (first, Channels::load(epilogue, first)));
    let (tile_rows, tile_columns) = (rows.div_ceil(M), columns.div_ceil(M));
    let count = tile_rows * tile_columns;
    // Rows and columns of the output in pixels as they are stored; an odd last one is dropped in pooling.
    let step = M / N;
    let (rows, columns) = (rows / step, columns / step);
    for tile in 0..count {
        let (row, column) = (tile / tile_columns * N, tile % tile_columns * N);
        for (first, channels) in &channels {
            // M A, a row of points at a time; then Aᵀ (M A), a column at a time.
            let mut half = [[_mm256_setzero_si256(); M]; A];
            for (y, half) in half.iter_mut().enumerate() {
                let mut points = [_mm256_setzero_si256(); A];
                for (x, point) in points.iter_mut().enumerate() {
                    *point = load_i32(m, ((y * A + x) * count + tile) * BLOCK + first);
                }
                *half = line(points);
            }
            let mut pixels = [[_mm256_set1_epi32(i32::MIN); N]; N];
            for x in 0..M {
                let mut points = [_mm256_setzero_si256(); A];
                for (point, half) in points.iter_mut().zip(&half) {
                    *point = half[x];
                }
                for (y, sum) in line(points).into_iter().enumerate() {
                    let pixel = &mut pixels[y / step][x / step];
                    *pixel = if step == 1 { divide(sum) } else { _mm256_max_epi32(*pixel, divide(sum)) };
                }
            }
            for four in (0..N * N).step_by(4) {
                let pixel = |index: usize| {
                    let index = (four + index).min(N * N - 1);
                    channels.steps(pixels[index / N][index % N])
                };
                let bytes = pack([pixel(0), pixel(1), pixel(2), pixel(3)], zero_point);
                let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
                let bytes = [low, _mm_unpackhi_epi64(low, low), high, _mm_unpackhi_epi64(high, high)];
                for (index, bytes) in (four..N * N).zip(bytes) {
                    let (y, x) = (row + index / N, column + index % N);
                    if y < rows && x < columns {
                        store_8_bytes(output, y * row_bytes + x * BLOCK + first, bytes);
                    }
                }
            }
        }
    }
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
