//! The first layer with AVX2: five `vpmaddwd` for the nine taps of 8 channels.

use super::{First, FirstRow};
use crate::kernels::avx2::{broadcast_pair, load_bytes, store_16_bytes, store_i16, widen_u8};
use crate::kernels::epilogue::avx2::{Channels, pack, zero_point};
use crate::kernels::{BLOCK, Epilogue};
use std::arch::x86_64::*;

/// Two pixels × 16 channels: the 10 registers of their weights stay where they are.
pub(crate) const FIRST: First = First { name: "vpmaddwd 2×16", row: entry };

/// Pixels that are widened at a time.
const CHUNK: usize = 64;

/// Pixels of a chunk with its neighbours, rounded up to whole loads.
const WIDE: usize = (CHUNK + 2).next_multiple_of(16);

/// Four bytes of weights a channel: which of them become pairs of i16, in the upper bytes.
const COLUMNS_0_1: [i8; 4] = [-1, 0, -1, 1];
const COLUMN_2: [i8; 4] = [-1, 2, -1, 3];

#[allow(unsafe_code)] // The entry: a function that only a processor with AVX2 may run.
fn entry(task: FirstRow<'_>) {
    // SAFETY: AVX2 is there, since only `available()` hands this out.
    unsafe { row(task) }
}

#[target_feature(enable = "avx2")]
fn row(task: FirstRow<'_>) {
    let FirstRow { image, row, weights, epilogue, output } = task;
    let columns = output.len() / BLOCK;
    for from in (0..columns).step_by(CHUNK) {
        let count = CHUNK.min(columns - from);
        // Rows of the image as i16, and two of them interleaved, so that their third columns make a pair.
        let (mut rows, mut both) = ([[0i16; WIDE + 2]; 3], [0i16; 2 * WIDE]);
        for (ky, wide) in rows.iter_mut().enumerate() {
            let pixels = &image[(row + ky) * (columns + 2) + from..];
            for at in (0..count + 2).step_by(16) {
                store_i16(wide, at, widen_u8(pixels, at));
            }
        }
        let [top, middle, _] = &rows;
        for (pair, (&top, &middle)) in both.chunks_exact_mut(2).zip(top.iter().zip(middle)) {
            pair.copy_from_slice(&[top, middle]);
        }
        let output = &mut output[from * BLOCK..(from + count) * BLOCK];
        for first in [0, 16] {
            chunk(&rows, &both, weights, epilogue, first, output);
        }
    }
}

/// 16 channels of some pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn chunk(
    rows: &[[i16; WIDE + 2]; 3],
    both: &[i16; 2 * WIDE],
    weights: &[i8],
    epilogue: &Epilogue,
    first: usize,
    output: &mut [u8],
) {
    let zero_point = zero_point(epilogue);
    let channels = [Channels::load(epilogue, first), Channels::load(epilogue, first + 8)];
    let taps = [taps(weights, first), taps(weights, first + 8)];
    let [top, middle, bottom] = rows;
    let pixel = |at: usize| {
        let a = broadcast_pair(top, at);
        let b = broadcast_pair(middle, at);
        let c = broadcast_pair(bottom, at);
        let d = broadcast_pair(both, 2 * (at + 2));
        let e = broadcast_pair(bottom, at + 2);
        let sum = |taps: &[__m256i; 5]| {
            let products = _mm256_add_epi32(_mm256_madd_epi16(a, taps[0]), _mm256_madd_epi16(b, taps[1]));
            let products = _mm256_add_epi32(products, _mm256_madd_epi16(c, taps[2]));
            let products = _mm256_add_epi32(products, _mm256_madd_epi16(d, taps[3]));
            _mm256_add_epi32(products, _mm256_madd_epi16(e, taps[4]))
        };
        [channels[0].steps(sum(&taps[0])), channels[1].steps(sum(&taps[1]))]
    };
    let pixels = output.len() / BLOCK;
    for column in (0..pixels).step_by(2) {
        let [a, b] = pixel(column);
        let [c, d] = pixel(column + 1);
        let bytes = pack([a, b, c, d], zero_point);
        let output = &mut output[column * BLOCK + first..];
        store_16_bytes(output, 0, _mm256_castsi256_si128(bytes));
        if column + 1 < pixels {
            store_16_bytes(output, BLOCK, _mm256_extracti128_si256::<1>(bytes));
        }
    }
}

/// The weights of 8 channels as pairs of i16: columns 0 and 1 of the three rows, then column 2 of the upper two rows, and of
/// the third (with a zero).
#[inline]
#[target_feature(enable = "avx2")]
fn taps(weights: &[i8], first: usize) -> [__m256i; 5] {
    let row = |ky: usize| load_bytes(weights, (ky * BLOCK + first) * 4);
    let pairs = |row: __m256i, bytes: [i8; 4]| {
        let [a, b, c, d] = bytes.map(i32::from);
        let within = |channel: i32| {
            let byte = |b: i32| if b < 0 { 0x80 } else { (b + 4 * channel) & 0xff };
            byte(a) | byte(b) << 8 | byte(c) << 16 | byte(d) << 24
        };
        let order = _mm_setr_epi32(within(0), within(1), within(2), within(3));
        _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(row, _mm256_broadcastsi128_si256(order)))
    };
    let (top, middle, bottom) = (row(0), row(1), row(2));
    // The fourth byte is 0, so the pairs of column 2 are (w, 0): the middle row's goes to the upper half.
    let upper = _mm256_slli_epi32::<16>(pairs(middle, COLUMN_2));
    [
        pairs(top, COLUMNS_0_1),
        pairs(middle, COLUMNS_0_1),
        pairs(bottom, COLUMNS_0_1),
        _mm256_or_si256(pairs(top, COLUMN_2), upper),
        pairs(bottom, COLUMN_2),
    ]
}
