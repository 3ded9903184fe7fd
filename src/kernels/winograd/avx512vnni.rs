//! Winograd F(4 × 4, 3 × 3) with AVX-512 VNNI: `vpdpwssd` adds two products of i16 to each of 16 sums.
//!
//! The multiplication is, for each of the 36 points, a product of matrices: tiles × channels × 32 output channels. Its
//! register tile is that of the [direct kernel](crate::kernels::direct): 14 tiles (in the place of pixels) × 32 channels, two
//! input channels a step. U of one point, which every group of 14 tiles reads again, is 64 bytes an input channel and stays
//! in the first cache; V is streamed. U: point, input block, pair of channels (16), output channel (32), channel of the pair.
//!
//! A block of a pixel's channels is one register of i16, so the input's transform works on whole registers; M's sums are two
//! registers of i32 a point. The transform of weights works on pairs of channels as they lie in U: 16 output channels a
//! register.
#![allow(unsafe_code)] // The entries from the table, loads, stores, and the instruction by name.

use super::{InputTiles, Multiply, OutputTiles, Winograd};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx512vnni::{Lanes, Sums};
use std::arch::asm;
use std::arch::x86_64::*;

/// 14 tiles × 32 channels.
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) vpdpwssd 14×32",
    tile: 4,
    // SAFETY: the table hands these kernels out only where the processor has the instructions.
    weights: |filters, u| unsafe { weights(filters, u) },
    // SAFETY: as above.
    input: |tiles| unsafe { input(tiles) },
    // SAFETY: as above.
    multiply: |task| unsafe { multiply(task) },
    // SAFETY: as above.
    output: |tiles| unsafe { output(tiles) },
};

/// Points of a transformed tile.
const POINTS: usize = 36;

/// Numbers of U of one point and one input block.
const U_BLOCK: usize = BLOCK * BLOCK;

/// Numbers of U of a step: two input channels × 32 output channels.
const STEP: usize = 2 * BLOCK;

/// 32 numbers of i16 or 16 of i32 from the front of a slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load<T>(from: &[T]) -> __m512i {
    let from = &from[..64 / size_of::<T>()];
    // SAFETY: the slice holds 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Stores 64 bytes at the front of a slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store<T>(to: &mut [T], value: __m512i) {
    let to = &mut to[..64 / size_of::<T>()];
    // SAFETY: the slice holds 64 bytes, and T is i16 or i32 here, which may have any bits.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn weights(filters: &[i8], u: &mut [i16]) {
    let blocks = filters.len() / (9 * BLOCK * BLOCK);
    for (pair, filters) in filters.chunks_exact(2 * 9 * BLOCK).enumerate() {
        let (first, second) = filters.split_at(9 * BLOCK);
        // Taps of 16 output channels × the two input channels, for either half of the output channels.
        let mut taps = [[_mm512_setzero_si512(); 9]; 2];
        for tap in 0..9 {
            let channel = |filters: &[i8]| {
                let filters = &filters[tap * BLOCK..][..BLOCK];
                // SAFETY: the slice holds 32 bytes. In the order of quarters 0, 2, 1, 3 unpacking gives what is wanted.
                _mm256_permute4x64_epi64::<0b11_01_10_00>(unsafe { _mm256_loadu_si256(filters.as_ptr().cast()) })
            };
            let (first, second) = (channel(first), channel(second));
            taps[0][tap] = _mm512_cvtepi8_epi16(_mm256_unpacklo_epi8(first, second));
            taps[1][tap] = _mm512_cvtepi8_epi16(_mm256_unpackhi_epi8(first, second));
        }
        for (half, taps) in taps.iter().enumerate() {
            // G g, a column of the filter at a time; then (G g) Gᵀ.
            let columns: [[__m512i; 6]; 3] = std::array::from_fn(|x| filter_points(taps[x], taps[x + 3], taps[x + 6]));
            for y in 0..6 {
                let points = filter_points(columns[0][y], columns[1][y], columns[2][y]);
                for (x, &value) in points.iter().enumerate() {
                    let at = ((y * 6 + x) * blocks + pair / 16) * U_BLOCK + pair % 16 * STEP + half * BLOCK;
                    store(&mut u[at..], value);
                }
            }
        }
    }
}

/// G times a column of three.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn filter_points(a: __m512i, b: __m512i, c: __m512i) -> [__m512i; 6] {
    let (a2, b2) = (_mm512_slli_epi16::<1>(a), _mm512_slli_epi16::<1>(b));
    let (a4, b4, c4) = (_mm512_slli_epi16::<2>(a), _mm512_slli_epi16::<2>(b), _mm512_slli_epi16::<2>(c));
    let outer = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_add_epi16(a4, c4));
    let wide = _mm512_add_epi16(a, c4);
    [
        _mm512_add_epi16(a4, a2),
        _mm512_sub_epi16(outer, b4),
        _mm512_add_epi16(outer, b4),
        _mm512_add_epi16(wide, b2),
        _mm512_sub_epi16(wide, b2),
        c,
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn input(task: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = task;
    let tile_columns = plane.columns.div_ceil(4);
    let count = tile_rows.len() * tile_columns;
    let v = &mut v[..POINTS * count * BLOCK];
    for (index, tile_row) in tile_rows.enumerate() {
        let rows =
            &input[plane.window(block, tile_row * 4, 3)..][..5 * plane.row_bytes() + (4 * tile_columns + 2) * BLOCK];
        let column = |x: usize| {
            input_points(std::array::from_fn(|y| {
                let pixel = &rows[y * plane.row_bytes() + x * BLOCK..][..BLOCK];
                // SAFETY: the slice holds 32 bytes.
                _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(pixel.as_ptr().cast()) })
            }))
        };
        // Bᵀ d, a column of inputs at a time; a tile shares its last two columns with the next.
        let (mut first, mut second) = (column(0), column(1));
        for tile in 0..tile_columns {
            let columns =
                [first, second, column(4 * tile + 2), column(4 * tile + 3), column(4 * tile + 4), column(4 * tile + 5)];
            (first, second) = (columns[4], columns[5]);
            for y in 0..6 {
                // (Bᵀ d) B.
                let points = input_points(std::array::from_fn(|x| columns[x][y]));
                for (x, &value) in points.iter().enumerate() {
                    store(&mut v[((y * 6 + x) * count + index * tile_columns + tile) * BLOCK..], value);
                }
            }
        }
    }
}

/// Bᵀ times a column of six.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn input_points(d: [__m512i; 6]) -> [__m512i; 6] {
    let even = _mm512_sub_epi16(d[4], _mm512_slli_epi16::<2>(d[2]));
    let odd = _mm512_sub_epi16(d[3], _mm512_slli_epi16::<2>(d[1]));
    let near = _mm512_sub_epi16(d[4], d[2]);
    let twice = _mm512_slli_epi16::<1>(_mm512_sub_epi16(d[3], d[1]));
    [
        _mm512_add_epi16(_mm512_slli_epi16::<2>(_mm512_sub_epi16(d[0], d[2])), near),
        _mm512_add_epi16(even, odd),
        _mm512_sub_epi16(even, odd),
        _mm512_add_epi16(near, twice),
        _mm512_sub_epi16(near, twice),
        _mm512_sub_epi16(_mm512_sub_epi16(d[5], d[3]), _mm512_slli_epi16::<1>(twice)),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply(mut task: Multiply<'_>) {
    let tiles = task.range.len();
    let count = tiles.div_ceil(14);
    for point in 0..POINTS {
        for group in 0..count {
            let (from, to) = (tiles * group / count, tiles * (group + 1) / count);
            match to - from {
                1 => multiply_tile::<1>(&mut task, point, from),
                2 => multiply_tile::<2>(&mut task, point, from),
                3 => multiply_tile::<3>(&mut task, point, from),
                4 => multiply_tile::<4>(&mut task, point, from),
                5 => multiply_tile::<5>(&mut task, point, from),
                6 => multiply_tile::<6>(&mut task, point, from),
                7 => multiply_tile::<7>(&mut task, point, from),
                8 => multiply_tile::<8>(&mut task, point, from),
                9 => multiply_tile::<9>(&mut task, point, from),
                10 => multiply_tile::<10>(&mut task, point, from),
                11 => multiply_tile::<11>(&mut task, point, from),
                12 => multiply_tile::<12>(&mut task, point, from),
                13 => multiply_tile::<13>(&mut task, point, from),
                _ => multiply_tile::<14>(&mut task, point, from),
            }
        }
    }
}

/// `N` tiles of the range, from `from` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_tile<const N: usize>(task: &mut Multiply<'_>, point: usize, from: usize) {
    let Multiply { v, blocks, tiles, ref range, u, .. } = *task;
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    let u = &u[point * blocks * U_BLOCK..][..blocks * U_BLOCK];
    for (block, u) in u.chunks_exact(U_BLOCK).enumerate() {
        let v = &v[((block * POINTS + point) * tiles + range.start + from) * BLOCK..][..N * BLOCK];
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
    let m = &mut task.m[(point * range.len() + from) * BLOCK..][..N * BLOCK];
    for (sums, m) in sums.iter().zip(m.chunks_exact_mut(BLOCK)) {
        store(m, sums[0]);
        store(&mut m[16..], sums[1]);
    }
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn output(task: OutputTiles<'_>) {
    let OutputTiles { m, rows, columns, epilogue, pool, output, row_bytes } = task;
    let tile_columns = columns.div_ceil(4);
    let count = rows.div_ceil(4) * tile_columns;
    let m = &m[..POINTS * count * BLOCK];
    let lanes = Lanes::new(epilogue);
    for tile in 0..count {
        let (row, column) = (tile / tile_columns * 4, tile % tile_columns * 4);
        // Aᵀ M, a column of points at a time; then (Aᵀ M) A, a row at a time.
        let mut half = [[[_mm512_setzero_si512(); 2]; 6]; 4];
        for x in 0..6 {
            for side in 0..2 {
                let sums = std::array::from_fn(|y| load(&m[((y * 6 + x) * count + tile) * BLOCK + side * 16..]));
                let sums = output_points(sums);
                for y in 0..4 {
                    half[y][x][side] = sums[y];
                }
            }
        }
        let (rows, columns) = ((rows - row).min(4), (columns - column).min(4));
        if pool {
            for y in (0..rows - rows % 2).step_by(2) {
                let (top, bottom) = (pixels(&half[y]), pixels(&half[y + 1]));
                let pooled = std::array::from_fn(|x| {
                    max(max(top[2 * x], top[2 * x + 1]), max(bottom[2 * x], bottom[2 * x + 1]))
                });
                let at = (row + y) / 2 * row_bytes + column / 2 * BLOCK;
                store_some::<2>(&lanes, &pooled, columns / 2, &mut output[at..]);
            }
        } else {
            for (y, half) in half.iter().enumerate().take(rows) {
                let at = (row + y) * row_bytes + column * BLOCK;
                store_some::<4>(&lanes, &pixels(half), columns, &mut output[at..]);
            }
        }
    }
}

/// Aᵀ times a column of six.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn output_points(m: [__m512i; 6]) -> [__m512i; 4] {
    let (sum, difference) = (_mm512_add_epi32(m[1], m[2]), _mm512_sub_epi32(m[1], m[2]));
    let (far_sum, far_difference) = (_mm512_add_epi32(m[3], m[4]), _mm512_sub_epi32(m[3], m[4]));
    let thrice = _mm512_add_epi32(m[5], _mm512_slli_epi32::<1>(m[5]));
    [
        _mm512_add_epi32(m[0], _mm512_add_epi32(sum, far_sum)),
        _mm512_add_epi32(difference, _mm512_slli_epi32::<1>(far_difference)),
        _mm512_add_epi32(sum, _mm512_slli_epi32::<2>(far_sum)),
        _mm512_add_epi32(difference, _mm512_slli_epi32::<3>(_mm512_add_epi32(far_difference, thrice))),
    ]
}

/// The true sums of a row of four outputs: of 576 × them the inverse of 9 leaves 2⁶ ×.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn pixels(half: &[Sums; 6]) -> [Sums; 4] {
    let inverse = _mm512_set1_epi32(super::F4.inverse);
    let mut pixels = [[_mm512_setzero_si512(); 2]; 4];
    for side in 0..2 {
        let sums = output_points(std::array::from_fn(|x| half[x][side]));
        for (pixel, sum) in pixels.iter_mut().zip(sums) {
            pixel[side] = _mm512_srai_epi32::<6>(_mm512_mullo_epi32(sum, inverse));
        }
    }
    pixels
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn max(a: Sums, b: Sums) -> Sums {
    [_mm512_max_epi32(a[0], b[0]), _mm512_max_epi32(a[1], b[1])]
}

/// Stores the first `count` of `N` pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store_some<const N: usize>(lanes: &Lanes, pixels: &[Sums; N], count: usize, output: &mut [u8]) {
    if count == N {
        lanes.store(pixels, output);
    } else {
        let mut bytes = [0; 4 * BLOCK];
        lanes.store(pixels, &mut bytes);
        output[..count * BLOCK].copy_from_slice(&bytes[..count * BLOCK]);
    }
}
