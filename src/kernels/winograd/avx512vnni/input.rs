//! Inputs to V, 32 channels at a time.
#![allow(unsafe_code)] // Loads of pixels.

use super::{POINTS, store};
use crate::kernels::BLOCK;
use crate::kernels::winograd::InputTiles;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn input(task: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = task;
    let tile_columns = plane.columns.div_ceil(4);
    let count = tile_rows.len() * tile_columns;
    let v = &mut v[..POINTS * count * BLOCK];
    for (index, tile_row) in tile_rows.enumerate() {
        let rows = &input[plane.window(block, tile_row * 4, 3)..];
        let v = &mut v[index * tile_columns * BLOCK..];
        // Two rows of points at a time: a tile's 36 would not fit the registers.
        input_rows::<0>(rows, plane.row_bytes(), tile_columns, count, v);
        input_rows::<1>(rows, plane.row_bytes(), tile_columns, count, v);
        input_rows::<2>(rows, plane.row_bytes(), tile_columns, count, v);
    }
}

/// Of a row of tiles, whose inputs begin `rows`, the [points of a pair](input_pair) in V, whose points are `count` tiles apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn input_rows<const PAIR: usize>(rows: &[u8], row_bytes: usize, tiles: usize, count: usize, v: &mut [i16]) {
    let rows = &rows[..5 * row_bytes + (4 * tiles + 2) * BLOCK];
    let column = |x: usize| {
        // SAFETY: `rows` holds five rows and 4 · tiles + 2 pixels of 32 bytes of the sixth, and every x is below that.
        let pixel = |y: usize| unsafe { _mm256_loadu_si256(rows.as_ptr().add(y * row_bytes + x * BLOCK).cast()) };
        let pixel = |y: usize| _mm512_cvtepu8_epi16(pixel(y));
        input_pair::<PAIR>([pixel(0), pixel(1), pixel(2), pixel(3), pixel(4), pixel(5)])
    };
    // Bᵀ d, a column of inputs at a time; a tile shares its last two columns with the next.
    let (mut first, mut second) = (column(0), column(1));
    for tile in 0..tiles {
        let x = 4 * tile;
        let columns = [first, second, column(x + 2), column(x + 3), column(x + 4), column(x + 5)];
        (first, second) = (columns[4], columns[5]);
        for (index, y) in [[0, 5], [1, 2], [3, 4]][PAIR].into_iter().enumerate() {
            // (Bᵀ d) B.
            let column = |x: usize| columns[x][index];
            let row = [column(0), column(1), column(2), column(3), column(4), column(5)];
            for (pair, x) in [[0, 5], [1, 2], [3, 4]].into_iter().enumerate() {
                let points = match pair {
                    0 => input_pair::<0>(row),
                    1 => input_pair::<1>(row),
                    _ => input_pair::<2>(row),
                };
                for (x, value) in x.into_iter().zip(points) {
                    store(&mut v[((y * 6 + x) * count + tile) * BLOCK..], value);
                }
            }
        }
    }
}

/// Two of Bᵀ's six rows times a column: its first and last, the two of ±1, or the two of ±2, which share their sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn input_pair<const PAIR: usize>(d: [__m512i; 6]) -> [__m512i; 2] {
    let (add, sub) = (|a, b| _mm512_add_epi16(a, b), |a, b| _mm512_sub_epi16(a, b));
    let near = sub(d[4], d[2]);
    let twice = _mm512_slli_epi16::<1>(sub(d[3], d[1]));
    match PAIR {
        0 => [add(_mm512_slli_epi16::<2>(sub(d[0], d[2])), near), sub(sub(d[5], d[3]), _mm512_slli_epi16::<1>(twice))],
        1 => {
            let even = sub(d[4], _mm512_slli_epi16::<2>(d[2]));
            let odd = sub(d[3], _mm512_slli_epi16::<2>(d[1]));
            [add(even, odd), sub(even, odd)]
        }
        _ => [add(near, twice), sub(near, twice)],
    }
}
