//! Winograd F(4 × 4, 3 × 3) with AVX-512 VNNI: `vpdpwssd` adds two products of i16 to each of 16 sums.
//!
//! The multiplication is, for each of the 36 points, a product of matrices: tiles × channels × 32 output channels. Its
//! register tile is that of the [direct kernel](crate::kernels::direct): 14 tiles (in the place of pixels) × 32 channels, two
//! input channels a step. U of one point, which every group of 14 tiles reads again, is 64 bytes an input channel and stays
//! in the first cache; V is streamed. U: point, input block, pair of channels (16), output channel (32), channel of the pair.
//! M: tile, point, output channel.
//!
//! A block of a channel's numbers is one register of i16, so the transforms of inputs and of weights work on whole registers.
//! U's pairs are made by unpacking, which works on the four quarters of a register: it leaves, of 32 output channels, the even
//! groups of four in one register and the odd ones in the other. That order stays, through M, until the bytes are packed.
//!
//! Of the [matrices](super::F4), the last row of G is multiplied by 3 and the last column of Aᵀ divided by it, 24 to 8: so that a
//! shift does where two more operations were, and there are more outputs than filters.
#![allow(unsafe_code)] // The entries from the table, loads, stores, and the instruction by name.

use super::{Fly, FlyMultiply, InputTiles, Multiply, OutputTiles, Winograd};
use crate::kernels::BLOCK;
use crate::kernels::epilogue::avx512vnni::Lanes;
use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

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
    fly: Some(Fly {
        scratch_count: |blocks| 6 * blocks * U_BLOCK,
        // SAFETY: as above.
        multiply: |task| unsafe { multiply_filters(task) },
    }),
    // SAFETY: as above.
    output: |tiles| unsafe { output(tiles) },
};

/// Points of a transformed tile.
const POINTS: usize = 36;

/// Numbers of U of one point and one input block.
const U_BLOCK: usize = BLOCK * BLOCK;

/// Lines of the cache that those are.
const U_LINES: usize = U_BLOCK / BLOCK;

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
    // SAFETY: the slice holds 64 bytes, and T is an integer here, which may have any bits.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn weights(filters: &[i8], u: &mut [i16]) {
    let row = filters.len() / (9 * BLOCK * BLOCK) * 6 * U_BLOCK;
    for (y, u) in u.chunks_exact_mut(row.max(1)).enumerate().take(6) {
        weights_row(filters, y, u);
    }
}

/// One row of points of U. A row at a time, since its six points are written a power of two bytes apart, where six lines share
/// a set of the first cache but 36 would not.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn weights_row(filters: &[i8], row: usize, u: &mut [i16]) {
    match row {
        0 => weights_row_of::<0>(filters, u),
        1 => weights_row_of::<1>(filters, u),
        2 => weights_row_of::<2>(filters, u),
        3 => weights_row_of::<3>(filters, u),
        4 => weights_row_of::<4>(filters, u),
        _ => weights_row_of::<5>(filters, u),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn weights_row_of<const ROW: usize>(filters: &[i8], u: &mut [i16]) {
    let point = filters.len() / (9 * BLOCK * BLOCK) * U_BLOCK;
    for (pair, filters) in filters.chunks_exact(2 * 9 * BLOCK).enumerate() {
        let points = [filter_row::<ROW>(filters), filter_row::<ROW>(&filters[9 * BLOCK..])];
        for x in 0..6 {
            let at = x * point + pair * STEP;
            store(&mut u[at..], _mm512_unpacklo_epi16(points[0][x], points[1][x]));
            store(&mut u[at + BLOCK..], _mm512_unpackhi_epi16(points[0][x], points[1][x]));
        }
    }
}

/// One row of points of one input channel's filters.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn filter_row<const ROW: usize>(filters: &[i8]) -> [__m512i; 6] {
    let filters = &filters[..9 * BLOCK];
    // SAFETY: the slice holds 32 bytes of each of nine taps.
    let tap = |tap: usize| unsafe { _mm256_loadu_si256(filters.as_ptr().add(tap * BLOCK).cast()) };
    // A row of G g, a column of the filter at a time; then (G g) Gᵀ.
    let column = |x: usize| filter_point::<ROW>(tap(x), tap(x + 3), tap(x + 6));
    filter_points(column(0), column(1), column(2))
}

/// One row of G times a column of three, widened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn filter_point<const ROW: usize>(a: __m256i, b: __m256i, c: __m256i) -> __m512i {
    let (a, b, c) = (_mm512_cvtepi8_epi16(a), _mm512_cvtepi8_epi16(b), _mm512_cvtepi8_epi16(c));
    match ROW {
        0 => _mm512_add_epi16(_mm512_slli_epi16::<2>(a), _mm512_slli_epi16::<1>(a)),
        1 => {
            let sum = _mm512_add_epi16(_mm512_add_epi16(a, b), c);
            _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_slli_epi16::<2>(sum))
        }
        2 => _mm512_slli_epi16::<2>(_mm512_sub_epi16(_mm512_sub_epi16(b, a), c)),
        3 => _mm512_add_epi16(_mm512_add_epi16(a, _mm512_slli_epi16::<1>(b)), _mm512_slli_epi16::<2>(c)),
        4 => _mm512_add_epi16(_mm512_sub_epi16(a, _mm512_slli_epi16::<1>(b)), _mm512_slli_epi16::<2>(c)),
        _ => _mm512_sub_epi16(_mm512_slli_epi16::<2>(c), c),
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
        _mm512_sub_epi16(c4, c),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn input(task: InputTiles<'_>) {
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply(task: Multiply<'_>) {
    let Multiply { v, blocks, tiles, range, u, m } = task;
    let mut product = Product { v, tiles, range, m };
    for (point, u) in u.chunks_exact(blocks * U_BLOCK).enumerate().take(POINTS) {
        multiply_point(&mut product, point, u, true);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_filters(task: FlyMultiply<'_>) {
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn output(task: OutputTiles<'_>) {
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
        for y in 0..ROWS {
            for pair in 0..ROWS / 2 {
                if y < rows && 2 * pair < columns {
                    let at = (row / step + y) * row_bytes + (column / step + 2 * pair) * BLOCK;
                    let bytes = lanes.join(pairs[0][y][pair], pairs[1][y][pair]);
                    store_pixels(&mut output[at..], columns - 2 * pair, bytes);
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
    let inverse = _mm512_set1_epi32(super::F4.inverse);
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
