//! M back to outputs: requantized, pooled, stored. 16 channels at a time.
#![allow(unsafe_code)] // A store of one pixel.

use super::{POINTS, load, store};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx512vnni::Lanes;
use crate::kernels::winograd::{F4, OutputTiles};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn output(task: OutputTiles<'_>) {
    if task.pool { output_tiles::<true, 2>(task) } else { output_tiles::<false, 4>(task) }
}

/// With `ROWS` rows of output a tile: four, or two of the maxima of 2 × 2 cells.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn output_tiles<const POOL: bool, const ROWS: usize>(task: OutputTiles<'_>) {
    let OutputTiles { m, rows, columns, epilogue, output, row_bytes, .. } = task;
    let (tile_columns, step) = (columns.div_ceil(4), 4 / ROWS);
    let count = rows.div_ceil(4) * tile_columns;
    let lanes = Lanes::new_unpacked(epilogue);
    for (tile, m) in m.chunks_exact(POINTS * BLOCK).enumerate().take(count) {
        let (row, column) = (tile / tile_columns * 4, tile % tile_columns * 4);
        // A pair of pixels a register, half of the channels at a time.
        let mut pairs = [[[_mm512_setzero_si512(); 2]; ROWS]; 2];
        for (half, pairs) in pairs.iter_mut().enumerate() {
            *pairs = half_tile::<POOL, ROWS>(m, half, &lanes);
        }
        let (rows, columns) = ((rows - row) / step, (columns - column) / step);
        for (y, (low, high)) in pairs[0].iter().zip(&pairs[1]).enumerate() {
            for (pair, (&low, &high)) in low.iter().zip(high).enumerate().take(ROWS / 2) {
                if y < rows && 2 * pair < columns {
                    let at = (row / step + y) * row_bytes + (column / step + 2 * pair) * BLOCK;
                    store_pixels(&mut output[at..], columns - 2 * pair, lanes.join(low, high));
                }
            }
        }
    }
}

/// The outputs of half the channels, requantized: rows of pairs of pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn half_tile<const POOL: bool, const ROWS: usize>(m: &[i32], half: usize, lanes: &Lanes) -> [[__m512i; 2]; ROWS] {
    let m = &m[half * 16..POINTS * BLOCK];
    // Aᵀ M, a column of points at a time; then (Aᵀ M) A, a row at a time.
    let column = |x: usize| {
        let point = |y: usize| load(&m[(y * 6 + x) * BLOCK..]);
        output_points([point(0), point(1), point(2), point(3), point(4), point(5)])
    };
    let columns = [column(0), column(1), column(2), column(3), column(4), column(5)];
    // The true sums of a row: of 576 × them the inverse of 9 leaves 2⁶ ×.
    let inverse = _mm512_set1_epi32(F4.inverse);
    let sums = |y: usize| {
        let column = |x: usize| columns[x][y];
        let scaled = output_points([column(0), column(1), column(2), column(3), column(4), column(5)]);
        let sum = |x: usize| _mm512_srai_epi32::<6>(_mm512_mullo_epi32(scaled[x], inverse));
        [sum(0), sum(1), sum(2), sum(3)]
    };
    let max = |a, b| _mm512_max_epi32(a, b);
    let mut rows = [[_mm512_setzero_si512(); 2]; ROWS];
    for (y, pairs) in rows.iter_mut().enumerate() {
        if POOL {
            // Since no multiplier is below 0, the greatest sum has the greatest byte.
            let (top, bottom) = (sums(2 * y), sums(2 * y + 1));
            let (left, right) = (max(top[0], top[1]), max(top[2], top[3]));
            let (left, right) = (max(left, max(bottom[0], bottom[1])), max(right, max(bottom[2], bottom[3])));
            pairs[0] = lanes.requantize(half, left, right);
        } else {
            let sums = sums(y);
            *pairs = [lanes.requantize(half, sums[0], sums[1]), lanes.requantize(half, sums[2], sums[3])];
        }
    }
    rows
}

/// Aᵀ times a column of six.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn output_points(m: [__m512i; 6]) -> [__m512i; 4] {
    let (sum, difference) = (_mm512_add_epi32(m[1], m[2]), _mm512_sub_epi32(m[1], m[2]));
    let (far_sum, far_difference) = (_mm512_add_epi32(m[3], m[4]), _mm512_sub_epi32(m[3], m[4]));
    [
        _mm512_add_epi32(m[0], _mm512_add_epi32(sum, far_sum)),
        _mm512_add_epi32(difference, _mm512_slli_epi32::<1>(far_difference)),
        _mm512_add_epi32(sum, _mm512_slli_epi32::<2>(far_sum)),
        _mm512_add_epi32(difference, _mm512_slli_epi32::<3>(_mm512_add_epi32(far_difference, m[5]))),
    ]
}

/// Stores two pixels, or the first of them where only one is left.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store_pixels(output: &mut [u8], count: usize, bytes: __m512i) {
    if count >= 2 {
        store(output, bytes);
    } else if count == 1 {
        let output = &mut output[..BLOCK];
        // SAFETY: the slice holds 32 bytes.
        unsafe { _mm256_storeu_si256(output.as_mut_ptr().cast(), _mm512_castsi512_si256(bytes)) }
    }
}
