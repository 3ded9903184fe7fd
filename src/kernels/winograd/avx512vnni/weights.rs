//! Filters to U, 32 output channels of one input channel at a time.
#![allow(unsafe_code)] // Loads of filters.

use super::{STEP, U_BLOCK, store};
use crate::kernels::BLOCK;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn weights(filters: &[i8], u: &mut [i16]) {
    let row = filters.len() / (9 * BLOCK * BLOCK) * 6 * U_BLOCK;
    for (y, u) in u.chunks_exact_mut(row.max(1)).enumerate().take(6) {
        weights_row(filters, y, u);
    }
}

/// One row of points of U. A row at a time, since its six points are written a power of two bytes apart, where six lines share
/// a set of the first cache but 36 would not.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn weights_row(filters: &[i8], row: usize, u: &mut [i16]) {
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
        for (x, (&first, &second)) in points[0].iter().zip(&points[1]).enumerate() {
            let at = x * point + pair * STEP;
            store(&mut u[at..], _mm512_unpacklo_epi16(first, second));
            store(&mut u[at + BLOCK..], _mm512_unpackhi_epi16(first, second));
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
