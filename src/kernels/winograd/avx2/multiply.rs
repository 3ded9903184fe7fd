//! The sums of products U ⊙ V: for every point a product of matrices, tiles × input channels × output channels, with 6 tiles
//! × 16 output channels in registers.

use crate::kernels::BLOCK;
use crate::kernels::avx2::{CHANNELS, PIXELS, WEIGHTS, add_products, store_i32};
use crate::kernels::winograd::Multiply;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2")]
pub(super) fn multiply(points: usize, mut task: Multiply<'_>) {
    let count = task.range.len();
    // Groups of much the same size, since a small one costs nearly as much as a large one.
    let groups = count.div_ceil(PIXELS);
    for point in 0..points {
        for half in 0..2 {
            let mut first = 0;
            for group in 0..groups {
                let size = (count - first).div_ceil(groups - group);
                let at = At { points, point, half, first };
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
}

/// Where a group of sums lies.
struct At {
    points: usize,
    point: usize,
    /// Which half of the output channels.
    half: usize,
    /// The first tile, counted from the first of the task's range.
    first: usize,
}

/// `T` tiles × 16 output channels of one point.
#[target_feature(enable = "avx2")]
fn tiles<const T: usize>(task: &mut Multiply<'_>, at: At) {
    let At { points, point, half, first } = at;
    let u = &task.u[(2 * point + half) * task.blocks * WEIGHTS..][..task.blocks * WEIGHTS];
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (block, u) in u.chunks_exact(WEIGHTS).enumerate() {
        let tile = (block * points + point) * task.tiles + task.range.start + first;
        add_products(&mut sums, &task.v[tile * BLOCK..], u);
    }
    let m = &mut task.m[(point * task.range.len() + first) * BLOCK..][..T * BLOCK];
    for (sums, m) in sums.iter().zip(m.chunks_exact_mut(BLOCK)) {
        store_i32(m, half * CHANNELS, sums[0]);
        store_i32(m, half * CHANNELS + 8, sums[1]);
    }
}
