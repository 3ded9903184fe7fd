//! The sums of products U ⊙ V: for every point a product of matrices, tiles × input channels × output channels, with 6 tiles
//! × 16 output channels in registers.

use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, PIXELS, WEIGHTS, add_products, prefetch, store_i32};
use crate::kernels::winograd::Multiply;
use std::arch::x86_64::*;

/// Bytes of a line of the cache, in i16.
const LINE: usize = 32;

#[target_feature(enable = "avx2")]
pub(super) fn multiply(points: usize, mut task: Multiply<'_>) {
    let count = task.range.len();
    // Groups of much the same size, since a small one costs nearly as much as a large one.
    let groups = count.div_ceil(PIXELS);
    for half in 0..2 * points {
        let mut first = 0;
        for group in 0..groups {
            let size = (count - first).div_ceil(groups - group);
            let at = At { points, half, first, group, groups };
            match size {
                1 => tiles::<1>(&mut task, at),
                2 => tiles::<2>(&mut task, at),
                3 => tiles::<3>(&mut task, at),
                4 => tiles::<4>(&mut task, at),
                5 => tiles::<5>(&mut task, at),
                _ => tiles::<PIXELS>(&mut task, at),
            }
            first += size;
        }
    }
}

/// Where a group of sums lies.
struct At {
    points: usize,
    /// Point and half of the output channels, counted in one.
    half: usize,
    /// The first tile, counted from the first of the task's range.
    first: usize,
    /// Which group of tiles, of how many.
    group: usize,
    groups: usize,
}

/// `T` tiles × 16 output channels of one point.
#[target_feature(enable = "avx2")]
fn tiles<const T: usize>(task: &mut Multiply<'_>, at: At) {
    let At { points, half, first, group, groups } = at;
    let point = half / 2;
    // A share of the weights that are wanted next is fetched with every group.
    let share = (WEIGHTS / LINE).div_ceil(groups);
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for block in 0..task.blocks {
        let u = &task.u[(block * 2 * points + half) * WEIGHTS..];
        for line in group * share..(group + 1) * share {
            prefetch(u, WEIGHTS + line * LINE);
        }
        let tile = (block * points + point) * task.tiles + task.range.start + first;
        let v = &task.v[tile * BLOCK..];
        for t in T..2 * T {
            prefetch(v, t * BLOCK);
        }
        add_products(&mut sums, v, u);
    }
    let m = &mut task.m[(point * task.range.len() + first) * BLOCK..][..T * BLOCK];
    for (sums, m) in sums.iter().zip(m.chunks_exact_mut(BLOCK)) {
        store_i32(m, half % 2 * CHANNELS, sums[0]);
        store_i32(m, half % 2 * CHANNELS + 8, sums[1]);
    }
}
