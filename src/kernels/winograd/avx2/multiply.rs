//! The sums of products U ⊙ V: for every point a product of matrices, tiles × input channels × output channels, with 6 tiles
//! × 16 output channels in registers ([picture](super)). M lies as: tile, point, output channel (32), since it is tiles that are read of it.

use super::weights::{ROWS, rows, some2, some4};
use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, PIXELS, WEIGHTS, add_products, prefetch, store_i32};
use crate::kernels::winograd::{FlyMultiply, Multiply};
use std::arch::x86_64::*;

/// i16 in a line of the cache.
const LINE: usize = 32;

/// All points, with U as it is stored. `dot` adds the products of two pairs to a sum.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn multiply(points: usize, mut task: Multiply<'_>, dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i) {
    for half in 0..2 * points {
        point(&mut task, points, half / 2, At { points, half }, &dot);
    }
}

/// Numbers of scratch for [`multiply_filters4`].
pub(crate) fn scratch4(blocks: usize) -> usize {
    scratch::<6>(blocks)
}

/// Numbers of scratch for [`multiply_filters2`].
pub(crate) fn scratch2(blocks: usize) -> usize {
    scratch::<4>(blocks)
}

/// Two rows of points of a filter.
const fn scratch<const A: usize>(blocks: usize) -> usize {
    blocks * ROWS * A * 2 * WEIGHTS
}

/// All points for m = 4, with U made two rows of points at a time, so that it stays in the cache.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn multiply_filters4(fly: FlyMultiply<'_>, dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i) {
    multiply_filters::<6>(fly, |filters, step, u| some4(filters, step, ROWS * 6, [0, 6], u), dot);
}

/// All points for m = 2, likewise.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn multiply_filters2(fly: FlyMultiply<'_>, dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i) {
    multiply_filters::<4>(fly, |filters, step, u| some2(filters, step, ROWS * 4, [0, 4], u), dot);
}

#[inline]
#[target_feature(enable = "avx2")]
fn multiply_filters<const A: usize>(
    fly: FlyMultiply<'_>,
    weights: impl Fn(&[i8], usize, &mut [i16]),
    dot: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    let FlyMultiply { v, blocks, tiles, range, filters, scratch: u, m } = fly;
    let u = &mut u[..scratch::<A>(blocks)];
    for step in 0..A / ROWS {
        weights(filters, step, u);
        let mut task = Multiply { v, blocks, tiles, range: range.clone(), u, m };
        for (row, y) in rows::<A>(step).into_iter().enumerate() {
            for half in 0..2 * A {
                let at = At { points: ROWS * A, half: row * 2 * A + half };
                point(&mut task, A * A, y * A + half / 2, at, &dot);
            }
        }
    }
}

/// Where a point's weights lie.
#[derive(Clone, Copy)]
struct At {
    /// Points that a block has there.
    points: usize,
    /// Which of them, and which half of the output channels, counted in one.
    half: usize,
}

/// All tiles × 16 output channels of one of `points`.
#[inline]
#[target_feature(enable = "avx2")]
fn point(
    task: &mut Multiply<'_>,
    points: usize,
    point: usize,
    at: At,
    dot: &impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    let count = task.range.len();
    // Groups of much the same size, since a small one costs nearly as much as a large one.
    let groups = count.div_ceil(PIXELS);
    let mut first = 0;
    for group in 0..groups {
        let size = (count - first).div_ceil(groups - group);
        let tiles = Group { points, point, first, group, groups };
        match size {
            1 => tiles.sum::<1>(task, at, dot),
            2 => tiles.sum::<2>(task, at, dot),
            3 => tiles.sum::<3>(task, at, dot),
            4 => tiles.sum::<4>(task, at, dot),
            5 => tiles.sum::<5>(task, at, dot),
            _ => tiles.sum::<PIXELS>(task, at, dot),
        }
        first += size;
    }
}

/// Some tiles of one point.
struct Group {
    points: usize,
    point: usize,
    /// The first tile, counted from the first of the task's range.
    first: usize,
    /// Which group of tiles, of how many.
    group: usize,
    groups: usize,
}

impl Group {
    /// `T` tiles × 16 output channels.
    #[target_feature(enable = "avx2")]
    fn sum<const T: usize>(
        &self,
        task: &mut Multiply<'_>,
        at: At,
        dot: &impl Fn(__m256i, __m256i, __m256i) -> __m256i,
    ) {
        let &Self { points, point, first, group, groups } = self;
        // A share of the weights that are wanted next is fetched with every group.
        let share = (WEIGHTS / LINE).div_ceil(groups);
        let mut sums = [[_mm256_setzero_si256(); 2]; T];
        for block in 0..task.blocks {
            let u = &task.u[(block * 2 * at.points + at.half) * WEIGHTS..];
            for line in group * share..(group + 1) * share {
                prefetch(u, WEIGHTS + line * LINE);
            }
            let tile = (block * points + point) * task.tiles + task.range.start + first;
            let v = &task.v[tile * BLOCK..];
            for t in T..2 * T {
                prefetch(v, t * BLOCK);
            }
            add_products(&mut sums, v, u, dot);
        }
        let m = &mut task.m[first * points * BLOCK..];
        for (t, sums) in sums.iter().enumerate() {
            let at = (t * points + point) * BLOCK + at.half % 2 * CHANNELS;
            store_i32(m, at, sums[0]);
            store_i32(m, at + 8, sums[1]);
        }
    }
}
